"""Listing of a COCO file of annotations: every box is an item, and its category the label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import DecodeError, SourceError
from embedpipe.sources.access.roots import access_of
from embedpipe.sources.boxes import Box
from embedpipe.sources.listing import SPLITS, Listing
from embedpipe.sources.locations import absolute, exists, is_url, join, open_file, printable, split_location
from embedpipe.sources.options import SourceOptions
from embedpipe.sources.parts import Part, list_parts

#: The split in the name of a file, such as instances_val2017.json.
_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLITS)})(?:[^a-z]|$)", re.IGNORECASE)

#: Pictures by which their folder is found.
_TRIED = 20


def list_coco(location: str, options: SourceOptions) -> Listing:
    """List the boxes of a COCO file. Ids are file names of pictures with ids of annotations: ``a.jpg#17``.

    Pictures lie in the folder of the file, in ``images`` beside it, or in a folder of ``allow_root``, in one that is
    called ``images`` or as the end of the file's name, such as ``val2017``.

    Raises
    ------
    SourceError
        The file is no COCO file, or none of its pictures may be read.
    """
    folder, name = split_location(location)
    images, categories, annotations = _read(location, name)
    for kind, items in (("image", images), ("category", categories), ("annotation", annotations)):
        if wrong := [item for item in items if not isinstance(item, dict)]:
            raise SourceError(f"every {kind} of {name!r} must be an object, got {wrong[0]!r:.80}")
    numbers = {_key(image, "id", name): number for number, image in enumerate(images)}
    labels = {_key(each, "id", name): printable(str(_key(each, "name", name))) for each in categories}
    if len(numbers) < len(images):
        raise SourceError(
            f"ids of the images of {name!r} must be unique, and {len(images) - len(numbers)} are repeated"
        )
    names = [printable(str(image.get("file_name") or f"image {number}")) for number, image in enumerate(images)]
    base = _folder_of(names, [folder, *map(absolute, options.allow_root)], name)
    pictures = [(each, join(base, each)) for each in names]
    found = _SPLIT.search(name)
    split = SPLITS[found[1].lower()] if found else None

    def parts() -> Iterator[Part]:
        for position, annotation in enumerate(annotations):
            id = annotation.get("id", position)
            place = f"annotation {id!r:.40} of {name!r}"
            picture = numbers.get(_key(annotation, "image_id", name))
            if picture is None:
                raise SourceError(f"{place} must be of an image of the file, got {annotation['image_id']!r:.40}")
            box = _box_of(annotation, images[picture], options.box_margin)
            if (label := labels.get(_key(annotation, "category_id", name))) is None:
                box = DecodeError(f"category_id must be one of the file, got {annotation['category_id']!r:.40}")
            yield Part(picture, f"{names[picture]}#{printable(str(id))}", box, label, split, place)

    return list_parts(printable(location), pictures, parts(), access_of(folder, options.allow_root))


def _read(location: str, name: str) -> tuple[list[Any], list[Any], list[Any]]:
    try:
        with open_file(location) as file:
            content = parse_json(bytes(file.read()))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {location!r}: {error}") from error
    lists = content if isinstance(content, dict) else {}
    images, categories, annotations = (lists.get(key) for key in ("images", "categories", "annotations"))
    if isinstance(images, list) and isinstance(categories, list) and isinstance(annotations, list):
        return images, categories, annotations
    raise SourceError(
        f"a .json source must be a COCO file with the lists images, categories and annotations, which {name!r} lacks; "
        "a table has one object a line (.jsonl)"
    )


def _key(item: dict[str, Any], key: str, name: str) -> int | str:
    """Return an id or name. Raises SourceError if it is neither an integer nor a text."""
    id = item.get(key)
    if not isinstance(id, int | str):
        raise SourceError(f"{key} must be an integer or a text, and {item!r:.80} of {name!r} has {id!r:.40}")
    return id


def _box_of(annotation: dict[str, Any], image: dict[str, Any], margin: float) -> Box | DecodeError:
    numbers, size = annotation.get("bbox"), (image.get("width"), image.get("height"))
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(isinstance(each, int | float) for each in numbers):
        return DecodeError(f"bbox must be four numbers (x, y, width, height), got {numbers!r:.80}")
    of = (size[0], size[1]) if all(isinstance(each, int) and each > 0 for each in size) else None
    try:
        return Box(*map(float, numbers), margin=margin, of=of)  # type: ignore[arg-type, misc]
    except OverflowError:  # an integer of hundreds of digits
        return DecodeError(f"bbox must be four finite numbers, got {numbers!r:.80}")


def _folder_of(names: list[str], folders: list[str], file: str) -> str:
    """Return the folder in which the first picture that is found lies, or the first folder."""
    year = Path(file).stem.rpartition("_")[2]
    for name in names[:_TRIED]:
        for folder in folders:
            for base in (folder, join(folder, "images"), join(folder, year)):
                if not is_url(base) and exists(join(base, name)):
                    return base
    return folders[0]
