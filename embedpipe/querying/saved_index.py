"""The folder ``STORE.index``: the cells of a store's vectors on disk, and which row of the store each key stands for.

``manifest.json`` names the other files with their SHA-256 and is renamed last, so that an index is whole or the one
before. ``cells-GENERATION.faiss`` is FAISS's file, read as a memory map; ``keys-GENERATION.arrow`` has a row per row of
the store, in id order: its key in the cells, and a digest of id and content hash, by which rows are found again when
their positions have shifted. Hashes are compared before anything is read.
"""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from embedpipe._utils.atomic import names_file, sync
from embedpipe._utils.checksums import file_sha256, read_json, write_json
from embedpipe._utils.version import other_format
from embedpipe.neighbours import Recall, Tuning
from embedpipe.neighbours.cells import BITS
from embedpipe.neighbours.cells_file import read_cells, write_cells
from embedpipe.neighbours.exact import Metric
from embedpipe.neighbours.tuning import CANDIDATES
from embedpipe.store import FeatureStore
from embedpipe.store.data_files import index_folder

MANIFEST = "manifest.json"
METRIC: Metric = "cosine"
#: Version of the files.
FORMAT = 1
FILE_NAME = re.compile(r"(cells-[0-9a-f]{12}\.faiss|keys-[0-9a-f]{12}\.arrow)")
#: Seconds after which a file that no manifest names is taken for one of a killed process, and deleted.
ABANDONED = 3600.0
#: How often the manifest is read again where another process replaced the index meanwhile.
ATTEMPTS = 5

Keys = npt.NDArray[np.int64]


class IndexRefusedError(ValueError):
    """A saved index cannot be used; the message is the reason."""


