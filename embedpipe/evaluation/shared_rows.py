"""Rows that several stores share: the same id, and the same content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.counting import counted
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import LEFT_OUT, excluded_rows
from embedpipe.store.scan import has_label

#: A content hash: SHA-256, as hexadecimal digits.
DIGEST = "^[0-9a-f]{64}$"


@dataclass(frozen=True)
class SharedRows:
    """Which rows of a store other stores have too.

    Attributes
    ----------
    kept : bool array (n,)
    left_out : dict
        Reason -> number of the other rows.
    notes : list of str
        Stores whose contents could not be compared.
    """

    kept: npt.NDArray[np.bool_]
    left_out: dict[str, int]
    notes: list[str]


def shared_rows(ids: pa.Array, first: FeatureStore, others: Sequence[FeatureStore]) -> SharedRows:
    """Find the rows of a store that all other stores hold under the same id with the same content.

    Ids such as ``row-7`` are those of any table, so contents are compared by their hashes. Rows that differ are left
    out, as a file may have changed since one of the stores was made; stores in which most rows differ are refused. So
    are rows that another store excludes.

    Parameters
    ----------
    ids : array of str (n,)
        Ids of the rows of ``first``.

    Raises
    ------
    UsageError
        If a store has none of the ids, or at least half of the rows that could be compared differ.
    """
    if not others:
        return SharedRows(np.ones(len(ids), bool), {}, [])
    kept, left_out, notes = np.ones(len(ids), bool), dict[str, int](), list[str]()
    digests, known = _digests(first, ids)
    for other in others:
        theirs, theirs_known = _digests(other, ids)
        present = np.asarray(pc.is_valid(theirs), bool)
        if not (present & kept).any():
            raise UsageError(
                f"stores must hold the same items, and {other.path!r} has none of the ids of {first.path!r}"
            )
        missing = kept & ~present
        kept &= present
        if missing.any():
            left_out[f"not in {other.path}"] = int(missing.sum())
        unused = kept & _excluded(other, ids)
        if unused.any():
            left_out[f"{LEFT_OUT} in {other.path}"] = int(unused.sum())
            kept &= ~unused
        if first.spec.modality != other.spec.modality:
            notes.append(
                f"{first.path} holds {first.spec.modality}s and {other.path} {other.spec.modality}s: "
                "that equal ids are the same items is not checked"
            )
            continue
        compared = kept & known & theirs_known
        if unknown := int((kept & ~compared).sum()):
            notes.append(
                f"without a content hash: {counted(unknown, 'row')} of {first.path} or {other.path}; that equal ids "
                "are the same items is not checked there"
            )
        differ = compared & ~np.asarray(pc.fill_null(pc.equal(digests, theirs), False), bool)
        count = int(differ.sum())
        if count:
            if 2 * count >= int(compared.sum()):
                raise UsageError(
                    f"stores must hold the same items, and {count:,} of {int(compared.sum()):,} items with the same id "
                    f"have another content in {other.path!r} than in {first.path!r}, such as "
                    f"{ids[int(np.flatnonzero(differ)[0])].as_py()!r}: embed the same files or table into both"
                )
            left_out[f"with another content in {other.path}"] = count
            kept &= ~differ
    return SharedRows(kept, left_out, notes)


def check_labels(rows: pa.Table, label: str, first: FeatureStore, others: Sequence[FeatureStore]) -> None:
    """Raise TrainingDataError if another store has other labels for rows that it shares with the first one.

    Parameters
    ----------
    rows : pyarrow.Table
        ``id`` and ``label`` of shared rows.
    """
    ids, labels = rows.column("id").combine_chunks(), rows.column(label).to_pylist()
    for other in others:
        if label not in other.data_columns:
            continue
        table = other.to_arrow(["id", label])
        place = pc.index_in(ids, value_set=table.column("id").combine_chunks())
        theirs = table.column(label).take(place)
        pairs = zip(ids.to_pylist(), labels, theirs.to_pylist(), has_label(theirs).tolist(), strict=True)
        if differing := [id for id, our, their, known in pairs if known and our != their]:
            raise TrainingDataError(
                f"stores must agree on {label!r}, and {len(differing)} items differ between {first.path!r} and "
                f"{other.path!r}, such as {differing[0]!r}: set both from one table with `embedpipe label`"
            )


def _excluded(store: FeatureStore, ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which ids are those of rows that a store excludes."""
    rows = excluded_rows(store.table)
    if not len(rows):
        return np.zeros(len(ids), bool)
    return np.asarray(pc.is_in(ids, value_set=store.to_arrow(["id"])["id"].combine_chunks().take(pa.array(rows))), bool)


def _digests(store: FeatureStore, ids: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Return the content hash of each id, null for ids that the store does not have, and whether it is a hash."""
    table = store.to_arrow(["id", "content_hash"])
    place = pc.index_in(ids, value_set=table.column("id").combine_chunks())
    digests = table.column("content_hash").combine_chunks().take(place)
    return digests, np.asarray(pc.fill_null(pc.match_substring_regex(digests, DIGEST), False), bool)
