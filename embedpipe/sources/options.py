"""Options of a source, shared by the command line and the Python functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from embedpipe._utils.option_names import is_set_by_variable, option
from embedpipe.errors import UsageError, require_one_of

#: The kind of a payload. The backbone decides which kind a run takes.
Modality = Literal["image", "text"]
TiffPages = Literal["first", "all"]
#: For messages.
WITH_ARTICLE: dict[Modality, str] = {"image": "an image", "text": "a text"}
#: What has decided the modality, such as a head; empty where the user may choose another.
_holder: ContextVar[str] = ContextVar("embedpipe_modality_holder", default="")


@contextmanager
def modality_of(holder: str) -> Iterator[None]:
    """Let messages of the block say what ``holder`` takes, in the place of advice to embed the other modality."""
    token = _holder.set(holder)
    try:
        yield
    finally:
        _holder.reset(token)


def or_other_modality(advice: str, modality: Modality) -> str:
    """Return advice to choose another modality or, where something has decided it, what that takes."""
    return f"{holder} takes {modality}s" if (holder := modality_holder()) else advice


def modality_holder() -> str:
    """Return what has decided the modality, as `modality_of` names it; empty where the user may choose another."""
    return _holder.get()


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Roles of the columns of a table, and a prefix for the ids.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    prefix: str = field(
        default="", metadata={"help": "Add PREFIX/ to every id, so that several sources can share a store."}
    )
    image: str | None = field(default=None, metadata={"help": "Table column with the path, URL or bytes of an image."})
    text: str | None = field(default=None, metadata={"help": "Table column with the text to embed."})
    id: str | None = field(default=None, metadata={"help": "Table column with a unique id. Default: the path."})
    label: str | None = field(default=None, metadata={"help": "Table column to store as label."})
    split: str | None = field(default=None, metadata={"help": "Table column to store as split."})
    allow_root: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Folder or URL below which a table or list may name files, besides its own folder (repeatable). "
            "s3:// or https:// allows every bucket or public server."
        },
    )
    tiff_pages: TiffPages = field(
        default="first",
        metadata={
            "help": "all: each page of a TIFF is an item, with the id x.tif#page=2 and so on; first: only the first, "
            "and the others are counted."
        },
    )
    boxes: str | None = field(
        default=None,
        metadata={
            "help": "Table columns with a part of each image in pixels: left, top, width and height, such as "
            "x,y,width,height; or the column with the list of boxes of each image, such as objects (objects:xyxy for "
            "left, top, right and bottom). Each box is then an item."
        },
    )
    box_margin: float = field(
        default=0.0,
        metadata={
            "help": "Share of its width and height that a part of an image gets on each side (boxes, COCO, YOLO)."
        },
    )
    every: str | None = field(
        default=None,
        metadata={"help": "Embed frames of videos, one every so often: 1s, 500ms, 2min. Needs the extra video."},
    )
    header: str | None = field(
        default=None,
        metadata={"help": "Column names of a CSV or TSV file without a header line, separated by commas."},
    )

    def __post_init__(self) -> None:
        roots = (self.allow_root,) if isinstance(self.allow_root, str) else tuple(self.allow_root)
        object.__setattr__(self, "allow_root", roots)
        if not 0 <= self.box_margin <= 10:
            raise UsageError(f"{option('box_margin')} must be in 0..10, got {self.box_margin:g}")
        if self.boxes is not None and (len(self.boxes.split(",")) not in (1, 4) or not self.boxes):
            raise UsageError(
                f"{option('boxes')} must name four columns with commas, or one with lists of boxes, got {self.boxes!r}"
            )
        require_one_of("tiff_pages", self.tiff_pages, get_args(TiffPages))

    def refuse_for_store(self, path: str, used: tuple[str, ...] = ()) -> None:
        """Raise UsageError if an option says how to list items, which a feature store holds as they were listed.

        ``allow_root`` also holds for where a store says that its items are; ``used`` are others that a store needs.
        Variables of the environment are for all verbs, and pass.
        """
        for each in fields(self):
            given = getattr(self, each.name) != each.default and not is_set_by_variable(each.name)
            if given and each.name not in ("allow_root", *used):
                raise UsageError(
                    f"{option(each.name, ...)} is for items that are listed anew, and {path!r} is a feature store: "
                    "leave it out"
                )
