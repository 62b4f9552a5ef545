"""Which items moved: a moved item takes with it what was set by hand; a copy takes the vector only."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.embedding.hash_index import Contents, HashIndex
from embedpipe.embedding.writing.messages import Embedded, Message, Reused, Written
from embedpipe.sources.listing import ROOT, Listing
from embedpipe.store import FeatureStore
from embedpipe.store.id_index import IdIndex
from embedpipe.store.schema import BY_HAND


class Moves:
    """Decides for each row of a run whose hand-set values it takes: its own, those of the row it moved from, or none.

    A row moved where its content is that of a stored row of the same source whose item is gone, or has other content
    now. This is known at the end of the run, so rows that may have moved wait until then.

    Parameters
    ----------
    listing : Listing
    contents : Contents
        The contents of the store at the start of the run.
    rows : IdIndex
        Finds the rows of ids in the listing.
    gone : iterable of str
        Stored ids of this source whose item is gone.
    by_hand : iterable of (pyarrow.ChunkedArray of str, pyarrow.ChunkedArray of str)
        Content hashes and ids of the rows of this source in which something was set by hand (`set_by_hand`).
    """

    def __init__(
        self,
        listing: Listing,
        contents: Contents,
        rows: IdIndex,
        gone: Iterable[str],
        by_hand: Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]],
    ) -> None:
        self._ids = listing.table.column("id")
        self._contents, self._rows = contents, rows
        # What is not in a list in memory, or could not be listed, is not gone.
        certain = listing.root != ROOT and not any(failure.stage == "list" for failure in listing.failures)
        self._gone = set(gone if certain else ())
        self._changed = np.zeros(len(self._ids), bool)
        self._waiting: dict[str, list[Reused]] = {}
        self._by_hand = HashIndex(by_hand)
        #: Items that share their content with others that moved, so that the row they moved from is a guess.
        self.guessed = 0

    def route(self, message: Message) -> Iterator[Message]:
        """Yield a message for the writer, unless its row may have moved."""
        if isinstance(message, Embedded | Written):
            self._changed[message.rows] = True
        if not isinstance(message, Reused) or self._contents.is_same(message.row, message.hash):
            yield message
            return
        self._changed[message.row] = True
        if self._by_hand.find(message.hash) is None:
            yield message
        else:
            self._waiting.setdefault(message.hash, []).append(message)

    def finish(self) -> Iterator[Message]:
        """Yield the messages of the waiting rows; last those that change the row they moved from."""
        waiting = {self._id(each): each for group in self._waiting.values() for each in group}
        origins: dict[str, str] = {}
        for digest, group in self._waiting.items():
            ids = [self._id(each) for each in sorted(group, key=lambda each: each.row)]
            left = sorted(id for id in self._by_hand.find_all(digest) if self._has_left(id))
            pairs = dict(_pair(ids, left))
            origins |= pairs
            if len(ids) > 1 or len(left) > 1:
                self.guessed += sum(posixpath.basename(a) != posixpath.basename(b) for a, b in pairs.items())
        taken = set(origins.values())
        last = []
        for id, each in waiting.items():
            if id not in origins:
                yield replace(each, takes="nothing" if id in taken else "own")
            elif (origin := origins[id]) in waiting:
                yield replace(each, from_id=origin, takes="moved")
            else:
                last.append(replace(each, from_id=origin, takes="moved", leaves=True))
        yield from last

    def _id(self, message: Reused) -> str:
        return str(self._ids[message.row].as_py())

    def _has_left(self, id: str) -> bool:
        (row,) = self._rows.find(pa.array([id]))
        return bool(self._changed[row]) if row >= 0 else id in self._gone


def _pair(ids: list[str], origins: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (id, origin) of items of one content: those with the same file name first, then in order."""
    by_name: dict[str, list[str]] = {}
    for origin in reversed(origins):
        by_name.setdefault(posixpath.basename(origin), []).append(origin)
    rest, used = [], set()
    for id in ids:
        if same := by_name.get(posixpath.basename(id)):
            used.add(origin := same.pop())
            yield id, origin
        else:
            rest.append(id)
    yield from zip(rest, (origin for origin in origins if origin not in used), strict=False)


def set_by_hand(store: FeatureStore, root: str) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield the content hashes and ids of the rows of a root in which something was set by hand, file by file."""
    if BY_HAND not in store.schema.names:
        return
    for file in store.table.files:
        rows = store.table.read_file(file, ["content_hash", "id", "source_root", BY_HAND])
        rows = rows.filter(pc.and_(pc.is_valid(rows.column(BY_HAND)), pc.equal(rows.column("source_root"), root)))
        yield rows.column("content_hash"), rows.column("id")
