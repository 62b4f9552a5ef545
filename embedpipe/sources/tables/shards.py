"""Files of tables that are a source together, as Hugging Face writes data sets: where they are, and their splits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import SourceError
from embedpipe.sources.file_types import TAR_SUFFIX, is_payload_name, suffix_of
from embedpipe.sources.listing import SPLITS
from embedpipe.sources.options import Modality

#: Suffixes of tables that are a source together if a folder holds nothing else.
_SUFFIXES = (".parquet", ".arrow")

#: Files that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write beside the tables.
_STATE, _SPLITS = "state.json", "dataset_dict.json"

#: train-00000-of-00004.parquet, also with a hash after it.
_NUMBERED = re.compile(r"(?:.+-)?(\w+)-\d{5}-of-\d{5}(?:-[0-9a-f]{8,})?")

#: train.csv, test_1.parquet, validation-0003.parquet.
_NAMED = re.compile(rf"({'|'.join(SPLITS)})(?:[-_.]?\d+)?", re.IGNORECASE)


class Shard(NamedTuple):
    """A file of a table.

    Parameters
    ----------
    location : str
    prefix : str
        Begin of ids that are numbers of rows, or unique in this file only.
    split : str, optional
        The split of its rows, if the table has no column of splits.
    """

    location: str
    prefix: str = ""
    split: str | None = None


def only_shard(location: str) -> Shard:
    """Return a file that is a source alone. A number such as ``-00000-of-00002`` in its name follows its split."""
    return Shard(location, split=_numbered_split(_stem(location)))


def shards_of(locations: Sequence[str]) -> list[Shard]:
    """Return files that are a source together. Their names are those of splits, or those of their folders, or none."""
    paths = [location.split("/") for location in locations]
    folders = zip(*(path[:-1] for path in paths), strict=False)
    common = len([*itertools.takewhile(lambda names: len({*names}) == 1, folders)])
    names = [_without_suffix("/".join(path[common:])) for path in paths]
    splits = [_split_of(name) for name in names]
    if None in splits:
        splits = [_numbered_split(name) for name in names]
    return [Shard(location, f"{name}/", split) for location, name, split in zip(locations, names, splits, strict=True)]


def shards_of_folder(folder: Path, modality: Modality) -> list[Shard]:
    """Return the tables of a folder: those of ``save_to_disk``, or all if there are no items beside them; else none.

    Raises SourceError if the files of ``save_to_disk`` are damaged, or name files elsewhere.
    """
    if (folder / _SPLITS).is_file():
        names = _names(folder / _SPLITS, lambda state: state["splits"])
        return [
            Shard(str(path), f"{name}/{path.stem}/", SPLITS.get(name.lower(), name))
            for name in names
            for path in _saved(folder / name)
        ]
    if (folder / _STATE).is_file():
        paths = _saved(folder)
        return [Shard(str(path), f"{path.stem}/" if len(paths) > 1 else "") for path in paths]
    tables = _tables_below(folder, modality)
    return shards_of([str(path) for path in tables]) if tables else []


def _saved(folder: Path) -> list[Path]:
    """Return the files that `Dataset.save_to_disk` has written; older ones beside them belong to no data set."""
    names = _names(folder / _STATE, lambda state: [file["filename"] for file in state["_data_files"]])
    return [folder / name for name in names]


def _names(path: Path, read: Callable[[Any], Any]) -> list[str]:
    """Return names of files or folders in the folder of a file of JSON."""
    try:
        names = read(parse_json(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"cannot read {str(path)!r}, which save_to_disk has written: {error!r}") from error
    if not isinstance(names, list) or not names:
        raise SourceError(f"{str(path)!r} must name the parts of a data set, and names none")
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name or "\\" in name:
            raise SourceError(f"{str(path)!r} must name files and folders beside it, got {name!r}")
    return names


def _tables_below(folder: Path, modality: Modality) -> list[Path]:
    """Return the tables below a folder in the order of their names; none if there are items or tar files too.

    Hidden files, feature stores and links to folders are left out.
    """
    tables: list[Path] = []
    pending = [folder]
    while pending:
        try:
            entries = [entry for entry in pending.pop().iterdir() if not entry.name.startswith(".")]
        except OSError:  # listing the folder gives the reason
            return []
        names = {entry.name for entry in entries}
        if "_delta_log" in names:
            continue
        others = {name for name in names if name.lower() != "readme.md"}
        if any(is_payload_name(name, modality) or suffix_of(name) == TAR_SUFFIX for name in others):
            return []
        tables += [entry for entry in entries if suffix_of(entry.name) in _SUFFIXES]
        pending += [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    return sorted(tables)


def _split_of(name: str) -> str | None:
    """Return the split that a file is named after, or one of its folders."""
    if split := _numbered_split(name):
        return split
    for part in reversed(name.split("/")):
        if match := _NAMED.fullmatch(part):
            return SPLITS[match[1].lower()]
    return None


def _numbered_split(name: str) -> str | None:
    match = _NUMBERED.fullmatch(name.rpartition("/")[2])
    if not match or match[1] == "data":  # the name that `save_to_disk` gives
        return None
    return SPLITS.get(match[1].lower(), match[1])


def _stem(location: str) -> str:
    return _without_suffix(location.rpartition("/")[2])


def _without_suffix(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]
