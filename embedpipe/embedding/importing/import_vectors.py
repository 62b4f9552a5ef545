"""`import_vectors`: vectors that were made elsewhere become a feature store."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.embedding.importing.importer import Importer, KnownRows
from embedpipe.embedding.importing.options import ImportOptions
from embedpipe.embedding.summary import value_remarks
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.vectors.vector_rows import list_vectors
from embedpipe.sources.vectors.vector_source import open_vectors
from embedpipe.store import FeatureStore
from embedpipe.store.data_files import check_new_store

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ImportVectorsParameters


@dataclass
class ImportSummary:
    """What an import did: ``rows == added + updated + unchanged``.

    Attributes
    ----------
    rows, dim : int
        Number of vectors, and of values of each.
    added, updated, unchanged : int
        Rows with new ids, with known ids and another vector or another value, and as they were stored.
    notes : list of str
        What was converted, left out or kept.
    store : str
    version : int
        The version of the store.
    seconds : float
    """

    rows: int
    dim: int
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    notes: list[str] = field(default_factory=list)
    store: str = ""
    version: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists."""
        return asdict(self)


@takes_options(ImportOptions)
@outages_raised()
def import_vectors(
    vectors: Any,
    to: str | Path,
    *,
    ids: Any = None,
    labels: Any = None,
    progress: bool | None = None,
    **options: Unpack[ImportVectorsParameters],
) -> FeatureStore:
    """Import vectors that were made elsewhere, such as by an API, into a feature store.

    `fit`, `evaluate`, `search`, `map` and `export_table` work on the store as on any other. As no network is known,
    queries and what a head predicts are vectors too. All vectors and ids are checked before anything is written. A row
    with a known id replaces the stored one; what is unchanged stays. What an interrupted import has written is kept.

    Parameters
    ----------
    vectors : array (n, dim), table, str or path-like
        A NumPy array; a pandas or polars frame or pyarrow table; or a ``.npy``, ``.parquet``, ``.csv`` or ``.tsv``
        file. They are stored as float32.
    to : str or path-like
        Folder or URL of the store, created if it does not exist.
    ids, labels : str, path-like or sequence, optional
        A column of the table; a file with a row for each vector in their order (a table, ``.npy``, or ``.txt`` with
        a line each); or a value for each vector. Default: the columns ``id`` and ``label`` of the table. Of a table
        of ids, and of a table of vectors, the other columns are stored too.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    FeatureStore
        The store, with an `ImportSummary` in ``summary``.

    Raises
    ------
    DuplicateIdError
        An id occurs twice.
    SourceError
        A vector, an id or a label is missing or wrong; the message names the row.
    SpecMismatchError
        The store has vectors of another length, name or backbone.

    See Also
    --------
    embed : Embed photos or texts into a store.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> vectors = np.random.default_rng(0).normal(size=(3, 8))
    >>> store = embedpipe.import_vectors(vectors, tempfile.mkdtemp(), ids=["a", "b", "c"], name="my/model")
    >>> store
    FeatureStore(..., rows=3, backbone='vectors/my/model', version=1)
    >>> store.summary.notes
    ['float64 values are stored as float32']
    """
    start = time.perf_counter()
    (chosen,) = build_options((ImportOptions,), options)
    show = Progress(progress)
    if not FeatureStore.exists(to):
        check_new_store(to)
    verbatim = ids if isinstance(ids, str) else None
    source = open_vectors(vectors, chosen.vector, verbatim)
    rows = list_vectors(source, ids, labels, chosen.split)
    known = KnownRows(FeatureStore(to).table if FeatureStore.exists(to) else None, rows.table.column("id"))
    with show.step("checking the vectors", source.count, "rows") as advance:
        for start_row, block in source.blocks():
            known.add_checksums(start_row, block)
            advance(len(block))
    spec = BackboneSpec.of_vectors(chosen.name, source.dim, chosen.modality)
    if FeatureStore.exists(to) and (stored := FeatureStore(to).spec).captured == spec:
        spec = stored  # with its reduced layers
    store = FeatureStore.create(to, spec, compress=chosen.compress)
    summary = ImportSummary(source.count, source.dim, notes=list(rows.notes), store=store.path)
    if source.dtype != "float32":
        summary.notes.insert(0, f"{source.dtype} values are stored as float32")
    with show.step("importing", source.count, "rows") as advance:
        importer = Importer(store, source, rows.table, known, chosen.labels_from_source)
        for change in importer.changes():
            summary.added += change.added
            summary.updated += change.replaced
            summary.unchanged += change.unchanged
            advance(change.added + change.replaced + change.unchanged)
    summary.notes += value_remarks(importer.outcome, 0, chosen.labels_from_source)
    summary.version = store.refresh().version
    summary.seconds = time.perf_counter() - start
    show.event("summary", **summary.to_dict())
    if show.cell:
        show.say_all(summary.notes)
    store.summary = summary
    return store
