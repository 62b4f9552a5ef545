"""The runner of a run, and what would make it faster."""

from __future__ import annotations

import os
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


#: Share of the processor below which a run that computes on all cores was held up by other programs, and the seconds
#: from which that is said.
LEAST_SHARE, LEAST_SECONDS = 0.6, 5


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


def contention(runner: Runner | None, bottleneck: Bottleneck, processor: float, wall: float) -> list[str]:
    """Return advice if other programs kept torch's threads waiting for each other, for so many seconds of this run.

    The threads wait at the end of each layer, and use the processor meanwhile: a run that had it to itself used all of
    its cores.
    """
    if runner is None or wall < LEAST_SECONDS or bottleneck.shares["forward"] < 0.5:
        return []
    from embedpipe._utils.device import cores  # needs torch
    from embedpipe.embedding.runners.local import LocalRunner

    ran, share = runner.execution, processor / (wall * cores())
    by_torch = isinstance(runner, LocalRunner) and ran.device == "cpu" and ran.engine.startswith("torch")
    is_passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    if not by_torch or is_passive or cores() == 1 or share >= LEAST_SHARE:
        return []
    return [
        f"other programs left this run {100 * share:.0f} % of the processor, and torch's threads waited for each "
        "other: with OMP_WAIT_POLICY=passive in the environment, waiting takes less time"
    ]
