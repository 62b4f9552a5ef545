"""`embed`: embed a source into a feature store."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones import resolve_options
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.pending import PendingBackbone, recall_backbone, remember_backbone
from embedpipe.backbones.reload import with_stored_layers
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.updating import embed_listing
from embedpipe.errors import UsageError
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore
from embedpipe.store.data_files import check_new_store

if TYPE_CHECKING:
    from embedpipe._utils.parameters import EmbedParameters
    from embedpipe.backbones.backbone import Backbone

OPTIONS = (SourceOptions, BackboneOptions, RunOptions)


@takes_options(*OPTIONS)
@outages_raised()
def embed(
    source: Any,
    to: str | Path | None = None,
    *,
    progress: bool | None = None,
    verbose: bool = False,
    **options: Unpack[EmbedParameters],
) -> FeatureStore:
    """Embed the new and changed items of a source into a feature store.

    The backbone decides whether images or texts are embedded. ``text="body"`` and ``modality="text"`` select the
    default backbone for texts. Where nothing is new, a backbone that was loaded before is not loaded. After a
    ``KeyboardInterrupt``, the finished items are committed. A store with more layers gets all of them.

    With ``add_layer``, the source is a store, which gets vectors of further layers of its backbone: its items are read
    again from where they were, and all rows get the layer in one commit, or none. A run that was killed goes on.

    Parameters
    ----------
    source : str, path-like or in-memory data
        A folder, file list, table or tar shards, as a path or URL; or a sequence of paths, PIL images, arrays or
        texts. See `embedpipe.sources.open_source`. With ``add_layer``, a store.
    to : str or path-like, optional
        Folder or URL of the store, created if it does not exist. Required without ``add_layer``.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).
    verbose : bool
        Show the slowest stage in the progress.

    Returns
    -------
    FeatureStore
        The store, with counts and timings of the run in ``summary``. Failed items are in ``failures()``, and the
        next run tries them again.

    Raises
    ------
    UnreachableError
        The storage or server of the source or store does not answer for now. What was finished is in the store.
    EmbedpipeError
        The source cannot be listed, the backbone cannot be loaded, or the store has another spec.

    See Also
    --------
    verify : Check a store and embed a sample of it again.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    >>> to = tempfile.mkdtemp()
    >>> store = embedpipe.embed(photos, to, backbone="torchvision/resnet18", weights="none")
    >>> store.summary.embedded
    3
    >>> again = embedpipe.embed(photos, to, backbone="torchvision/resnet18", weights="none")
    >>> again.summary.reused
    3
    """
    start = time.perf_counter()
    chosen = source_options, backbone_options, run_options = build_options(OPTIONS, options)
    show = Progress(progress, detail=verbose)
    reasons: list[str] = []

    def find(wanted: BackboneOptions, *, recall: bool = True) -> Backbone | PendingBackbone:
        load = functools.partial(_load, wanted, run_options, show, reasons)
        return (recall_backbone(wanted, load) if recall else None) or load()

    if run_options.add_layer:
        from embedpipe.embedding.layers.add_layer import add_layers  # needs scikit-learn

        if to is not None:
            raise UsageError(
                f"{option('add_layer', ...)} adds to the store that is given as the source, so there must be no other "
                f"store, got {str(to)!r}: leave it out"
            )
        store = add_layers(source, chosen, show, find)
    elif to is None:
        raise UsageError("to must be the folder or URL of the store, got None")
    else:
        store = _embed(source, to, source_options, backbone_options, run_options, show, find)
    if run_options.on_ray and store.summary.embedded:
        reasons = ["chosen by each worker of Ray"]
    store.summary.device_reason = "".join(reasons) or "none, as nothing was embedded"
    store.summary.seconds = time.perf_counter() - start
    show.event("summary", **store.summary.without_failures())
    if show.cell:  # the command line prints the summary, a notebook shows only the store
        show.say_all(store.summary.cautions)
    return store


def _embed(
    source: Any,
    to: str | Path,
    source_options: SourceOptions,
    backbone_options: BackboneOptions,
    run_options: RunOptions,
    show: Progress,
    find: Callable[..., Backbone | PendingBackbone],
) -> FeatureStore:
    """Embed a source into a store, which is created if it does not exist."""
    if source_options.text is not None and backbone_options.modality is None:
        backbone_options = dataclasses.replace(backbone_options, modality="text")
    backbone_options = resolve_options(backbone_options)
    exists = FeatureStore.exists(to)
    if not exists:
        check_new_store(to)
    with show.step("listing the source"):
        listing = open_source(source, source_options, backbone_options.modality or "image")
    if backbone_options.precision == "int8" and run_options.engine != "auto":
        raise UsageError(
            f"{option('precision', 'int8')} needs {option('engine', 'auto')}, got "
            f"{option('engine', run_options.engine)}"
        )
    backbone = find(backbone_options, recall=exists or run_options.on_ray)
    given = backbone.spec
    if exists:
        stored = FeatureStore(to).spec
        every = with_stored_layers(backbone_options, given, stored)
        if every != backbone_options:
            backbone_options, backbone = every, find(every)
        if backbone.spec == stored.captured:
            backbone = backbone.reduced(stored)
    store = FeatureStore.create(to, backbone.spec, compress=run_options.compress)
    store.summary = embed_listing(listing, store, backbone, run_options, show, backbone_options)
    if backbone.spec != given and store.summary.embedded:
        store.summary.notes.append(f"every row gets all layers of the store: {', '.join(store.layers)}")
    return store


def _load(options: BackboneOptions, run: RunOptions, show: Progress, reasons: list[str]) -> Backbone:
    """Load a backbone, and add to ``reasons`` why its device was chosen. With Ray, only its spec is used."""
    from embedpipe._utils.device import choose_device  # needs torch
    from embedpipe.backbones.load import load_with_options

    device, reason = choose_device("cpu" if run.on_ray else run.device)
    if options.precision == "int8":
        show.say("int8: the first run of a network quantises it, which takes about half a minute")
    backbone = load_with_options(options, device)
    remember_backbone(options, backbone)
    if not run.on_ray:
        show.say(f"device: {reason}")
        reasons.append(reason)
    return backbone
