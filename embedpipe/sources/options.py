"""How a source is read: the options that the command line and the Python functions share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: What a payload is. The backbone of a run decides which it wants.
Modality = Literal["image", "text"]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Which columns of a table mean what, and what to put before the ids.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    prefix: str = field(
        default="", metadata={"help": "Put PREFIX/ before every id, so that several roots can share a store."}
    )
    image: str | None = field(
        default=None, metadata={"help": "Table column with an image path or URL, or the image's bytes."}
    )
    text: str | None = field(default=None, metadata={"help": "Table column with the text to embed."})
    id: str | None = field(
        default=None, metadata={"help": "Table column with a unique id; the path where none is given."}
    )
    label: str | None = field(default=None, metadata={"help": "Table column to carry as label."})
    split: str | None = field(default=None, metadata={"help": "Table column to carry as split."})
    header: str | None = field(
        default=None,
        metadata={"help": "Names of the columns of a CSV or TSV file without a header line, separated by commas."},
    )
