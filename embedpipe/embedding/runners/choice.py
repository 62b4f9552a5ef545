"""The runner of a run, and what would make it faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe._utils.progress import Progress
from embedpipe.backbones import BackboneSpec
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.pending import PendingBackbone
from embedpipe.embedding.bottleneck import Bottleneck, find_bottleneck
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.summary import StageTimer
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import RowNumbers
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone
    from embedpipe.embedding.runners.runner import Runner


def make_runner(
    backbone: Backbone | PendingBackbone,
    chosen: BackboneOptions | None,
    store: FeatureStore,
    items: int,
    options: RunOptions,
    timer: StageTimer,
    progress: Progress,
) -> Runner:
    """Return what embeds rows. In this process the backbone is loaded, and its engine chosen for so many items.

    ``items`` is the size of the whole source: a run that was killed goes on by the same engine.
    """
    if options.on_ray and chosen is not None:
        from embedpipe.embedding.runners.on_ray import RayRunner

        return RayRunner(store, chosen, items, options, timer, progress)
    from embedpipe.embedding.runners.local import LocalRunner  # needs torch

    if isinstance(backbone, PendingBackbone):
        with timer("load"):
            backbone = backbone.load()
        store.require(backbone.spec)
    if options.engine == "auto":
        with timer("engine"), progress.step("choosing an engine"):
            backbone = backbone.accelerated(items)
        progress.say(
            f"engine: {backbone.engine_name}" + (f" ({backbone.engine_reason})" if backbone.engine_reason else "")
        )
    return LocalRunner(backbone, options, timer)


def bottleneck_of(runner: Runner | None, timer: StageTimer, wall: float) -> Bottleneck | None:
    """Return the slowest stage of a run of so many seconds; None if nothing was embedded."""
    if runner is None:
        return None
    return find_bottleneck(timer.seconds, wall - runner.idle, runner.done, runner.threads)


def advice(runner: Runner | None, bottleneck: Bottleneck, spec: BackboneSpec) -> str:
    """Return what would speed up the slowest stage."""
    if runner is None:
        return ""
    if runner.idle and bottleneck.stage == "waiting":
        return "larger sources or fewer workers, as workers waited to be started or for a task"
    return bottleneck.advice(spec, runner.execution.device.partition(":")[0])


def faster_settings(
    runner: Runner | None,
    listing: Listing,
    rows: RowNumbers,
    bottleneck: Bottleneck,
    wall: float,
    store: str,
) -> list[str]:
    """Return one sentence per setting that is faster here, with its measured speed-up."""
    if runner is None or runner.is_fixed:
        return []
    from embedpipe.embedding.gains import find_gains  # needs torch
    from embedpipe.embedding.runners.local import LocalRunner

    if not isinstance(runner, LocalRunner):
        return []
    return find_gains(runner.backbone, listing, rows, bottleneck, wall, store)
