"""`FeatureStore`: a dataset's vectors, labels and metadata in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.importing import to_pandas
from embedpipe._utils.option_names import option
from embedpipe.backbones.spec import BackboneSpec, LayerSpec
from embedpipe.errors import StoreError, UsageError
from embedpipe.sources.columns.frames import arrow_table
from embedpipe.sources.columns.labels import with_clean_labels
from embedpipe.store.data_files import can_hold_store, check_new_store, table_path
from embedpipe.store.delta_log import Change
from embedpipe.store.editing.exclusion import choose_rows, set_excluded
from embedpipe.store.editing.labelling import set_column
from embedpipe.store.failures import FailuresTable
from embedpipe.store.id_index import id_array
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.layers.projections import stored_spec
from embedpipe.store.maintenance import compact, vacuum
from embedpipe.store.mapping.mapped_vectors import MappedVectors
from embedpipe.store.mapping.vector_map import build_map, find_map
from embedpipe.store.notebook_view import store_html
from embedpipe.store.scan import as_dataset, count_values, first_rows, label_array, read_layers
from embedpipe.store.schema import EXCLUDED, VECTOR, is_compressed, require_column, select_layers, store_schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds


class FeatureStore:
    """The vectors of a dataset, with labels and metadata: a Delta Lake table with one row per item, read in id order.

    The columns are ``id`` (unique), ``uri``, ``content_hash`` (SHA-256 of the payload), ``source_root``,
    ``source_size`` (bytes) and ``source_modified`` (ns). Then come ``label``, ``split`` and metadata if the source
    has them, and one column of float32 lists per captured layer (``embedding``, ``embedding_<layer>``).

    Parameters
    ----------
    path : str or path-like
        Folder or URL of the table.
    version : int, optional
        Open this version of the table, read-only. The newest by default.

    Raises
    ------
    StoreNotFoundError
        There is no store at ``path``, or it has no such version.
    StoreError
        The table at ``path`` is not a feature store.

    Attributes
    ----------
    spec : BackboneSpec
        The backbone, layers, preprocessing and precision that define the vectors.
    summary : embedpipe.embedding.EmbedSummary or None
        Counts and timings of the `embedpipe.embed` call that returned this store.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.zeros((2, 32, 32, 3), np.uint8)
    >>> store = embedpipe.embed(photos, tempfile.mkdtemp(), backbone="torchvision/resnet18", weights="none")
    >>> store.ids()
    ['00000000', '00000001']
    >>> store.to_numpy().shape
    (2, 512)
    """

    def __init__(self, path: str | Path, version: int | None = None) -> None:
        self.path = table_path(path)
        self._table = KeyedTable(self.path, version)
        self.spec: BackboneSpec = stored_spec(self.path, self._table.schema)
        if missing := [layer.column for layer in self.spec.layers if layer.column not in self._table.schema.names]:
            raise StoreError(f"{self.path!r} lacks the columns {missing} that its spec names")
        self.failures_table = FailuresTable(self.path)
        self.summary: Any = None

    @classmethod
    def create(cls, path: str | Path, spec: BackboneSpec, *, compress: bool = False) -> FeatureStore:
        """Open the store at ``path``, or create an empty one.

        Parameters
        ----------
        path : str or path-like
            Folder or URL.
        spec : BackboneSpec
            The spec of the vectors.
        compress : bool
            Round vectors to 16-bit precision (a relative error of at most 2^-11) and compress them. The choice holds
            for the life of the store; an existing compressed store stays compressed without this argument.

        Raises
        ------
        SpecMismatchError
            The existing store has another spec. The message lists the fields that differ.
        UsageError
            The path holds something else, or ``compress`` is true and the existing store is not compressed.
        WriteError
            Nothing can be written there.
        """
        path = table_path(path)
        if not cls.exists(path):
            check_new_store(path)
            KeyedTable.create(path, store_schema(spec, compress))
        store = cls(path)
        store.require(spec)
        if compress and not store.compressed:
            raise UsageError(
                f"{path!r} is not compressed, and a store cannot be compressed later: "
                f"leave {option('compress', True)} out, or embed into a new store"
            )
        return store

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether there is a Delta table at ``path``."""
        return can_hold_store(path) and KeyedTable.exists(table_path(path))

    def require(self, spec: BackboneSpec) -> None:
        """Raise SpecMismatchError unless the store holds vectors of ``spec``."""
        advice = "Use the backbone and options of the store, or embed into a new store."
        self.spec.require(
            spec, f"{self.path!r} holds vectors of another backbone spec", "in the store", "given", advice
        )

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        backbone = f"{self.spec.provider}/{self.spec.name}"
        return f"FeatureStore({self.path!r}, rows={len(self)}, backbone={backbone!r}, version={self.version})"

    def _repr_html_(self) -> str:
        return store_html(self._table, self.spec, self.failures().num_rows)

    @property
    def version(self) -> int:
        """Version of the table that is read. Each commit adds one."""
        return self._table.version

    @property
    def table_id(self) -> str:
        """Unique id of the table. A store that is deleted and created again has a new one."""
        return str(self._table.delta.metadata().id)

    @property
    def table(self) -> KeyedTable:
        """The Delta table with unique ids that holds the rows."""
        return self._table

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the table. The metadata of each vector column holds the spec as JSON."""
        return self._table.schema

    @property
    def compressed(self) -> bool:
        """Whether vectors are rounded to 16-bit precision and compressed."""
        return any(is_compressed(field) for field in self.schema)

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self.schema.names)

    @property
    def data_columns(self) -> list[str]:
        """Names of all columns except the vector columns."""
        return [field.name for field in self.schema if field.type != VECTOR]

    @property
    def layers(self) -> dict[str, int]:
        """Vector length by layer name, with the names that ``embedpipe embed --layer`` takes."""
        return {layer.name: layer.dim for layer in self.spec.layers}

    @property
    def dims(self) -> dict[str, int]:
        """Vector length by name of the vector column."""
        return {layer.column: layer.dim for layer in self.spec.layers}

    def refresh(self) -> FeatureStore:
        """Switch to the newest version and return self."""
        self._table.refresh()
        self.spec = stored_spec(self.path, self._table.schema)
        return self

    def to_numpy(
        self, label: str | None = None, *, layer: str | None = None, split: str | None = None
    ) -> npt.NDArray[np.float32] | tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        """Read vectors, and labels if ``label`` is given, in id order.

        Parameters
        ----------
        label : str, optional
            The column to return as ``y``. Rows without a value, and excluded ones, are left out, with a warning that
            counts them.
        layer : str, optional
            The layer to read, or several joined (``"layer3+features"``). Required if the network gave several.
        split : str, optional
            Read only the rows of this split.

        Returns
        -------
        X : float32 array (n_samples, dim)
        y : array (n_samples,), only with ``label``

        Raises
        ------
        UsageError
            The layer, column or split does not exist.
        """
        layers = self.select_layers(layer)
        wanted = [self._data_column(name) for name in (label, "split" if split is not None else None) if name]
        if not wanted:
            return read_layers(self._table, layers)[1]
        excluded = [EXCLUDED] if label and EXCLUDED in self.schema.names else []
        rows = choose_rows(self._table.read(["id", *dict.fromkeys([*wanted, *excluded])]), label, split, self.path)
        _, X = read_layers(self._table, layers, rows.column("id").combine_chunks())
        return (X, label_array(rows.column(label))) if label else X

    def mapped(self, layer: str | None = None) -> MappedVectors:
        """Return all vectors in id order as a read-only memory map, which needs no memory of the process.

        The first call writes the map to the cache folder (``EMBEDPIPE_CACHE``, else the user's cache folder), with
        4 bytes per value. Every later read of this version uses the map, in any process, and `take` finds single rows
        in milliseconds. The map of a new version replaces the old one.

        Parameters
        ----------
        layer : str, optional
            The layer to map. Required if the store has several.

        Returns
        -------
        X : MappedVectors (n_samples, dim)
            Can be used as a float32 array. Blocks of 1 MB are compared with their checksums when they are first read.

        Raises
        ------
        UsageError
            The layer does not exist, or several are named.
        StoreError
            The store is damaged, or the disk of the cache folder is full. If the map is found to be damaged when it is
            read, it is deleted.
        """
        chosen, *others = self.select_layers(layer, joined=False)
        if others:
            raise UsageError(f"a memory map holds one layer, got {option('layer', layer)}: map each layer by itself")
        vector_map = find_map(self._table, chosen.column, chosen.dim)
        return (vector_map or build_map(self._table, chosen.column, chosen.dim)).vectors

    def take(self, ids: Sequence[str], *, layer: str | None = None) -> npt.NDArray[np.float32]:
        """Read the vectors of single rows, from the map if `mapped` has written one, else from the files.

        Parameters
        ----------
        ids : sequence of str
            In any order; repeats are allowed.
        layer : str, optional
            The layer to read, or several joined end to end. Required if the store has several of the network.

        Returns
        -------
        X : float32 array (len(ids), dim)
            In the order of ``ids``.

        Raises
        ------
        UsageError
            An id is not in the store.
        """
        layers = self.select_layers(layer)
        wanted = id_array(ids)
        unique = wanted.unique()
        X = read_layers(self._table, layers, unique)[1]
        return X if len(unique) == len(wanted) else X[np.asarray(pc.index_in(wanted, value_set=unique))]

    def ids(self) -> list[str]:
        """Return all ids in order. Row i of ``to_numpy()`` belongs to ``ids()[i]``."""
        return list(self._table.read(["id"]).column("id").to_pylist())

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns, all by default, in id order as an Arrow table."""
        for name in columns or ():
            require_column(name, self.schema.names, self.path)
        return self._table.read(columns)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read columns in id order as a pandas DataFrame. Raises MissingExtraError without pandas."""
        return to_pandas(self.to_arrow(columns))

    def head(self, n: int = 5) -> pd.DataFrame:
        """Read the first ``n`` rows in id order as a pandas DataFrame; the store's own columns come last."""
        return to_pandas(first_rows(self._table, n))

    def to_dataset(self) -> ds.Dataset:
        """Return the files of the table as a `pyarrow.dataset.Dataset`, which DuckDB can query."""
        return as_dataset(self._table)

    def failures(self) -> pa.Table:
        """Return the items that failed: id, uri, source_root, stage, exception, message, when."""
        return self.failures_table.read()

    def counts(self, column: str) -> dict[str, int]:
        """Return the number of rows per value of a column, the most frequent first. Null counts as "(none)"."""
        return count_values(self._table, self._data_column(column))

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the commits of the table, newest first, with the provenance that each run recorded."""
        return self._table.history(limit)

    def select_layers(self, layer: str | None = None, *, joined: bool = True) -> tuple[LayerSpec, ...]:
        """Return the layers of a name in order: ``"layer3"``, or ``"layer3+features"`` for both joined.

        None selects the only layer of the network; those that `reduce` made of it are selected by name. Raises
        UsageError, which advises joined layers if ``joined``, if one is unknown, named twice or not chosen of several.
        """
        return select_layers(self.spec.layers, layer, self.path, joined=joined)

    def _data_column(self, name: str) -> str:
        require_column(name, self.data_columns, self.path)
        return name

    def write(self, rows: pa.Table | Callable[[], pa.Table], note: Mapping[str, Any] | None = None) -> Change:
        """Commit rows atomically, those of a function for the newest version. Known ids replace stored rows.

        Raises StoreError for an id twice, a missing value, vectors of another length or with NaN.
        """
        return self._table.upsert(rows, note, self.dims)

    def remove(self, ids: Iterable[str]) -> Change:
        """Drop rows by id in one atomic commit. Unknown ids are ignored. Raises UsageError for a single id as text."""
        return self._table.delete(id_array(ids))

    def label(self, labels: Any, *, id: str = "id", label: str = "label", into: str = "label") -> Change:
        """Set a column, by default the label, from a table without embedding again.

        Parameters
        ----------
        labels : pyarrow table, or pandas or polars frame
            One row per item. Rows with unknown ids are left out.
        id, label : str
            Columns of ``labels`` with the ids and the values, which are cleaned as `embed` does: no spaces around text.
        into : str
            Column of the store to write: ``label``, ``split`` or a metadata column, added if it is new.

        Returns
        -------
        Change
            ``replaced`` rows got a new value; ``unchanged`` rows had it already.

        Raises
        ------
        UsageError
            No id is known, a column is missing, an id occurs twice, or ``into`` is reserved.
        """
        return set_column(self._table, with_clean_labels(arrow_table(labels), label)[0], id, label, into)

    def exclude(self, reasons: Any, *, id: str = "id", reason: str = EXCLUDED) -> Change:
        """Exclude rows, which stay in the store and are left out of heads, evaluations and searches, or use them again.

        Parameters
        ----------
        reasons : pyarrow table, or pandas or polars frame
            One row per item. Rows with unknown ids are left out.
        id, reason : str
            Columns of ``reasons``: the ids, and why each row is excluded. True, 1 and ``yes`` give no reason. Null,
            false, 0, ``no`` and an empty text use the row again.

        Raises
        ------
        UsageError
            As `label`, or if a value is another number.
        """
        return set_excluded(self._table, arrow_table(reasons), id, reason)

    def compact(self) -> int:
        """Merge small files and return how many were merged. Ids and vectors do not change."""
        return compact(self._table)

    def vacuum(self, *, older_than_hours: int = 168, keep_versions: Sequence[int] = ()) -> list[str]:
        """Delete files that only versions older than ``older_than_hours`` use, and return their paths.

        Files of the versions in ``keep_versions`` are kept. So are files that no version uses if another process may
        be about to commit them: those younger than an hour, or than a run on a cluster that goes on.
        """
        return vacuum(self._table, older_than_hours, keep_versions)
