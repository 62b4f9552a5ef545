"""Training and measuring one cell: the linear probe, and networks from that, from a random head or from nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch import Tensor, nn

from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.backbones.providers.hugging_face.saving import random_weights
from embedpipe.backbones.reload import options_from_spec
from embedpipe.finetuning.benchmark.benchmark_data import Cell, Learner
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder, FinishedCell
from embedpipe.finetuning.benchmark.label_sampling import LabelDraw
from embedpipe.finetuning.benchmark.views import CLEAN, ImageView, View, written
from embedpipe.finetuning.linear_probe import fit_calibrated_logreg
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.run_folder import is_hugging_face
from embedpipe.finetuning.source import open_item_set
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.finetuning.training.base_trainer import BaseTrainer
from embedpipe.finetuning.training.classifier_network import BATCH_NORMS, SOFTENING, ClassifierNetwork
from embedpipe.finetuning.training.contrastive import ContrastiveTrainer
from embedpipe.finetuning.training.items.batches import embed_batch
from embedpipe.finetuning.training.items.item_set import Rows
from embedpipe.finetuning.training.trainer import Trainer
from embedpipe.heads.conversion.linear_head import LinearHead, fold_estimator
from embedpipe.statistics import log_losses

Floats = npt.NDArray[np.float64]
#: From a view to logits, float64 (n, n_classes).
Predictor = Callable[[View], Floats]
#: Learning rate of a network from scratch, as a multiple of that of a pretrained one.
SCRATCH_RATE = 10
#: Learning rate of a random last layer, as a multiple of that of the pretrained layers.
RANDOM_HEAD_RATE = 10.0
#: Distance below the other logits of a class that is not among the training rows.
UNSEEN = 20.0


@dataclass
class CellTrainer:
    """Trains and measures cells; holds what all cells of a benchmark share.

    Parameters
    ----------
    split : SplitRows
    X : float32 array (n_samples, dim)
        Stored features.
    frozen : Backbone
    options : FineTuneOptions
    reload : ReloadOptions
    views : list of View
        Versions of the test items, the uncorrupted one first.
    embedding : float
        Seconds of embedding one item.
    folder : BenchmarkFolder
    """

    split: SplitRows
    X: npt.NDArray[np.float32]
    frozen: Backbone
    options: FineTuneOptions
    reload: ReloadOptions
    views: list[View]
    embedding: float
    folder: BenchmarkFolder

    def run(self, learner: Learner, draw: LabelDraw) -> FinishedCell:
        """Train a learner on a draw, from its saved state if it was interrupted, and measure it."""
        return self._run_probe(draw) if learner == "linear-probe" else self._run_network(learner, draw)

    def _run_probe(self, draw: LabelDraw) -> FinishedCell:
        start = time.perf_counter()
        probe = self.fit_probe(draw.rows)
        seconds = time.perf_counter() - start + len(draw.rows) * self.embedding
        predicted = self.fit_probe(draw.train).logits(self.X[draw.validation]).argmax(1)
        initial_accuracy = float((predicted == self.split.y[draw.validation]).mean())
        start = time.perf_counter()
        measured = self._measure(lambda view: probe.logits(self._features_of(view)))
        cell = Cell(
            "linear-probe",
            draw.labels,
            draw.seed,
            initial_accuracy=initial_accuracy,
            epochs=[],
            best_epoch=0,
            seconds=seconds,
            **measured,
        )
        return FinishedCell(cell, time.perf_counter() - start)

    def _run_network(self, learner: Learner, draw: LabelDraw) -> FinishedCell:
        split, options = self.split, dataclasses.replace(self.options, seed=draw.seed)
        starts_as_probe = learner in ("lp-ft", "contrastive")
        if starts_as_probe:
            head = self.fit_probe(draw.train)
        else:
            head = _random_head(self.X.shape[1], split.classes, draw.seed)
        if learner == "scratch":
            without_lora = dataclasses.replace(options, lora=None)
            options = dataclasses.replace(
                without_lora,
                learning_rate=SCRATCH_RATE * without_lora.peak_rate(self.frozen.spec.modality),
                batch_norm="trained",
                layer_decay=1.0,
                freeze_until=None,
            )
        network = ClassifierNetwork(self.frozen, head, options.batch_norm, options.lora, draw.seed)
        if learner == "scratch":
            randomise_weights(network.network.module, self._random_state(), draw.seed)
        items = open_item_set(split, self.frozen, draw.seed)
        state = self.folder.state(learner, draw.labels, draw.seed)
        data, settings = (items, split.y, draw.train, draw.validation), {"cell": state.stem}
        settings |= self.folder.facts["settings"]
        trainer: BaseTrainer
        if learner == "contrastive":
            state = state.with_suffix("")  # a folder
            trainer = ContrastiveTrainer(network, *data, options, self.fit_head, state=state, settings=settings)
        else:
            trainer = Trainer(
                network,
                *data,
                options,
                state=state,
                settings=settings,
                last_layer_rate=RANDOM_HEAD_RATE if learner == "finetune" else 1.0,
                softening=SOFTENING if learner == "lp-ft" else 1.0,
            )
        run = trainer.fit(Progress(False))
        if starts_as_probe and not run.best.number:  # no epoch was better than the probe, so fit it on all rows
            network.set_head(self.fit_probe(draw.rows))
        start = time.perf_counter()
        cell = Cell(
            learner,
            draw.labels,
            draw.seed,
            initial_accuracy=run.epochs[0].validation_accuracy,
            epochs=run.epochs,
            best_epoch=run.best.number,
            seconds=sum(epoch.seconds for epoch in run.epochs),
            **self._measure(lambda view: _logits(network, view)),
        )
        return FinishedCell(cell, time.perf_counter() - start, items.left_out)

    def fit_probe(self, rows: Rows) -> LinearHead:
        """Fit a calibrated logistic regression on these rows, which also choose its penalty, as `embedpipe.fit` does.

        Raises TrainingDataError if there are too few rows.
        """
        return self.fit_head(self.X[rows], rows)

    def fit_head(self, vectors: npt.NDArray[np.float32], rows: Rows) -> LinearHead:
        """Fit the same on other vectors of these rows."""
        estimator = fit_calibrated_logreg(vectors, self.split.classes[self.split.y[rows]])
        return _add_unseen_classes(fold_estimator(estimator), self.split.classes)

    def _measure(self, predict: Predictor) -> dict[str, Any]:
        """Return the fields of a cell that are measured on the test rows and their shifted versions."""
        fields: dict[str, Any] = {"shifted": {}, "shifted_correct": []}
        by_view = []
        for view in self.views:
            logits, y = predict(view), self.split.y[view.rows]
            correct = logits.argmax(axis=1) == y
            if view.name == CLEAN:
                fields["accuracy"] = float(correct.mean())
                fields["log_loss"] = float(log_losses(softmax(logits, axis=1), y).mean())
                fields["correct"] = np.packbits(correct).tobytes().hex()
            else:
                fields["shifted"].setdefault(view.name, []).append(float(correct.mean()))
                by_view.append(correct)
        if by_view:
            fields["shifted_correct"] = np.mean(by_view, axis=0).round(6).tolist()
        return fields

    def _features_of(self, view: View) -> npt.NDArray[np.float32]:
        """Return the features of a view: stored ones, or those of corrupted images, which are embedded once."""
        if not isinstance(view, ImageView) or not view.severity:
            return self.X[view.rows]
        if not view.vectors.exists():
            with written(view.vectors, (len(view.rows), self.X.shape[1]), np.float32) as vectors:
                start = 0
                for part in view.parts():
                    vectors[start : start + len(part)] = next(iter(embed_batch(self.frozen, part).values()))
                    start += len(part)
        features: npt.NDArray[np.float32] = np.load(view.vectors)
        return features

    def _random_state(self) -> Mapping[str, Tensor]:
        """Return tensors of the same architecture with random weights; a user's function gives those that it makes."""
        spec = self.frozen.spec
        if is_hugging_face(spec):
            return random_weights(self.frozen.network.module)
        if spec.provider == "checkpoint":
            # Its architecture was trusted when the checkpoint was loaded.
            name, weights = spec.name, "default" if spec.name.startswith("python:") else "none"
            options = BackboneOptions(backbone=name, weights=weights, offline=self.reload.offline)
        elif spec.provider == "python":
            options = options_from_spec(spec, trust=True)
        else:
            options = options_from_spec(spec, "none", trust=self.reload.trust)
            options = dataclasses.replace(options, offline=self.reload.offline)
        return load_with_options(options, "cpu").network.module.state_dict()