@dataclass(frozen=True)
class SavedFile:
    """A file of the index: its name, size and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Figures:
    """What was measured when the index was built.

    Attributes
    ----------
    latency_ms, exact_latency_ms : float
        Median milliseconds of a search for one query, with the index and exactly.
    queries_per_second : float
        Of a batch.
    build_seconds : float
    """

    latency_ms: float
    exact_latency_ms: float
    queries_per_second: float
    build_seconds: float


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` holds.

    Attributes
    ----------
    format, generation : int, str
    table, version : str, int
        Id of the store's table, and its version.
    fingerprint, layer, dim : str, str, int
        Of the backbone spec with this layer only.
    metric : str
    rows, next_key : int
        Number of rows; keys are below the second number.
    built_rows, changed : int
        Number of rows at the last build, and how many were added or removed since.
    cells : int
    unevenness : float
        Of the cells at the last build.
    target : float
        The recall that was asked for.
    memory : int, optional
        The largest size in bytes that was asked for.
    bits : int
        Of each value in the cells.
    tuning : Tuning
    recall : Recall
        As measured on rows that had no part in choosing the probes.
    figures : Figures
    files : dict
        ``cells`` and ``keys``.
    """

    format: int
    generation: str
    table: str
    version: int
    fingerprint: str
    layer: str
    dim: int
    metric: str
    rows: int
    next_key: int
    built_rows: int
    changed: int
    cells: int
    unevenness: float
    target: float
    memory: int | None
    bits: int
    tuning: Tuning
    recall: Recall
    figures: Figures
    files: dict[str, SavedFile]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Return the manifest of the values of its file. Raises IndexRefusedError if they are no such values."""
        try:
            if values["format"] != FORMAT:
                raise IndexRefusedError(f"it {other_format(values['format'], FORMAT)}")
            tuning = {**values["tuning"]}
            parsed = {
                **values,
                "tuning": Tuning(**{**tuning, "k": tuple(tuning["k"]), "probes": tuple(tuning["probes"])}),
                "recall": Recall(**values["recall"]),
                "figures": Figures(**values["figures"]),
                "files": {name: SavedFile(**values["files"][name]) for name in ("cells", "keys")},
            }
            manifest = cls(**parsed)
            possible = manifest._is_possible()
        except (KeyError, TypeError) as error:
            raise IndexRefusedError(f"it lacks or adds values: {error}") from error
        if not possible:
            raise IndexRefusedError("it has numbers or names that no index has")
        return manifest

    def _is_possible(self) -> bool:
        """Return whether the names of files, and the numbers that decide sizes and loops, can be those of an index."""
        tuning = self.tuning
        measured = (*dataclasses.astuple(self.recall), *dataclasses.astuple(self.figures), tuning.gate, self.unevenness)
        numbers = (self.rows, self.next_key, self.cells, *tuning.k, *tuning.probes, tuning.candidates)
        return (
            all(FILE_NAME.fullmatch(file.name) for file in self.files.values())
            and all(type(number) in (int, float) for number in (*measured, self.target))
            and all(type(file.size) is int for file in self.files.values())
            and all(type(number) is int and number > 0 for number in numbers)
            and self.rows <= self.next_key <= 2 * self.rows + 1  # a build, and at most a quarter changed
            and self.cells <= self.rows
            and max(*tuning.probes, tuning.candidates) <= max(self.cells, CANDIDATES[-1])
            and len(tuning.k) == len(tuning.probes)
            and self.bits in BITS
        )


class SavedIndex:
    """A saved index, open.

    Attributes
    ----------
    manifest : Manifest
    cells : faiss.IndexIVFScalarQuantizer
        In a memory map, so that it can be searched and not changed.
    keys : int64 array (rows,)
        The key of each row of the store's version ``manifest.version``, in id order.
    digests : pyarrow.Array of 16 bytes, length rows
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        for file in manifest.files.values():
            _check(folder, file)
        with pa.memory_map(str(folder / manifest.files["keys"].name)) as source:
            table = pa.ipc.open_file(source).read_all()
        self.keys: Keys = table.column("key").combine_chunks().to_numpy()
        self.digests: pa.Array = table.column("digest").combine_chunks()
        if len(self.keys) != manifest.rows or not 0 <= self.keys.min() <= self.keys.max() < manifest.next_key:
            raise IndexRefusedError(f"its keys are not those that {MANIFEST} says")
        self.cells: Any = self._read_cells(mapped=True)

    def changeable_cells(self) -> Any:
        """Return the cells in memory, to add and remove rows."""
        return self._read_cells(mapped=False)

    def _read_cells(self, mapped: bool) -> Any:
        about = self.manifest
        path = self.folder / about.files["cells"].name
        return read_cells(path, about.cells, about.dim, about.rows, METRIC, about.bits, mapped=mapped)

    def rows(self, store: FeatureStore) -> tuple[Keys, Keys]:
        """Return the row of each key in the store's version, -1 where it was removed, and the rows without a key."""
        row_of = np.full(self.manifest.next_key, -1)
        if store.version == self.manifest.version:
            row_of[self.keys] = np.arange(len(self.keys))
            return row_of, np.empty(0, np.int64)
        place = np.asarray(pc.fill_null(pc.index_in(row_digests(store), value_set=self.digests), -1))
        known = np.flatnonzero(place >= 0)
        row_of[self.keys[place[known]]] = known
        return row_of, np.flatnonzero(place < 0)


def open_index(store: FeatureStore, layer: str) -> SavedIndex | None:
    """Return the saved index of a store's layer, None if there is none.

    Raises
    ------
    IndexRefusedError
        If it is damaged, or made for other vectors.
    """
    folder = index_folder(store.path)
    if folder is None or not folder.is_dir():
        return None
    for _ in range(ATTEMPTS):
        try:
            manifest = Manifest.from_json(read_json(folder / MANIFEST))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise IndexRefusedError(f"{MANIFEST} cannot be used: {error}") from error
        if manifest.layer != layer:
            return None
        if manifest.table != store.table_id:
            raise IndexRefusedError("it was made for another store")
        spec = store.spec.only(layer)
        if (manifest.fingerprint, manifest.dim) != (spec.fingerprint(), spec.layers[0].dim):
            raise IndexRefusedError("it was made for vectors of another backbone")
        try:
            return SavedIndex(folder, manifest)
        except FileNotFoundError as error:  # another process replaced the index
            missing = Path(error.filename or "a file of it").name
        except (OSError, RuntimeError, ValueError, LookupError, pa.ArrowException) as error:
            raise IndexRefusedError(str(error)) from error
    raise IndexRefusedError(f"{missing} is missing")


