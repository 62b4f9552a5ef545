"""The runs of `advise`: their times, and the cells of a benchmark as pairs of probe and network."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.finetuning.advice.frozen_baselines import CorrectRows
from embedpipe.finetuning.benchmark.benchmark_data import BenchmarkData, Learner
from embedpipe.finetuning.benchmark.differences import pair_cells
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.split_rows import SplitRows, network_layer
from embedpipe.store import FeatureStore

#: Items of the short training that measures the speed: on a processor, where an item of a small batch takes as long as
#: one of a large batch, and batches elsewhere.
TIMED_ITEMS, TIMED_BATCHES = 16, 2
LEARNERS: tuple[Learner, Learner] = ("linear-probe", "lp-ft")
#: Corruptions of the test images: one of each family, to keep a pilot short; `embedpipe.benchmark` has more.
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "fog", "jpeg_compression")
SEVERITIES = (3,)


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """Measured speed of training and inference.

    Attributes
    ----------
    full : float
        Seconds of training on all labels without early stopping.
    item : float
        Seconds of measuring one held-out item, of an image with all corruptions.
    device : str
    """

    full: float
    item: float
    device: str


def time_training(
    store: FeatureStore, split: SplitRows, options: FineTuneOptions, reload: ReloadOptions, device: str | None
) -> TrainingCost:
    """Train two epochs on a few items, and extrapolate the second to all epochs on all labels.

    The first epoch is longer, as libraries choose their kernels in it.

    Raises
    ------
    BackboneError
        If the network cannot be loaded or trained.
    TrainingDataError
        If no item can be read.
    """
    from embedpipe.finetuning.source import load_frozen, open_item_set
    from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
    from embedpipe.finetuning.training.trainer import Trainer
    from embedpipe.heads.conversion.linear_head import LinearHead

    layer = network_layer(store)
    frozen = load_frozen(store.spec.only(layer.name), reload, device)
    items = open_item_set(split, frozen, options.seed)
    zeros = np.zeros((len(split.classes), layer.dim))
    head = LinearHead(zeros, zeros[:, 0], split.classes, unit=False)
    augment = options.augmentation(len(split.train), items.modality)
    short = dataclasses.replace(options, epochs=2, patience=2, augment=augment)
    count = TIMED_BATCHES * options.batch_size
    if frozen.device.type == "cpu" and count > TIMED_ITEMS:
        count, batch_size = TIMED_ITEMS, min(options.batch_size, TIMED_ITEMS)
        short = dataclasses.replace(short, batch_size=batch_size, accumulate=min(options.accumulate, batch_size))
    rng = np.random.default_rng(options.seed)
    train = rng.permutation(split.train)[:count]
    fraction = len(train) / len(split.train)
    validation = rng.permutation(split.validation)[: max(1, round(fraction * len(split.validation)))]
    network = ClassifierNetwork(frozen, head, short.batch_norm, short.lora, short.seed)
    trainer = Trainer(network, items, split.y, train, validation, short)
    epochs = trainer.fit(Progress(False)).epochs
    start = time.perf_counter()
    trainer.logits(validation)
    item_seconds = (time.perf_counter() - start) / len(validation)
    if items.modality == "image":
        item_seconds *= 1 + len(CORRUPTIONS) * len(SEVERITIES)
    return TrainingCost(options.epochs * epochs[-1].seconds / fraction, item_seconds, str(trainer.device))


def run_seconds(labels: int, seeds: int, total_labels: int, test_rows: int, cost: TrainingCost) -> float:
    """Return the time of runs: each network, and the frozen one once, measures every held-out item."""
    return seeds * labels / total_labels * cost.full + (seeds + 1) * test_rows * cost.item


def pilot_runs(benchmark: BenchmarkData, baseline: CorrectRows | None = None) -> list[PilotRun]:
    """Return the cells of a benchmark as paired runs of LP-FT and the linear probe.

    If ``baseline`` is given, LP-FT is compared on the test rows with the linear probe or with that baseline, whichever
    is more accurate at a number of labels: a gain is a gain over all frozen baselines. On shifted rows it is compared
    with the linear probe, because there are no features of these for other baselines.
    """
    runs: list[PilotRun] = []
    for labels in benchmark.label_counts:
        probes, finetuned = benchmark.cells_of("linear-probe", labels), benchmark.cells_of("lp-ft", labels)
        rivals = [[cell.correct_rows(benchmark.test_rows) for cell in probes]]
        if baseline:
            rivals.append([baseline(labels, cell.seed) for cell in probes])
        best = max(rivals, key=lambda rival: sum(int(correct.sum()) for correct in rival))
        cells = zip(finetuned, probes, best, strict=True)
        runs += [pair_cells(cell, probe, benchmark.test_rows, correct) for cell, probe, correct in cells]
    return runs