def randomise_weights(module: nn.Module, random_state: Mapping[str, Tensor], seed: int) -> None:
    """Give a network random weights: each parameter those of the architecture, in a random order.

    The entries of a tensor are independent and identically distributed, so that another seed changes only their order
    and each architecture keeps its own initialisation. Constant tensors, such as zero biases, stay the same. The
    statistics of batch-norms are reset.

    Parameters
    ----------
    module : Module
        Is modified.
    random_state : mapping of str to Tensor
        Random weights of the architecture, the same for all seeds. A parameter that is missing or has another shape is
        shuffled itself.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = random_state.get(name)
            values = parameter.cpu() if drawn is None or drawn.shape != parameter.shape else drawn
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(values.flatten()[order].view(parameter.shape))
    for part in module.modules():
        if isinstance(part, BATCH_NORMS):
            part.reset_running_stats()


def _random_head(dim: int, classes: npt.NDArray[Any], seed: int) -> LinearHead:
    """Return a last layer with the initialisation of torch."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layer = nn.Linear(dim, len(classes))
    return LinearHead(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy(), classes, unit=False)


def _add_unseen_classes(linear: LinearHead, classes: npt.NDArray[Any]) -> LinearHead:
    """Return a head for all classes; the logits of those that it was not fitted on are far below the others."""
    positions = np.searchsorted(classes, linear.classes)
    weight = np.zeros((len(classes), linear.weight.shape[1]))
    bias = np.full(len(classes), linear.bias.min() - UNSEEN)
    weight[positions], bias[positions] = linear.weight, linear.bias
    return LinearHead(weight, bias, classes, linear.unit)


def _logits(network: ClassifierNetwork, view: View) -> Floats:
    network.eval()
    device = network.last.weight.device
    with torch.inference_mode():
        logits = [network(part.to(device)).float().cpu() for part in view.parts()]
    return np.asarray(torch.cat(logits).double().numpy())
