"""`import_vectors`: vectors that were made elsewhere become a feature store."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.checksums import row_checksums
from embedpipe._utils.config import usable_cores
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.embedding.importing.options import ImportOptions
from embedpipe.embedding.plan import source_values
from embedpipe.embedding.summary import value_remarks
from embedpipe.embedding.writing.messages import Embedded
from embedpipe.embedding.writing.rows import RowAssembler
from embedpipe.errors import EmbedpipeError
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.vectors.vector_rows import list_vectors
from embedpipe.sources.vectors.vector_source import Block, VectorSource, open_vectors
from embedpipe.store import FeatureStore
from embedpipe.store.adopting import NewFile, adopt, write_new_files
from embedpipe.store.data_files import check_new_store
from embedpipe.store.delta_log import Change
from embedpipe.store.editing.labelling import Outcome
from embedpipe.store.id_index import IdIndex
from embedpipe.store.layers.projections import project

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ImportVectorsParameters

#: Threads that write files. Each holds a block, its rows in the order of ids, and the bytes of the file.
MOST_THREADS = 4


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
    with show.step("checking the vectors", source.count, "rows") as advance:
        for _, block in source.blocks():
            advance(len(block))
    spec = BackboneSpec.of_vectors(chosen.name, source.dim, chosen.modality)
    if FeatureStore.exists(to) and (stored := FeatureStore(to).spec).captured == spec:
        spec = stored  # with its reduced layers
    store = FeatureStore.create(to, spec, compress=chosen.compress)
    summary = ImportSummary(source.count, source.dim, notes=list(rows.notes), store=store.path)
    if source.dtype != "float32":
        summary.notes.insert(0, f"{source.dtype} values are stored as float32")
    with show.step("importing", source.count, "rows") as advance:
        importer = _Importer(store, source, rows.table, chosen.labels_from_source)
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


class _Written(NamedTuple):
    """Files with the new rows of a block that no version names yet, and its rows with ids that the store has."""

    files: Sequence[NewFile]
    known: pa.Table | None


class _Importer:
    """Writes the blocks of a source. Each block with new ids only becomes data files, without a look at stored rows."""

    def __init__(self, store: FeatureStore, source: VectorSource, listed: pa.Table, from_source: bool) -> None:
        self.outcome = Outcome()
        self._store, self._source, self._from_source = store, source, from_source
        self._rows = RowAssembler(source_values(listed, store), store.spec.title, store, excerpts=False)
        self._ids = listed.column("id").combine_chunks()
        self._known = np.zeros(source.count, bool)
        index = IdIndex(listed.column("id"))
        for file in store.refresh().table.files:
            found = index.find(store.table.file_ids(file))
            self._known[found[found >= 0]] = True
        self._trusted = {file.path for file in store.table.files}
        self._note = {
            "embedpipe.run": json.dumps(
                {
                    "embedpipe": __version__,
                    "python": platform.python_version(),
                    "source": source.name,
                    "vectors": source.dtype,
                }
            )
        }

    def changes(self) -> Iterator[Change]:
        """Write block after block, and yield what was done.

        Files are written in threads, some blocks ahead. This thread commits, in the order of the blocks.
        """
        ahead: deque[Future[_Written]] = deque()
        threads = min(usable_cores(), MOST_THREADS)
        with ThreadPoolExecutor(threads) as pool:
            try:
                for start, block in self._source.blocks():
                    ahead.append(pool.submit(self._write, start, block))
                    if len(ahead) > threads:
                        yield from self._commit(ahead[0].result())
                        ahead.popleft()
                while ahead:
                    yield from self._commit(ahead[0].result())
                    ahead.popleft()
            except BaseException:
                self._abandon(ahead)
                raise

    def _write(self, start: int, block: Block) -> _Written:
        """Write the new rows of a block into files, and return these, and the rows that the store knows."""
        # In the order of files, as sorting an array takes less time than sorting a table of lists.
        order = np.asarray(pc.sort_indices(self._ids.slice(start, len(block)))).astype(np.int64)
        known = self._known[start + order]
        new, old = order[~known], order[known]
        return _Written(
            write_new_files(self._embedded(start + new, _take(block, new)), self._store.table) if len(new) else [],
            self._embedded(start + old, _take(block, old)) if len(old) else None,
        )

    def _commit(self, written: _Written) -> Iterator[Change]:
        if written.files:
            yield self._add(written.files)
        if written.known is not None:
            yield self._update(written.known)

    def _abandon(self, ahead: Sequence[Future[_Written]]) -> None:
        """Delete the files of blocks that no version names. Where the store cannot be reached, `vacuum` does later."""
        written = [future.result() for future in ahead if not future.cancel() and future.exception() is None]
        with contextlib.suppress(EmbedpipeError, OSError):
            live = {file.path for file in self._store.refresh().table.files}
            for path in [file.action.path for block in written for file in block.files]:
                if path not in live:
                    self._store.table.delete_file(path)

    def _embedded(self, rows: npt.NDArray[np.int64], vectors: Block) -> pa.Table:
        column = self._store.spec.layers[0].column
        nothing: list[str | None] = [None] * len(rows)
        message = Embedded(rows.tolist(), row_checksums(vectors), {column: vectors}, [{}] * len(rows), nothing, nothing)
        return project(self._rows.embedded([message]), self._store.spec)

    def _add(self, files: Sequence[NewFile]) -> Change:
        table = self._store.table
        left = adopt(table, files, self._trusted, self._note)
        change = Change(sum(len(file.ids) for file in files) - sum(len(file.ids) for file in left))
        for file in left:  # another writer has added one of these ids
            other = self._update(table.read_file(file.entry, file.schema.names))
            table.delete_file(file.action.path)
            added, replaced = change.added + other.added, change.replaced + other.replaced
            change = Change(added, replaced, change.unchanged + other.unchanged)
        return change

    def _update(self, rows: pa.Table) -> Change:
        outcome = Outcome()

        def make_rows() -> pa.Table:  # anew if another writer, such as `label`, commits first
            nonlocal outcome
            outcome = Outcome()
            return self._rows.keep(rows, rows.column("id"), self._store.table, outcome, self._from_source)

        change = self._store.write(make_rows, self._note)
        self.outcome.add(outcome)
        return change


def _take(block: Block, rows: npt.NDArray[np.int64]) -> Block:
    """Return rows of a block, without a copy if they are all of them in order."""
    return block if np.array_equal(rows, np.arange(len(block))) else block[rows]
