"""Writing the rows of imported vectors: new ones block by block, known ones in the order of the store's files."""

from __future__ import annotations

import contextlib
import json
import platform
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.checksums import row_checksums
from embedpipe._utils.config import usable_cores
from embedpipe._utils.machine.memory import memory_left
from embedpipe._utils.version import __version__
from embedpipe.embedding.plan import source_values
from embedpipe.embedding.writing.messages import Embedded
from embedpipe.embedding.writing.rows import RowAssembler
from embedpipe.errors import EmbedpipeError
from embedpipe.sources.reading import take_near
from embedpipe.sources.vectors.vector_source import Block, VectorSource
from embedpipe.store import FeatureStore
from embedpipe.store.adopting import NewFile, adopt, write_new_files
from embedpipe.store.data_files import DataFile
from embedpipe.store.delta_log import Change
from embedpipe.store.editing.labelling import Outcome
from embedpipe.store.id_index import IdIndex
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.layers.projections import project
from embedpipe.store.schema import VECTOR, conform, differing_rows

#: Threads that write or compare files, one more than cores, as some wait for the disk. Each holds a block in the order
#: of ids, and a part of the file.
MOST_THREADS = 4
#: Blocks whose files are added in one commit, which takes as long as writing a tenth of a block.
BLOCKS_PER_COMMIT = 8
#: Bytes of changed vectors that are collected in one pass over the source, if memory has five times that left.
CHANGED_BYTES = 2 << 30

RowNumbers = npt.NDArray[np.int64]
_Job = TypeVar("_Job")
_Done = TypeVar("_Done")


class KnownRows:
    """Which rows of a source a table has, file by file, and the checksums of their vectors.

    Parameters
    ----------
    table : KeyedTable, optional
        None if there is no store yet.
    ids : pyarrow.ChunkedArray of str
        The ids of the source, in the order of its rows.

    Attributes
    ----------
    mask : bool array
        The rows whose ids the table has.
    files : list of (DataFile, int64 array)
        The files of the table that hold known rows, and for each row of the file that of the source, -1 for none.
    """

    def __init__(self, table: KeyedTable | None, ids: pa.ChunkedArray) -> None:
        self.mask = np.zeros(len(ids), bool)
        self.files: list[tuple[DataFile, RowNumbers]] = []
        self.all_files = table.files if table else ()
        self._checksums: list[pa.Array] = []
        if table is None or not table.files:
            return
        index = IdIndex(ids)
        for file in table.files:
            rows = index.find(table.file_ids(file))
            if (rows >= 0).any():
                self.files.append((file, rows))
                self.mask[rows[rows >= 0]] = True

    def add_checksums(self, start: int, block: Block) -> None:
        """Take the next block of the source, which begins with row ``start``."""
        mask = self.mask[start : start + len(block)]
        if self.files:
            known = block if mask.all() else block[mask]
            texts: list[str | None] = [None] * len(block)
            for row, text in zip(np.flatnonzero(mask).tolist(), row_checksums(known), strict=True):
                texts[row] = text
            self._checksums.append(pa.array(texts, pa.string()))

    def checksums(self, rows: RowNumbers) -> list[str]:
        """Return the checksums of known rows of the source."""
        texts: list[str] = take_near(pa.chunked_array(self._checksums), rows).to_pylist()
        return texts