def write_index(store: FeatureStore, values: dict[str, Any], cells: Any, keys: Keys) -> SavedIndex:
    """Write an index in place of the one before, and open it.

    Parameters
    ----------
    store : FeatureStore
    values : dict
        Of the manifest: all but generation and files.
    cells : faiss.IndexIVFScalarQuantizer
    keys : int64 array (rows,)
        The key of each row of the store.
    """
    folder = index_folder(store.path)
    assert folder is not None
    generation = uuid.uuid4().hex[:12]
    with names_file(folder):
        folder.mkdir(exist_ok=True)
        before = _named(folder)
        paths = {"cells": folder / f"cells-{generation}.faiss", "keys": folder / f"keys-{generation}.arrow"}
        try:
            write_cells(cells, paths["cells"])
            table = pa.table({"key": pa.array(keys), "digest": row_digests(store)})
            with pa.OSFile(str(paths["keys"]), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            files = {}
            for role, path in paths.items():
                sync(path)
                files[role] = SavedFile(path.name, path.stat().st_size, file_sha256(path))
            manifest = Manifest(format=FORMAT, generation=generation, files=files, **values)
            write_json(manifest.to_dict(), folder / MANIFEST, indent=2)
        except BaseException:
            for path in paths.values():
                path.unlink(missing_ok=True)
            raise
        _clean(folder, before, {MANIFEST, *(path.name for path in paths.values())})
    return SavedIndex(folder, manifest)


def move_to_version(saved: SavedIndex, store: FeatureStore) -> SavedIndex:
    """Note that the store's version has the same rows as the version that the index was made for.

    An index that another process has written meanwhile stays, and is returned.
    """
    if _named(saved.folder) != {file.name for file in saved.manifest.files.values()}:
        return open_index(store, saved.manifest.layer) or saved
    manifest = dataclasses.replace(saved.manifest, version=store.version)
    write_json(manifest.to_dict(), saved.folder / MANIFEST, indent=2)
    return SavedIndex(saved.folder, manifest)


def row_digests(store: FeatureStore) -> pa.Array:
    """Return a digest of id and content hash of each row, 16 bytes, in id order."""
    table = store.to_arrow(["id", "content_hash"])
    pairs = zip(table.column("id").to_pylist(), table.column("content_hash").to_pylist(), strict=True)
    digests = [xxhash.xxh3_128_digest(f"{id}\0{content}".encode()) for id, content in pairs]
    return pa.array(digests, pa.binary(16))


def _check(folder: Path, file: SavedFile) -> None:
    """Raise IndexRefusedError unless a file is as it was written."""
    path = folder / file.name
    if path.stat().st_size != file.size:
        raise IndexRefusedError(
            f"{file.name} has {path.stat().st_size:,} bytes, not {file.size:,}: it was cut or changed"
        )
    if file_sha256(path) != file.sha256:
        raise IndexRefusedError(f"{file.name} was damaged or changed: its SHA-256 is another one")


def _named(folder: Path) -> set[str]:
    """Return the names of the files that the manifest names."""
    try:
        return {str(file["name"]) for file in read_json(folder / MANIFEST)["files"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def _clean(folder: Path, before: set[str], now: set[str]) -> None:
    """Delete the files of the generation before, and those that a killed process left an hour ago.

    A younger file may be one that another process is about to name in a manifest.
    """
    for path in folder.iterdir():
        with suppress(OSError):
            replaced = path.name in before or path.stat().st_mtime < time.time() - ABANDONED
            if replaced and path.name not in now:
                path.unlink()
