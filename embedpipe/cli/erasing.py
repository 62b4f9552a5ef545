"""The verbs that erase: items from a store and its caches, and entries of the cache."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from embedpipe.cli import show
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly
from embedpipe.cli.running.plain_text import escaped
from embedpipe.errors import UsageError
from embedpipe.report.drawing.wording import counted


@app.command(rich_help_panel="Store")
@exits_cleanly
def forget(
    store: Store,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the items to erase.")],
    *,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Erase items from a store, its old versions, failures and the cache, and search every file for traces of them.

    Heads nearby that were fitted on the store are named. Remove the items from the source too, or the next `embed` adds
    them again.

    Example: `embedpipe forget photos.features cat/0003.jpg`
    """
    from embedpipe.store.erasing.forgetting import forget as run

    result = run(store, ids)
    if as_json:
        show.json_value(result.to_dict())
        return
    if quiet:
        return
    print(
        f"{counted(result.rows, 'row')} and {counted(result.failures, 'failure')} erased, with "
        f"{counted(result.files, 'file')} of old versions and {counted(result.cached, 'entry', 'entries')} of the cache"
    )
    print(f"searched {counted(result.searched, 'file')} of the store and the cache: no trace is left")
    for path in result.heads:
        print(f"{escaped(path)} holds rows that it was fitted on: fit it again, or delete it")
    for path in result.fitted:
        print(f"{escaped(path)} was fitted on this store, perhaps on these items: decide whether to fit it again")
    print("remove the items from the source too, or the next `embed` adds them again")


@app.command(rich_help_panel="Machine")
@exits_cleanly
def cache(
    *,
    list_: Annotated[bool, typer.Option("--list", help="List its parts, with -v its entries (default).")] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete it; all but the ledger is made again when needed.")
    ] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", help="Only what was not used for this many hours.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List or clear the cache folder: memory maps, exported networks, results of `evaluate`, the ledger of `advise`.

    The folder is EMBEDPIPE_CACHE, else the user's cache folder. While it is larger than EMBEDPIPE_CACHE_GB (50 by
    default), what was used least recently is deleted, but for the ledger.

    Example: `embedpipe cache --list`
    """
    from rich.table import Table

    from embedpipe._utils.cache import CacheEntry, cache_entries, drop_entry
    from embedpipe._utils.config import cache_folder, cache_limit

    if list_ and clear:
        raise UsageError("--list and --clear exclude each other: give one of them")
    if older_than is not None and not older_than >= 0:
        raise UsageError(f"--older-than must be hours >= 0, got {older_than}")
    now = time.time()
    entries = [each for each in cache_entries() if older_than is None or now - each.used >= 3600 * older_than]
    if clear:
        for entry in entries:
            drop_entry(entry.path)
    size = sum(entry.size for entry in entries)
    if as_json:
        listed = [{"name": entry.name, "bytes": entry.size, "hours": (now - entry.used) / 3600} for entry in entries]
        facts = {"folder": str(cache_folder()), "limit": cache_limit(), "bytes": size, "entries": listed}
        show.json_value({**facts, "cleared": clear})
        return
    if quiet:
        return
    if not clear and entries:
        table = Table("entry" if verbose else "part", "entries", "MB", "last used", box=None)
        groups: dict[str, list[CacheEntry]] = {}
        for entry in entries:
            groups.setdefault(entry.name if verbose else entry.path.parent.name, []).append(entry)
        for name, group in groups.items():
            hours, megabytes = (now - group[0].used) / 3600, sum(entry.size for entry in group) / 1e6
            table.add_row(show.plain(name), f"{len(group):,}", f"{megabytes:,.1f}", f"{hours:,.1f} h ago")
        show.print_table(table)
    print(
        f"{counted(len(entries), 'entry', 'entries')}, {size / 1e6:,.1f} MB"
        f"{', deleted from' if clear else ' in'} "
        f"{escaped(str(cache_folder()))} (limit {cache_limit() / 1e9:g} GB)"
    )
