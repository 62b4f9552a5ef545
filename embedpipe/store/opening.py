"""What verbs on rows begin with: opening a store, and reading the columns that it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from embedpipe.errors import UsageError
from embedpipe.store.editing.exclusion import used_rows
from embedpipe.store.feature_store import FeatureStore
from embedpipe.store.schema import require_column


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


def known_columns(store: FeatureStore, columns: Sequence[str], **named: str | None) -> tuple[pa.Table, int]:
    """Return the columns that a store has, of the rows that are not excluded, and the number of those that are.

    Parameters
    ----------
    store : FeatureStore
    columns : sequence of str
        Columns that the store may lack.
    **named : str, optional
        Columns that an option of this name gives, such as ``label="species"``; a column with the name of its option,
        which is the default, may be missing.

    Raises
    ------
    UsageError
        If the store lacks a column that an option names.
    """
    for option, name in named.items():
        if name not in (None, option):
            require_column(name, store.data_columns, store.path, option)
    wanted = dict.fromkeys(["id", *columns, *(name for name in named.values() if name is not None)])
    return used_rows(store.table, [name for name in wanted if name == "id" or name in store.data_columns])
