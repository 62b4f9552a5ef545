"""Options of an import, shared by the command line and `embedpipe.import_vectors`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, require_one_of
from embedpipe.sources.options import Modality


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the vectors are, and the columns of their table.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    name: str = field(
        default="unnamed",
        metadata={"help": "Where the vectors come from, such as openai/text-embedding-3-large. Part of the spec."},
    )
    modality: Modality = field(
        default="image", metadata={"help": "What was embedded: image or text. Part of the spec."}
    )
    vector: str | None = field(
        default=None,
        metadata={
            "help": "Table column with lists of numbers, or the beginning of the names of columns with one number "
            "each, such as v of v0, v1, v2. Default: found if there is one."
        },
    )
    split: str | None = field(default=None, metadata={"help": "Table column to store as split."})
    labels_from_source: bool = field(
        default=False,
        metadata={"help": "Take labels, splits and metadata from the table where `embedpipe label` set another value."},
    )
    compress: bool = field(
        default=False,
        metadata={
            "help": "Create a store of less than half the size: vectors are rounded to 16-bit precision, "
            "a relative error of at most 1/2048."
        },
    )

    def __post_init__(self) -> None:
        require_one_of("modality", self.modality, get_args(Modality))
        if not self.name.strip():
            raise UsageError(f"{option('name')} must say where the vectors come from, got {self.name!r}")
