"""Items of programs: pairs of an image and its label, tensors, and images as lossless files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources.options import Modality

#: Modes that PNG holds without loss; TIFF holds the others.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def is_pair(item: Any) -> bool:
    """Return whether an item is an image or text with its label."""
    return isinstance(item, tuple) and len(item) == 2


def plain_item(item: Any) -> Any:
    """Return a tensor as a uint8 array, with the channels last, and anything else as it is.

    A tensor has the shape (height, width) or (1, 3 or 4, height, width), and values that are uint8, or floats in 0..1.
    Raises ReadError for others.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(item, torch.Tensor):
        return item
    array = item.detach().cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)
    if array.dtype.kind == "f":
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        if not 0 <= low <= high <= 1:
            raise ReadError(
                f"values of a tensor of floats must be in 0..1, got {low:g} to {high:g}: leave normalisation to the "
                "backbone, such as by a data set without its transform"
            )
        array = np.round(array * 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def plain_value(value: Any) -> Any:
    """Return a number or list of NumPy or torch as one of Python, and anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") and getattr(value, "ndim", 2) < 2 else value


def as_file(item: Any, number: int, modality: Modality) -> Any:
    """Return an image or array as the bytes of a file without loss, a path as text, and anything else as it is.

    Raises SourceError for an array that is no image, and for a path of a text. ``number`` is its place among the items.
    """
    if isinstance(item, os.PathLike):
        if modality == "text":
            raise SourceError(f"item {number} of an iterator must be a text, got a path: give a list of paths")
        return os.fsdecode(item)
    try:
        item = plain_item(plain_value(item))
        if isinstance(item, np.ndarray):
            if item.dtype != np.uint8:
                raise ReadError(f"an array must be uint8, got {item.dtype}")
            item = Image.fromarray(item)
        if not isinstance(item, Image.Image):
            return item
        file, exif = io.BytesIO(), item.getexif()
        if item.mode == "YCbCr":  # of which Pillow 12 writes a TIFF that it cannot read
            item = item.convert("RGB")
        if item.mode in _PNG_MODES:
            item.save(file, "PNG", compress_level=0, exif=exif)
        else:
            item.save(file, "TIFF", exif=exif, icc_profile=item.info.get("icc_profile"))
    except (ReadError, TypeError, ValueError, OSError) as error:
        raise SourceError(f"item {number} must be an image: {error}") from error
    return file.getvalue()


class Pairs(NamedTuple):
    """The images or texts of pairs and their labels. ``is_lazy``: the program makes an item when it is asked for it."""

    items: Sequence[Any]
    labels: pa.Array
    is_lazy: bool = False
    notes: tuple[str, ...] = ()


def as_pairs(source: Any) -> Pairs | None:
    """Return a sequence of pairs (image, label), such as a data set of torchvision; None for other sources.

    Labels are read from the attribute ``targets`` if there is one. Numbers of ``classes`` become their names. Images of
    an `ImageFolder` without a transform are its files.
    """
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")) or isinstance(source, str | bytes | dict):
        return None
    if hasattr(type(source), "dtype") or not len(source) or not is_pair(source[0]):
        return None
    is_lazy = not isinstance(source, list | tuple)
    known = _known_labels(source)
    labels = _label_column(known or [source[row][1] for row in range(len(source))], _class_names(source))
    if _is_image_folder(source):
        return Pairs([path for path, _ in source.samples], labels)
    notes = ("every item was read once for its label",) if is_lazy and known is None else ()
    return Pairs(_Images(source), labels, is_lazy, notes)


class _Images(Sequence[Any]):
    """The images of a sequence of pairs."""

    def __init__(self, pairs: Any) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, position: Any) -> Any:
        return self._pairs[position][0]


def _known_labels(source: Any) -> Any:
    """Return the labels that a data set has in memory, None if they are unknown or changed when an item is read."""
    if _is_subset(source):
        labels = _known_labels(source.dataset)
        return None if labels is None else [labels[row] for row in source.indices]
    labels = getattr(source, "targets", None)
    if labels is None or getattr(source, "target_transform", None) is not None or len(labels) != len(source):
        return None
    return labels.tolist() if hasattr(labels, "tolist") else list(labels)


def _class_names(source: Any) -> list[str]:
    names = getattr(source.dataset if _is_subset(source) else source, "classes", None)
    return list(names) if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else []


def _is_subset(source: Any) -> bool:
    return hasattr(source, "dataset") and hasattr(source, "indices")


def _is_image_folder(source: Any) -> bool:
    """Return whether the items of a data set are the files that ``samples`` names, as they are."""
    library = sys.modules.get("torchvision.datasets.folder")
    if library is None or type(source) is not library.ImageFolder:
        return False
    return source.transforms is None and source.loader is library.default_loader


def _label_column(labels: Sequence[Any], names: list[str]) -> pa.Array:
    values = [plain_value(label) for label in labels]
    if names and all(isinstance(value, int) and 0 <= value < len(names) for value in values):
        return pa.array([names[value] for value in values], pa.string())
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise SourceError(f"labels of a sequence must have one plain type, got {kinds}: {error}") from error


def is_stream(source: Any) -> bool:
    """Return whether a source is an iterator, or can be iterated but has no positions."""
    if isinstance(source, Iterator):
        return True
    if _is_any(source, "torch.utils.data", "DataLoader"):
        raise SourceError("a source must not be a DataLoader, which gives batches: give its data set (.dataset)")
    if _is_any(source, "datasets", "IterableDataset", "IterableDatasetDict"):
        return True
    if _is_any(source, "torch.utils.data", "IterableDataset"):
        return True
    return hasattr(source, "__iter__") and not hasattr(source, "__len__") and not hasattr(source, "__getitem__")


def _is_any(source: Any, module: str, *names: str) -> bool:
    """Return whether a source is of a class of a module, if that is imported."""
    library = sys.modules.get(module)
    return isinstance(source, tuple(getattr(library, name) for name in names if hasattr(library, name)))
