"""`embed(store, add_layer=...)`: another layer of the same backbone for every row of a store.

The items are embedded into a store of their own in the folder `LAYERS`, where a run that was killed goes on. When every
row has its vectors, one commit adds them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import DEFAULT, BackboneOptions
from embedpipe.backbones.pending import PendingBackbone
from embedpipe.backbones.registry import split_name
from embedpipe.backbones.reload import options_from_spec
from embedpipe.embedding.layers.joining import NewRowsError, RowJoin
from embedpipe.embedding.layers.stored_items import list_stored
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.summary import EmbedSummary
from embedpipe.embedding.updating import embed_listing
from embedpipe.errors import ConcurrentWriteError, UnreachableError, UsageError
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore
from embedpipe.store.layers.extending import extend
from embedpipe.store.maintenance import LAYERS
from embedpipe.store.opening import open_store

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone

#: How often rows that others add meanwhile are embedded too.
MOST_ROUNDS = 10

#: Options that change how the layer is computed, but not what a row is.
_ALLOWED: dict[type, set[str]] = {
    SourceOptions: set(),
    BackboneOptions: {"backbone", "weights", "frequencies", "pooling", "offline"},
    RunOptions: {field.name for field in dataclasses.fields(RunOptions)}
    - {"checksum", "labels_from_source", "compress", "shard"},
}


def add_layers(
    path: FeatureStore | str | Path,
    options: tuple[SourceOptions, BackboneOptions, RunOptions],
    progress: Progress,
    find: Callable[[BackboneOptions], Backbone | PendingBackbone],
) -> FeatureStore:
    """Add the layers of ``add_layer`` to a store, all rows or nothing.

    Parameters
    ----------
    path : FeatureStore or path
    options : tuple
        Those of `embedpipe.embed`.
    progress : Progress
    find : callable
        ``find(options)`` returns the backbone of options, or one that is loaded when it is needed.

    Returns
    -------
    FeatureStore
        With the counts of the run in ``summary``.

    Raises
    ------
    UsageError
        An option does not apply, a layer does not exist, or items were embedded from memory or imported.
    SpecMismatchError
        The backbone that loads is not the one of the store, or gives other vectors.
    StoreError
        An item cannot be read or embedded.
    PruneRefusedError
        ``prune`` would drop more than half of the rows.
    UnreachableError
        The storage or server of an item does not answer.
    """
    store = open_store(path).refresh()
    _, given, run = options
    _refuse_others(options)
    chosen = _backbone_of(store, given)
    new = [name for name in run.add_layer if name not in store.layers]
    if not new:
        _clear(store)
        store.summary = EmbedSummary(seen=len(store), reused=len(store), store=store.path, version=store.version)
        store.summary.notes.append(f"the store has the {_layers(run.add_layer)} already")
        return store
    captured = store.spec.captured
    pooling = (given.pooling or (DEFAULT,))[0]
    chosen = dataclasses.replace(
        chosen,
        layer=(*(layer.name for layer in captured.layers), *new),
        pooling=(*(layer.pooling for layer in captured.layers), *[pooling] * len(new)),
    )
    backbone = find(chosen)
    captured.require(
        backbone.spec.only(*(layer.name for layer in captured.layers)),
        f"the backbone that loads is not the one of {store.path!r}",
        "in the store",
        "loaded",
        f"Give the weights that made the vectors ({option('weights', 'PATH')}).",
    )
    added = tuple(layer for layer in backbone.spec.layers if layer.name in new)
    spec = dataclasses.replace(store.spec, layers=(*store.spec.layers, *added))
    plain = dataclasses.replace(run, add_layer=(), prune=False, force=False)
    embedded = 0
    for _ in range(MOST_ROUNDS):
        listing = list_stored(store.refresh())
        staged = FeatureStore.create(
            f"{store.path}/{LAYERS}/{backbone.spec.fingerprint()[:16]}", backbone.spec, compress=store.compressed
        )
        summary = embed_listing(listing, staged, backbone, plain, progress, chosen)
        embedded += summary.embedded
        if summary.unreachable:
            raise UnreachableError(
                f"{counted(summary.unreachable, 'item')} could not be reached, the first: "
                f"{summary.failures[0]['message']}. Run it again: what was embedded is kept"
            )
        join = RowJoin(store, staged.refresh(), prune=run.prune, force=run.force)
        note = {"embedpipe.operation": f"add {_layers(new)}"} | _last_run(staged)
        try:
            with progress.step("writing the store", len(store), "rows") as join.advance:
                extend(store, spec, join, note, join.check)
            break
        except NewRowsError:
            continue
    else:
        raise ConcurrentWriteError(f"other processes keep changing {store.path!r}: run it again when they have ended")
    join.record_dropped()
    _clear(store)
    summary.embedded, summary.reused = embedded, summary.seen - summary.failed - embedded
    summary.pruned, summary.store, summary.version = join.dropped, store.path, store.version
    others = [note.replace(staged.path, store.path) for note in summary.notes]
    summary.notes = [f"added the {_layers(new)}", *join.notes, *others]
    store.summary = summary
    return store


def _refuse_others(options: Iterable[SourceOptions | BackboneOptions | RunOptions]) -> None:
    """Raise UsageError for an option that says what a row is, as the store says that."""
    for each in options:
        for field in dataclasses.fields(each):
            value = getattr(each, field.name)
            if field.name not in _ALLOWED[type(each)] and value != field.default:
                raise UsageError(
                    f"{option('add_layer', ...)} takes the items and the backbone of the store, so "
                    f"{option(field.name)} does not apply, got {value!r}: leave it out"
                )


def _backbone_of(store: FeatureStore, given: BackboneOptions) -> BackboneOptions:
    """Return the options that load the backbone of a store. Raises UsageError if it has none, or needs more."""
    spec = store.spec
    if spec.is_imported:
        raise UsageError(
            f"the vectors of {store.path!r} were imported, from {spec.name!r}: there is no network with other layers"
        )
    is_code = spec.provider == "python"
    name = f"{spec.provider}{':' if is_code else '/'}{spec.name}"
    provider, called = split_name(given.backbone) if given.backbone else (spec.provider, spec.name)
    # Elsewhere a network has several names, with and without a tag or revision: the one that loads is compared.
    if provider != spec.provider or (is_code and called.replace(":", ".") != spec.name.replace(":", ".")):
        raise UsageError(
            f"{option('add_layer', ...)} takes the backbone of the store, {name}, got "
            f"{option('backbone', given.backbone)}: leave it out"
        )
    if is_code and not given.backbone:
        raise UsageError(f"the store names Python code to run: give {option('backbone', name)} if you trust it")
    weights = called if given.backbone and provider == "checkpoint" and given.weights == "default" else given.weights
    chosen = options_from_spec(spec, weights, frequencies=given.frequencies, trust=is_code)
    if given.backbone and not is_code and provider != "checkpoint":
        chosen = dataclasses.replace(chosen, backbone=given.backbone)
    return dataclasses.replace(chosen, offline=given.offline)


def _last_run(staged: FeatureStore) -> dict[str, str]:
    """Return what the last run in a store recorded of its machine and libraries."""
    return next(({"embedpipe.run": each["embedpipe.run"]} for each in staged.history() if "embedpipe.run" in each), {})


def _clear(store: FeatureStore) -> None:
    """Delete what was staged for a store: it has the layers, or other ones by now."""
    folder = f"{store.table.base}/{LAYERS}"
    if store.table.fs.get_file_info(folder).type.name != "NotFound":
        store.table.fs.delete_dir(folder)


def _layers(names: Iterable[str]) -> str:
    names = list(names)
    return f"layer{'s' * (len(names) > 1)} {', '.join(names)}"
