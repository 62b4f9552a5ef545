"""Listing of a folder of YOLO: every line of its labels is an item, a part of the picture of the same name."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from embedpipe.errors import DecodeError, SourceError
from embedpipe.sources.access.roots import access_of
from embedpipe.sources.boxes import Box
from embedpipe.sources.file_types import IMAGE_SUFFIXES, suffix_of
from embedpipe.sources.listing import SPLITS, Listing
from embedpipe.sources.locations import local_uri, printable
from embedpipe.sources.options import SourceOptions
from embedpipe.sources.parts import Part, list_parts

#: The file with the names of classes.
FILE = "data.yaml"

#: Most bytes of a file of names or labels.
_MOST_BYTES = 1 << 20


def is_yolo(folder: Path) -> bool:
    """Return whether a folder is laid out as YOLO reads it: ``data.yaml``, and labels beside images."""
    return (folder / FILE).is_file() and any(next(folder.glob(each), None) for each in ("labels", "*/labels"))


def list_yolo(file: Path, options: SourceOptions) -> Listing:
    """List the boxes below the folder of a ``data.yaml``. Ids are paths of pictures with boxes, in percent.

    The labels of ``images/train/a.jpg`` are in ``labels/train/a.txt``: lines of class, centre, width and height as
    shares of the picture, or class and corners of a polygon, whose box is taken. Paths in ``data.yaml`` are not
    followed: all pictures below a folder ``images`` are listed, and splits are the names of folders.

    Raises
    ------
    SourceError
        The file has no names of classes, a folder cannot be listed, or there is no picture.
    """
    names = _class_names(file)
    folder = file.parent
    try:
        paths = [path for path in _pictures(folder) if "images" in path.parts[:-1]]
    except OSError as error:
        raise SourceError(f"cannot list the folder {str(folder)!r}: {error}") from error
    if not paths:
        raise SourceError(f"a folder of YOLO must have pictures in folders 'images', and {str(folder)!r} has none")
    pictures = [(printable(str(path)), local_uri(str(folder / path))) for path in paths]
    parts = _parts(folder, paths, names, options.box_margin)
    return list_parts(printable(str(folder)), pictures, parts, access_of(str(folder), options.allow_root))


def _parts(folder: Path, pictures: list[Path], names: dict[int, str], margin: float) -> Iterator[Part]:
    seen: Counter[str] = Counter()
    for number, path in enumerate(pictures):
        split = next((SPLITS[part.lower()] for part in path.parts[:-1] if part.lower() in SPLITS), None)
        for place, label, box in _boxes(folder, path, names, margin):
            id = f"{printable(str(path))}{box.fragment}" if isinstance(box, Box) else place
            seen[id] += 1
            yield Part(number, f"{id}#{seen[id]}" if seen[id] > 1 else id, box, label, split, place)


def _class_names(file: Path) -> dict[int, str]:
    yaml = importlib.import_module("yaml")  # comes with the libraries of models
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"a data.yaml must have at most {_MOST_BYTES:,} bytes")
        content = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"cannot read {str(file)!r}: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    known = dict(enumerate(names)) if isinstance(names, list) else names
    if (
        not isinstance(known, dict)
        or not known
        or not all(isinstance(number, int) and isinstance(name, str | int) for number, name in known.items())
    ):
        raise SourceError(f"{str(file)!r} must have the names of classes (names), as a list or by number")
    return {number: str(name) for number, name in known.items()}


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the paths of pictures below a folder in a fixed order. Links to folders are not followed."""
    pending = [Path()]
    while pending:
        inside = pending.pop()
        entries = sorted(entry for entry in (folder / inside).iterdir() if not entry.name.startswith("."))
        yield from (inside / entry.name for entry in entries if suffix_of(entry.name) in IMAGE_SUFFIXES)
        pending += [inside / entry.name for entry in reversed(entries) if entry.is_dir() and not entry.is_symlink()]


def _boxes(
    folder: Path, picture: Path, names: dict[int, str], margin: float
) -> Iterator[tuple[str, str | None, Box | DecodeError]]:
    """Yield place, label and box of each line of the labels of a picture, or why there is none."""
    last = max(at for at, part in enumerate(picture.parts[:-1]) if part == "images")
    labels = Path(*picture.parts[:last], "labels", *picture.parts[last + 1 :]).with_suffix(".txt")
    path = folder / labels
    if not path.is_file():
        return
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"a file of labels must have at most {_MOST_BYTES:,} bytes")
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        yield printable(str(labels)), None, DecodeError(f"cannot read the labels: {error}")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number} of {printable(str(labels))}"
        try:
            kind, *values = map(float, line.split())
        except ValueError:
            kind, values = -1.0, []
        if len(values) < 4 or (len(values) > 5 and len(values) % 2):
            yield place, None, DecodeError(f"a line must be CLASS X Y WIDTH HEIGHT or a polygon, got {line!r:.80}")
        elif kind not in names:
            yield place, None, DecodeError(f"the class must be one of the {len(names)} in {FILE}, got {kind:g}")
        else:
            yield place, names[int(kind)], _box_of(values, margin)


def _box_of(values: list[float], margin: float) -> Box:
    if len(values) > 5:
        xs, ys = values[::2], values[1::2]
        left, top, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    else:
        width, height = values[2:4]
        left, top = values[0] - width / 2, values[1] - height / 2
    return Box(left * 100, top * 100, width * 100, height * 100, "percent", margin)
