"""`FeatureStore`: what people and heads read, and the few ways in which it changes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.backbones.spec import BackboneSpec, LayerSpec
from embedpipe.errors import MissingExtraError, StoreError, UsageError, nearest
from embedpipe.store.data_files import DATA_FILE
from embedpipe.store.failures import FailuresTable
from embedpipe.store.keyed_table import Change, KeyedTable
from embedpipe.store.scan import label_array, read_layers
from embedpipe.store.schema import KEY_FIELDS, VECTOR, is_compressed, select_layers, spec_of, store_schema
from embedpipe.store.vector_map import build_map, find_map

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds


class FeatureStore:
    """A dataset's features: a Delta Lake table with one row an item.

    Columns: ``id`` (unique), ``uri``, ``content_hash`` (SHA-256 of the payload), ``source_root``,
    ``source_size`` (bytes), ``source_modified`` (ns), then ``label``, ``split`` and metadata where the
    source gave any, and one column of float32 lists per captured layer (``embedding``,
    ``embedding_<layer>``). Reads come in id order, whatever the order of writing.

    Parameters
    ----------
    path : str or path-like
        Folder or URL of the table.
    version : int, optional
        Read the store as it was at this table version.

    Raises
    ------
    StoreNotFoundError
        If there is no store at ``path``, or no such version.
    StoreError
        If the table there is not a feature store.

    Attributes
    ----------
    summary : embedpipe.embedding.EmbedSummary or None
        What the `embedpipe.embed` call that returned this store did.
    """

    def __init__(self, path: str | Path, version: int | None = None) -> None:
        self.path = _location(path)
        self._table = KeyedTable(self.path, version)
        self.spec: BackboneSpec = spec_of(self._table.schema)
        if missing := [layer.column for layer in self.spec.layers if layer.column not in self._table.schema.names]:
            raise StoreError(f"{self.path!r} lacks the columns {missing} that its spec names")
        self.failures_table = FailuresTable(self.path)
        self.summary: Any = None

    @classmethod
    def create(cls, path: str | Path, spec: BackboneSpec, *, compress: bool = False) -> FeatureStore:
        """Open the store at ``path``, making an empty one if there is none.

        Parameters
        ----------
        path : str or path-like
            Folder or URL.
        spec : BackboneSpec
            What makes the vectors.
        compress : bool
            Round vectors to 16-bit precision (each value by 2^-11 of itself at most) and compress them, in this
            store for good. One that is compressed stays so without asking.

        Raises
        ------
        SpecMismatchError
            If the store there was made by another spec; the message shows the differing fields.
        UsageError
            If the path is taken by something else, or the store there is not compressed and should be.
        """
        path = _location(path)
        if "://" not in path and Path(path).is_file():
            raise UsageError(f"{path!r} is a file: give a new or empty folder for the feature store")
        if not KeyedTable.exists(path):
            if "://" not in path and Path(path).is_dir() and any(Path(path).iterdir()):
                raise UsageError(f"{path!r} exists and is not a feature store: give a new or empty folder")
            KeyedTable.create(path, store_schema(spec, compress))
        store = cls(path)
        store.require(spec)
        if compress and not store.compressed:
            raise UsageError(
                f"{path!r} is not compressed, which is decided when a store is made: "
                "leave --compress out, or embed into a new store"
            )
        return store

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Say whether there is a Delta table at ``path``."""
        path = _location(path)
        return not Path(path).is_file() and KeyedTable.exists(path)

    def require(self, spec: BackboneSpec) -> None:
        """Raise SpecMismatchError unless the store holds vectors of ``spec``."""
        advice = "Use the store's own backbone and options, or embed into a new store."
        self.spec.require(
            spec, f"{self.path!r} holds vectors of another backbone spec", "in the store", "given", advice
        )

    # ---------------------------------------------------------------- reading

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        backbone = f"{self.spec.provider}/{self.spec.name}"
        return f"FeatureStore({self.path!r}, rows={len(self)}, backbone={backbone!r}, version={self.version})"

    @property
    def version(self) -> int:
        """The table version that is being read; every commit makes the next one."""
        return self._table.version

    @property
    def table_id(self) -> str:
        """The table's own id: a store that is deleted and made again at the same place has another."""
        return str(self._table.delta.metadata().id)

    @property
    def table(self) -> KeyedTable:
        """The keyed Delta table underneath."""
        return self._table

    @property
    def schema(self) -> pa.Schema:
        """The table's Arrow schema; the spec's JSON is in the embedding columns' field metadata."""
        return self._table.schema

    @property
    def compressed(self) -> bool:
        """Whether vectors are rounded to 16-bit precision, and compressed."""
        return any(is_compressed(field) for field in self.schema)

    @property
    def data_columns(self) -> list[str]:
        """Names of all columns but the embeddings."""
        return [field.name for field in self.schema if field.type != VECTOR]

    @property
    def layers(self) -> dict[str, int]:
        """Name of each layer, as ``embedpipe embed --layer`` takes it, and the length of its vectors."""
        return {layer.name: layer.dim for layer in self.spec.layers}

    @cached_property
    def dims(self) -> dict[str, int]:
        """Name of each layer's column in the table, and the length of its vectors."""
        return {layer.column: layer.dim for layer in self.spec.layers}

    def refresh(self) -> FeatureStore:
        """Move on to the newest version, and return self."""
        self._table.refresh()
        return self

    def to_numpy(
        self, label: str | None = None, *, layer: str | None = None, split: str | None = None
    ) -> npt.NDArray[np.float32] | tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        """Read vectors, and labels if asked, in id order.

        Parameters
        ----------
        label : str, optional
            A column to return as ``y``. Rows without a value there are left out, and a warning says how many.
        layer : str, optional
            The layer to read, or several joined end to end (``"layer3+features"``); needed only where there are
            several.
        split : str, optional
            Only the rows of this split.

        Returns
        -------
        X : float32 array (n_samples, dim)
        y : array (n_samples,), only with ``label``

        Raises
        ------
        UsageError
            If there is no such layer, column or split.
        """
        layers = self.select_layers(layer)
        wanted = [self._data_column(name) for name in (label, "split" if split is not None else None) if name]
        if not wanted:
            return read_layers(self._table, layers)[1]
        rows = self._table.read(["id", *dict.fromkeys(wanted)])
        if split is not None:
            splits = pc.unique(rows.column("split")).to_pylist()
            if split not in splits:
                raise UsageError(f"{self.path!r} has no split {split!r}: it has {splits}")
            rows = rows.filter(pc.equal(rows.column("split"), split))
        if label and (missing := rows.column(label).null_count):
            warnings.warn(f"{missing} of {rows.num_rows} rows have no {label!r} and are left out", stacklevel=2)
            rows = rows.filter(pc.is_valid(rows.column(label)))
        _, X = read_layers(self._table, layers, rows.column("id").combine_chunks())
        return (X, label_array(rows.column(label))) if label else X

    def mapped(self, layer: str | None = None) -> npt.NDArray[np.float32]:
        """Return all vectors in id order as a read-only memory map, which takes no memory of its own.

        The map is made on first use, in the cache folder (``EMBEDPIPE_CACHE``; the user's by default), and takes
        4 bytes a value there. From then on everything that reads this version's vectors uses it, in any process, and
        `take` finds single rows in milliseconds. A new version of the store has a new map, in the old one's place.

        Parameters
        ----------
        layer : str, optional
            The layer to map; needed only where there are several.

        Returns
        -------
        X : float32 array (n_samples, dim)

        Raises
        ------
        UsageError
            If there is no such layer, or several are named.
        StoreError
            If the store is damaged, or the cache folder has too little room.
        """
        chosen, *others = self.select_layers(layer)
        if others:
            raise UsageError(f"a memory map holds one layer, got layer={layer!r}: map each layer by itself")
        found = find_map(self._table, chosen.column, chosen.dim)
        return (found or build_map(self._table, chosen.column, chosen.dim)).vectors

    def take(self, ids: Sequence[str], *, layer: str | None = None) -> npt.NDArray[np.float32]:
        """Read the vectors of single rows: at once from the map, where `mapped` has made one, else from the files.

        Parameters
        ----------
        ids : sequence of str
            In any order, and as often as liked.
        layer : str, optional
            The layer to read, or several joined end to end; needed only where there are several.

        Returns
        -------
        X : float32 array (len(ids), dim)
            In the order of ``ids``.

        Raises
        ------
        UsageError
            If an id is not there.
        """
        layers = self.select_layers(layer)
        if isinstance(ids, str) or not all(isinstance(id, str) for id in ids):
            raise UsageError(f"ids={ids!r:.100} is no sequence of strings: give store.take(['a.jpg', 'b.jpg'])")
        wanted = pa.array(ids, pa.string())
        each = wanted.unique()
        X = read_layers(self._table, layers, each)[1]
        return X if len(each) == len(wanted) else X[np.asarray(pc.index_in(wanted, value_set=each))]

    def ids(self) -> list[str]:
        """Return all ids in order: row i of ``to_numpy()`` belongs to ``ids()[i]``."""
        return list(self._table.read(["id"]).column("id").to_pylist())

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns (all of them by default) in id order, as an Arrow table."""
        for name in columns or ():
            if name not in self.schema.names:
                raise UsageError(f"{self.path!r} has no column {name!r}{nearest(name, self.schema.names)}")
        return self._table.read(columns)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read columns in id order, as a pandas DataFrame (pandas must be installed)."""
        table = self.to_arrow(columns)
        try:
            frame: pd.DataFrame = table.to_pandas()
        except ImportError as error:
            raise MissingExtraError("to_pandas needs pandas: pip install pandas") from error
        return frame

    def to_dataset(self) -> ds.Dataset:
        """Return the table's files as a `pyarrow.dataset.Dataset`, which DuckDB queries as it stands."""
        return self._table.delta.to_pyarrow_dataset()

    def failures(self) -> pa.Table:
        """Return the items that have no vector: id, uri, source_root, stage, exception, message, when."""
        return self.failures_table.read()

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the table's commits, newest first, with what each run recorded of itself."""
        return list(self._table.delta.history(limit))

    def select_layers(self, layer: str | None = None) -> tuple[LayerSpec, ...]:
        """Return the layers that a name stands for, in order: ``"layer3"``, or ``"layer3+features"`` for both joined.

        None stands for the only layer. Raises UsageError if a layer is unknown or named twice, or if none is named
        and there are several.
        """
        return select_layers(self.spec.layers, layer, self.path)

    def _data_column(self, name: str) -> str:
        if name not in self.data_columns:
            hint = nearest(name, self.data_columns)
            raise UsageError(f"{self.path!r} has no column {name!r}{hint}: it has {self.data_columns}")
        return name

    # ---------------------------------------------------------------- changing

    def write(self, rows: pa.Table, note: Mapping[str, Any] | None = None) -> Change:
        """Commit rows atomically; rows of ids that are there take the old ones' place."""
        return self._table.upsert(rows, note)

    def remove(self, ids: Iterable[str]) -> Change:
        """Drop rows by id in one atomic commit; unknown ids are left out of the count."""
        return self._table.delete(pa.array(list(ids), pa.string()))

    def label(self, labels: pa.Table, *, id: str = "id", label: str = "label", into: str = "label") -> Change:
        """Set labels without embedding again.

        Parameters
        ----------
        labels : pyarrow.Table
            One row an item; rows with unknown ids are counted and left out.
        id, label : str
            Its columns with the ids and the labels.
        into : str
            The store's column to write: ``label``, ``split`` or any metadata column, made if new.

        Returns
        -------
        Change
            ``replaced`` rows got a new value, ``unchanged`` had it already.

        Raises
        ------
        UsageError
            If no id is known, a column is missing, an id comes twice, or ``into`` is one of the store's own columns.
        """
        for name in (id, label):
            if name not in labels.column_names:
                raise UsageError(f"no column {name!r}{nearest(name, labels.column_names)}: {labels.column_names}")
        _check_column(into, self.schema)
        keys = labels.column(id).cast(pa.string()).combine_chunks()
        if len(pc.unique(keys)) != len(keys):
            raise UsageError(f"column {id!r} holds an id twice: give each item one row")
        if len(keys) and not self._table.rows(keys, ["id"]).num_rows:
            ours = f"whose ids are like {self.ids()[0]!r}" if len(self) else "which is empty"
            raise UsageError(f"none of the {len(keys)} ids, such as {keys[0].as_py()!r}, is in {self.path!r}, {ours}")
        return self._table.set_values(keys, into, labels.column(label).combine_chunks())

    def compact(self) -> int:
        """Merge small files into bigger ones; return how many were merged. Vectors and ids stay."""
        return self._table.compact()

    def vacuum(self, *, older_than_hours: int = 168, keep_versions: Sequence[int] = ()) -> list[str]:
        """Delete files that no version younger than ``older_than_hours`` refers to; return their paths.

        Files that one of ``keep_versions`` refers to stay, whatever their age.
        """
        if older_than_hours < 0:
            raise UsageError(f"older_than_hours={older_than_hours} is negative")
        old = self._table.delta.vacuum(
            older_than_hours,
            dry_run=True,
            enforce_retention_duration=False,
            full=True,
            keep_versions=list(keep_versions) or None,
        )
        # Only files that a store writes: a folder may hold others, and the log names some that are gone already.
        return [path for path in old if DATA_FILE.fullmatch(path) and self._table.delete_file(path)]


def _location(path: str | Path) -> str:
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str) or not text.rstrip("/"):
        raise UsageError(f"{path!r:.100} is no place for a feature store: give a folder or URL")
    return text.rstrip("/")


def _check_column(name: str, schema: pa.Schema) -> None:
    """Refuse to write a column that the store keeps for itself, or that Delta would confuse with another."""
    own = {field.name for field in KEY_FIELDS}
    if name.lower() in own or name.lower().startswith("embedding"):
        raise UsageError(f"{name!r} is a column that the store keeps for itself: choose another name")
    if not name or (name not in schema.names and name.lower() in map(str.lower, schema.names)):
        raise UsageError(f"{name!r} cannot name a column beside {schema.names}: choose another name")
