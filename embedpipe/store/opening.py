"""Opening what verbs take for a store: a store, or the path of one."""

from __future__ import annotations

from pathlib import Path

from embedpipe.errors import UsageError
from embedpipe.store.feature_store import FeatureStore


def open_store(store: FeatureStore | str | Path, before: str = "") -> FeatureStore:
    """Return a store, opened if it is a path.

    Parameters
    ----------
    store : FeatureStore or path-like
    before : str
        What needs rows, such as ``drawing a map``; an empty store is then refused.

    Raises
    ------
    UsageError
        If the store is empty and something needs rows.
    StoreNotFoundError
        If there is no store at that path.
    """
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    if before and not len(opened):
        raise UsageError(f"{opened.path!r} holds no rows: embed items before {before}")
    return opened