class Importer:
    """Writes the rows of a source into a store.

    Parameters
    ----------
    store : FeatureStore
    source : VectorSource
    listed : pyarrow.Table
        The table of a listing with a row for each vector.
    known : KnownRows
        With the checksums of all blocks.
    from_source : bool
        Whether the source decides values that were set by hand.

    Attributes
    ----------
    outcome : Outcome
        What was done with values of known rows.
    """

    def __init__(
        self, store: FeatureStore, source: VectorSource, listed: pa.Table, known: KnownRows, from_source: bool
    ) -> None:
        self.outcome = Outcome()
        self._store, self._source, self._known, self._from_source = store, source, known, from_source
        values = source_values(listed, store)
        self._new_columns = values.schema
        self._rows = RowAssembler(values, store.spec.title, store, excerpts=False)
        self._ids = listed.column("id").combine_chunks()
        self._trusted = {file.path for file in known.all_files}
        self._threads = min(usable_cores() + 1, MOST_THREADS)
        self._of_thread = threading.local()
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
        """Write the new rows, then the known rows that differ, and yield what was done."""
        if not self._known.mask.all():
            yield from self._add_new()
        if self._known.files:
            yield from self._update_known()

    def _add_new(self) -> Iterator[Change]:
        """Write blocks in threads, some ahead. This thread commits several at once, without a look at stored rows."""
        ahead: deque[Future[list[NewFile]]] = deque()
        written: list[NewFile] = []
        blocks = 0
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for start, block in self._source.blocks():
                    if self._known.mask[start : start + len(block)].all():
                        continue
                    ahead.append(pool.submit(self._write, start, block))
                    if len(ahead) > self._threads:
                        written += ahead[0].result()
                        ahead.popleft()
                        blocks += 1
                    if blocks == BLOCKS_PER_COMMIT:
                        yield self._add(written)
                        written, blocks = [], 0
                while ahead:
                    written += ahead[0].result()
                    ahead.popleft()
                if written:
                    yield self._add(written)
            except BaseException:
                self._abandon(written, ahead)
                raise

    def _write(self, start: int, block: Block) -> list[NewFile]:
        """Write the new rows of a block into files, in the order of their ids."""
        # In that order now, as sorting an array takes less time than sorting a table of lists.
        order = np.asarray(pc.sort_indices(self._ids.slice(start, len(block)))).astype(np.int64)
        new = order[~self._known.mask[start + order]]
        return write_new_files(self._embedded(start + new, self._take(block, new)), self._store.table)

    def _take(self, block: Block, rows: RowNumbers) -> Block:
        """Return rows of a block in memory that the next call of this thread uses again."""
        if np.array_equal(rows, np.arange(len(block))):
            return block
        kept: Block | None = getattr(self._of_thread, "kept", None)
        if kept is None or len(kept) < len(rows):
            kept = self._of_thread.kept = np.empty((len(rows), self._source.dim), np.float32)
        return np.take(block, rows, axis=0, out=kept[: len(rows)], mode="clip")  # others fill a buffer before

    def _add(self, files: Sequence[NewFile]) -> Change:
        table = self._store.table
        left = adopt(table, files, self._trusted, self._note)
        change = Change(sum(len(file.ids) for file in files) - sum(len(file.ids) for file in left))
        for file in left:  # another writer has added one of these ids
            other = self._upsert(table.read_file(file.entry, file.schema.names), self.outcome)
            table.delete_file(file.action.path)
            added, replaced = change.added + other.added, change.replaced + other.replaced
            change = Change(added, replaced, change.unchanged + other.unchanged)
        return change

    def _abandon(self, written: Sequence[NewFile], ahead: Sequence[Future[list[NewFile]]]) -> None:
        """Delete the files of blocks that no version names. Where the store cannot be reached, `vacuum` does later."""
        others = [future.result() for future in ahead if not future.cancel() and future.exception() is None]
        with contextlib.suppress(EmbedpipeError, OSError):
            live = {file.path for file in self._store.refresh().table.files}
            for path in [file.action.path for files in (written, *others) for file in files]:
                if path not in live:
                    self._store.table.delete_file(path)

    def _update_known(self) -> Iterator[Change]:
        """Compare the known rows file by file. Those that differ replace the stored ones, many at once."""
        self._store.table.add_columns(self._new_columns)
        most = max(1, min(CHANGED_BYTES, memory_left(None) // 5) // (4 * self._source.dim))
        waiting: list[RowNumbers] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for same, changed, outcome in _in_turn(pool, self._compare, self._known.files, self._threads):
                self.outcome.add(outcome)
                waiting += [changed] if len(changed) else []
                yield Change(unchanged=same)
                if sum(map(len, waiting)) >= most:
                    yield self._replace(np.concatenate(waiting))
                    waiting = []
        if waiting:
            yield self._replace(np.concatenate(waiting))

    def _compare(self, known: tuple[DataFile, RowNumbers]) -> tuple[int, RowNumbers, Outcome]:
        """Return how many rows of a file are as in the source, which rows of the source differ, and their values."""
        file, places = known
        table = self._store.table
        stored = table.read_file(file, [field.name for field in table.schema if field.type != VECTOR])
        stored, rows = stored.filter(pa.array(places >= 0)), places[places >= 0]
        outcome = Outcome()
        made = self._rows.of_source(rows.tolist(), self._known.checksums(rows))
        made = self._rows.keep_own(made, stored, outcome, self._from_source)
        differs = np.asarray(differing_rows(conform(made, stored.schema), stored))
        return int((~differs).sum()), rows[differs], outcome

    def _replace(self, rows: RowNumbers) -> Change:
        """Read the vectors of rows of the source, and write them in place of the stored ones."""
        rows = np.sort(rows)
        order = np.asarray(pc.sort_indices(take_near(pa.chunked_array([self._ids]), rows)))
        places = np.empty(len(rows), np.int64)
        places[order] = np.arange(len(rows))
        vectors = np.empty((len(rows), self._source.dim), np.float32)
        for start, block in self._source.blocks():
            first, last = np.searchsorted(rows, (start, start + len(block)))
            vectors[places[first:last]] = block[rows[first:last] - start]
        return self._upsert(self._embedded(rows[order], vectors), Outcome())  # they were compared before

    def _upsert(self, rows: pa.Table, outcome: Outcome) -> Change:
        last = Outcome()

        def make_rows() -> pa.Table:  # anew if another writer, such as `label`, commits first
            nonlocal last
            last = Outcome()
            return self._rows.keep(rows, rows.column("id"), self._store.table, last, self._from_source)

        change = self._store.write(make_rows, self._note)
        outcome.add(last)
        return change

    def _embedded(self, rows: RowNumbers, vectors: Block) -> pa.Table:
        column = self._store.spec.layers[0].column
        nothing: list[str | None] = [None] * len(rows)
        message = Embedded(rows.tolist(), row_checksums(vectors), {column: vectors}, [{}] * len(rows), nothing, nothing)
        return project(self._rows.embedded([message]), self._store.spec)


def _in_turn(
    pool: ThreadPoolExecutor, call: Callable[[_Job], _Done], jobs: Iterable[_Job], most: int
) -> Iterator[_Done]:
    """Yield the results of jobs in their order, at most so many ahead."""
    ahead: deque[Future[_Done]] = deque()
    for job in jobs:
        ahead.append(pool.submit(call, job))
        if len(ahead) > most:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()
