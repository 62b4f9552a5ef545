"""The pilot of `advise`: what training takes here, the sizes that fit into a time, and what its cells say."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.finetuning.advice.frozen_baselines import Hits
from embedpipe.finetuning.benchmark.differences import pair_of
from embedpipe.finetuning.benchmark.label_sampling import smallest_label_count
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.finetuning.benchmark.result import Benchmark, Learner
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.split_rows import SplitRows, network_layer
from embedpipe.store import FeatureStore

#: Batches of the trial that times training.
TRIAL = 2
LEARNERS: tuple[Learner, Learner] = ("linear-probe", "lp-ft")
#: How test pictures are corrupted: one kind of each family, as a pilot is to be short; `embedpipe.benchmark` has more.
CORRUPTED: dict[str, tuple[Any, ...]] = {
    "corruptions": ("gaussian_noise", "defocus_blur", "fog", "jpeg_compression"),
    "severities": (3,),
}


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """What training and measuring take here.

    Attributes
    ----------
    full : float
        Seconds of training on all labels, where it does not stop early.
    picture : float
        Seconds of measuring one picture.
    device : str
    """

    full: float
    picture: float
    device: str


@dataclasses.dataclass(frozen=True)
class PilotPlan:
    """Two sizes of a pilot, going up, and the minutes that it takes, where that is known."""

    sizes: tuple[int, int]
    minutes: float | None


def time_training(
    store: FeatureStore, split: SplitRows, options: FineTuneOptions, reload: ReloadOptions, device: str | None
) -> TrainingCost:
    """Train for two short epochs on a few pictures, and work out from the second what all epochs on all would take.

    Raises
    ------
    BackboneError
        If the network cannot be loaded or trained.
    TrainingDataError
        If none of the pictures can be read.
    """
    from embedpipe.finetuning.source import load_frozen, open_image_set
    from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
    from embedpipe.finetuning.training.linear_head import LinearHead
    from embedpipe.finetuning.training.trainer import Trainer

    layer = network_layer(store)
    frozen = load_frozen(store.spec.only(layer.name), reload, device)
    images = open_image_set(split, frozen, options.seed)
    nothing = np.zeros((len(split.classes), layer.dim))
    head = LinearHead(nothing, nothing[:, 0], split.classes, unit=False)
    few = dataclasses.replace(options, epochs=2, patience=2, augment=options.augmentation(len(split.train)))
    rng = np.random.default_rng(options.seed)
    train = rng.permutation(split.train)[: TRIAL * options.batch_size]
    share = len(train) / len(split.train)
    validation = rng.permutation(split.validation)[: max(1, round(share * len(split.validation)))]
    trainer = Trainer(ClassifierNetwork(frozen, head, few.batch_norm), images, split.y, train, validation, few)
    epochs = trainer.fit(Progress(False)).epochs
    start = time.perf_counter()
    trainer.logits(validation)
    picture = (time.perf_counter() - start) / len(validation)
    return TrainingCost(options.epochs * epochs[-1].seconds / share, picture, str(trainer.device))


def plan_pilot(
    split: SplitRows, seeds: int, cost: TrainingCost | None, budget: float | None = None
) -> PilotPlan | None:
    """Plan a pilot on an eighth and a quarter of the labels, or on halves of these until it fits into a time.

    Parameters
    ----------
    split : SplitRows
    seeds : int
    cost : TrainingCost, optional
        Not known, if None.
    budget : float, optional
        Seconds.

    Returns
    -------
    PilotPlan or None
        None where there are too few labels, or no pilot is as short as that.
    """
    pool = np.concatenate([split.train, split.validation])
    fewest, largest = smallest_label_count(split.y, pool), len(pool) // 4
    while largest // 2 >= fewest:
        sizes = (largest // 2, largest)
        seconds = _seconds(sizes, seeds, len(pool), len(split.test), cost) if cost else None
        if budget is None or (seconds is not None and seconds <= budget):
            return PilotPlan(sizes, seconds and seconds / 60)
        largest //= 2
    return None


def _seconds(sizes: tuple[int, int], seeds: int, labels: int, test: int, cost: TrainingCost) -> float:
    """Return what a pilot takes: each network sees every test picture in all its forms, and the frozen one once."""
    forms = 1 + len(CORRUPTED["corruptions"]) * len(CORRUPTED["severities"])
    measured = (seeds * len(sizes) + 1) * test * forms
    return seeds * sum(sizes) / labels * cost.full + measured * cost.picture


def pilot_runs(found: Benchmark, best: Hits | None = None) -> list[PilotRun]:
    """Return what a benchmark's cells say of the hand-off beside the probe, pair by pair.

    ``best``, if given, stands beside the probe, and at each size the one that is right more often counts on the test
    rows: a gain is over all that is cheap. On shifted rows it is the probe, as nothing else has vectors of these.
    """
    runs: list[PilotRun] = []
    for labels in found.label_counts:
        probes, tuned = found.cells_of("linear-probe", labels), found.cells_of("lp-ft", labels)
        hits = [[cell.correct_rows(found.test_rows) for cell in probes]]
        if best:
            hits.append([best(labels, cell.seed) for cell in probes])
        most = max(hits, key=lambda each: sum(int(one.sum()) for one in each))
        pairs = zip(tuned, probes, most, strict=True)
        runs += [pair_of(one, probe, found.test_rows, own) for one, probe, own in pairs]
    return runs
