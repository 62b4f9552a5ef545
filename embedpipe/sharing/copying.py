"""A copy of the newest version of a store that may be shown to others: without its history and without local paths."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.masking import masked
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, suggest
from embedpipe.store import FeatureStore
from embedpipe.store.adopting import NewFile, adopt, write_new_files
from embedpipe.store.layers.projections import PROJECTIONS
from embedpipe.store.schema import BY_HAND, KEY_FIELDS

#: The root of items whose place is not shown. It is a folder that does not exist, so that an `embed` of the same items
#: compares their contents, as after a move.
ELSEWHERE = "/elsewhere"

#: Places that mean the same on every machine.
_PUBLIC = re.compile(r"(https?|s3|gs|gcs|abfss?|az|hf)://", re.IGNORECASE)


def copy_store(
    store: FeatureStore,
    folder: Path,
    *,
    exclude: Sequence[str] = (),
    keep_paths: bool = False,
    note: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Write a store with the rows, spec and projections of another one, file by file.

    Commits, old versions, failures and indexes are not copied: they name the sources. A ``uri`` on this machine becomes
    null, and its root `ELSEWHERE`, unless ``keep_paths``; so does a URL with a key in it, always.

    Parameters
    ----------
    store : FeatureStore
    folder : Path
        A new folder.
    exclude : sequence of str
        Columns to leave out.
    keep_paths : bool
    note : mapping of str to str
        Kept in the commit of the copy.

    Returns
    -------
    list of str
        What was left out, as sentences.

    Raises
    ------
    UsageError
        A column to leave out is unknown or needed, or another column holds paths of this machine.
    """
    needed = {field.name for field in KEY_FIELDS} | {*store.dims}
    for name in exclude:
        if name not in store.columns or name in needed:
            offered = [column for column in store.columns if column not in needed]
            raise UsageError(
                f"{option('exclude')} must name columns that can be left out, got {name!r}{suggest(name, offered)}"
            )
    kept = [name for name in store.columns if name not in exclude]
    local = [] if keep_paths else _local_words(store)
    if any(json.dumps(word)[1:-1] in store.spec.to_json() for word in local):
        raise UsageError(
            f"what is pushed must not hold paths of this machine, and the backbone of the spec is {store.spec.name!r}: "
            f"push the paths too ({option('keep_paths', True)})"
        )
    copy = FeatureStore.create(folder, store.spec, compress=store.compressed)
    counts: Counter[str] = Counter()
    files: list[NewFile] = []
    for file in store.table.files:
        rows = store.table.read_file(file, kept)
        for name in ("uri", "source_root"):
            at = rows.schema.get_field_index(name)
            places = [_shown(place, keep_paths) for place in rows.column(at).to_pylist()]
            counts[name] += sum(new != old for new, old in zip(places, rows.column(at).to_pylist(), strict=True))
            if name == "source_root":
                places = [place or ELSEWHERE for place in places]
            rows = rows.set_column(at, rows.schema.field(at), pa.array(places, pa.string()))
        _refuse_paths(rows, local)
        files += write_new_files(rows, copy.table)
        pa.default_memory_pool().release_unused()  # otherwise Arrow keeps memory of every file
    for layer in store.spec.layers:
        if layer.reduction and layer.reduction.read:
            (folder / PROJECTIONS).mkdir(exist_ok=True)
            (folder / PROJECTIONS / layer.reduction.file).write_bytes(layer.reduction.read().to_bytes())
    if files:
        adopt(copy.table, files, set(), {"embedpipe.operation": "copy", **note})
    notes = [f"column {name!r} is left out" for name in exclude]
    if counts["uri"]:
        notes.append(f"places of items on this machine, left out of the column 'uri': {counts['uri']:,}")
    return notes


def _shown(place: str | None, keep_paths: bool) -> str | None:
    """Return a uri or root as others may see it; None for one that they may not."""
    if place is None or masked(place) != place:
        return None
    is_public = _PUBLIC.match(place.rpartition("::")[2]) is not None
    return place if is_public or keep_paths else None


def _local_words(store: FeatureStore) -> list[str]:
    """Return what paths of this machine hold: the home folder, and the folders of the sources."""
    words = {str(Path.home())}
    for root in store.counts("source_root"):
        path = Path(root)
        if path.is_absolute() and len(path.parts) > 2:
            words.add(str(path))
    return sorted(word for word in words if len(word) > 2)


def _refuse_paths(rows: pa.Table, local: Sequence[str]) -> None:
    for field in rows.schema:
        if field.type != pa.string() or field.name in ("uri", "source_root"):
            continue
        column = rows.column(field.name)
        for word in local:
            found = column.filter(pc.fill_null(pc.match_substring(column, word), False))
            if len(found):
                is_needed = field.name in ("id", BY_HAND)
                advice = "" if is_needed else f"leave the column out ({option('exclude', field.name)}), or "
                raise UsageError(
                    f"what is pushed must not hold paths of this machine, and column {field.name!r} holds "
                    f"{found[0].as_py()!r:.200}: {advice}push the paths too ({option('keep_paths', True)})"
                )
