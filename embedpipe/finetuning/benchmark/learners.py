"""The learners: a head on frozen features, and networks that begin with it, with a random head, or with nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.backbones.reload import options_from_spec
from embedpipe.finetuning.benchmark.cell_files import FinishedCell, RunFolder
from embedpipe.finetuning.benchmark.label_sampling import Draw
from embedpipe.finetuning.benchmark.result import Cell, Learner
from embedpipe.finetuning.benchmark.shifted_images import CLEAN, View, written
from embedpipe.finetuning.linear_probe import fit_calibrated_logreg
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.source import open_image_set
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.finetuning.training.classifier_network import BATCH_NORMS, SOFTENING, ClassifierNetwork
from embedpipe.finetuning.training.images import Rows
from embedpipe.finetuning.training.linear_head import LinearHead, fold_estimator
from embedpipe.finetuning.training.trainer import Trainer

Floats = npt.NDArray[np.float64]
#: From a view to logits, float64 (n, n_classes).
Judge = Callable[[View], Floats]
#: By how much the learning rate of a network that begins with nothing is higher than that of one that is good already.
FROM_SCRATCH = 10
#: Learning rate of a random last layer, as a multiple of that of the pretrained ones before it.
RANDOM_HEAD = 10.0
#: How far below the others the logit of a class lies that a head has seen no row of.
UNSEEN = 20.0


@dataclass
class CellTrainer:
    """What all cells of a benchmark share, and how each is trained and measured.

    Parameters
    ----------
    split : SplitRows
    X : float32 array (n_samples, dim)
    frozen : ImageBackbone
    options : FineTuneOptions
    reload : ReloadOptions
    views : list of View
        The test rows first.
    embedding : float
        Seconds that it takes to embed a picture.
    folder : RunFolder
    """

    split: SplitRows
    X: npt.NDArray[np.float32]
    frozen: ImageBackbone
    options: FineTuneOptions
    reload: ReloadOptions
    views: list[View]
    embedding: float
    folder: RunFolder

    def learn(self, learner: Learner, draw: Draw) -> FinishedCell:
        """Train a learner on a draw, from where it was if it was killed, and measure it."""
        return self._probe(draw) if learner == "linear-probe" else self._network(learner, draw)

    def _probe(self, draw: Draw) -> FinishedCell:
        begin = time.perf_counter()
        probe = self.fit_probe(draw.rows)
        seconds = time.perf_counter() - begin + len(draw.rows) * self.embedding
        held = draw.validation
        start = float((self.fit_probe(draw.train).logits(self.X[held]).argmax(1) == self.split.y[held]).mean())
        begin = time.perf_counter()
        measured = self._measure(lambda view: probe.logits(self._vectors_of(view)))
        cell = Cell(
            "linear-probe",
            draw.labels,
            draw.seed,
            initial_accuracy=start,
            epochs=[],
            best_epoch=0,
            seconds=seconds,
            **measured,
        )
        return FinishedCell(cell, time.perf_counter() - begin)

    def _network(self, learner: Learner, draw: Draw) -> FinishedCell:
        split, options = self.split, dataclasses.replace(self.options, seed=draw.seed)
        if learner == "lp-ft":
            head = self.fit_probe(draw.train)
        else:
            head = _random_head(self.X.shape[1], split.classes, draw.seed)
        if learner == "scratch":
            full = dataclasses.replace(options, lora=None)
            options = dataclasses.replace(
                full,
                learning_rate=FROM_SCRATCH * full.peak_rate,
                batch_norm="trained",
                layer_decay=1.0,
                freeze_until=None,
            )
        network = ClassifierNetwork(self.frozen, head, options.batch_norm, options.lora, draw.seed)
        if learner == "scratch":
            redraw(network.network.module, self._untrained(), draw.seed)
        images = open_image_set(split, self.frozen, draw.seed)
        state = self.folder.state(learner, draw.labels, draw.seed)
        key = f"{self.folder.facts['key']} {state.stem}"
        trainer = Trainer(
            network,
            images,
            split.y,
            draw.train,
            draw.validation,
            options,
            state=state,
            key=key,
            last_layer_rate=RANDOM_HEAD if learner == "finetune" else 1.0,
            softening=SOFTENING if learner == "lp-ft" else 1.0,
        )
        run = trainer.fit(Progress(False))
        if learner == "lp-ft" and not run.best.number:  # the probe was better: it has all labels
            network.set_head(self.fit_probe(draw.rows))
        begin = time.perf_counter()
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
        return FinishedCell(cell, time.perf_counter() - begin, images.left_out)

    def fit_probe(self, rows: Rows) -> LinearHead:
        """Fit a calibrated logistic regression, as `embedpipe.fit` does, its penalty chosen inside these rows.

        Raises TrainingDataError if they are too few.
        """
        estimator = fit_calibrated_logreg(self.X[rows], self.split.classes[self.split.y[rows]])
        return _on_all(fold_estimator(estimator), self.split.classes)

    def _measure(self, logits_of: Judge) -> dict[str, Any]:
        """Return a cell's figures on the test rows and the shifted ones."""
        found: dict[str, Any] = {"shifted": {}, "shifted_correct": []}
        shares = []
        for view in self.views:
            logits, y = logits_of(view), self.split.y[view.rows]
            right = logits.argmax(axis=1) == y
            if view.name == CLEAN:
                found["accuracy"] = float(right.mean())
                found["log_loss"] = float(-log_softmax(logits, axis=1)[np.arange(len(y)), y].mean())
                found["correct"] = np.packbits(right).tobytes().hex()
            else:
                found["shifted"].setdefault(view.name, []).append(float(right.mean()))
                shares.append(right)
        if shares:
            found["shifted_correct"] = np.mean(shares, axis=0).round(6).tolist()
        return found

    def _vectors_of(self, view: View) -> npt.NDArray[np.float32]:
        """Return vectors of a view: stored ones, or of corrupted pictures the frozen network's, embedded once."""
        if not view.severity:
            return self.X[view.rows]
        if not view.vectors.exists():
            with written(view.vectors, (len(view.rows), self.X.shape[1]), np.float32) as vectors:
                start = 0
                for part in view.parts():
                    vectors[start : start + len(part)] = next(iter(self.frozen.forward(part).values()))
                    start += len(part)
        found: npt.NDArray[np.float32] = np.load(view.vectors)
        return found

    def _untrained(self) -> Mapping[str, Tensor]:
        """Return tensors of the same architecture with its own random weights; a user's function gives what it does."""
        spec = self.frozen.spec
        if spec.provider == "checkpoint":
            # Its architecture was trusted when the checkpoint was loaded.
            name, none = spec.name, "default" if spec.name.startswith("python:") else "none"
            options = BackboneOptions(backbone=name, weights=none, offline=self.reload.offline)
        elif spec.provider == "python":
            options = options_from_spec(spec, trust=True)
        else:
            options = options_from_spec(spec, "none", trust=self.reload.trust)
            options = dataclasses.replace(options, offline=self.reload.offline)
        return load_with_options(options, "cpu").network.module.state_dict()


def redraw(module: nn.Module, untrained: Mapping[str, Tensor], seed: int) -> None:
    """Give a network random weights: for each parameter the architecture's own, in a random order.

    Entries of a tensor are drawn alike and independently, so that their order is all that another seed changes, and
    each architecture keeps its own scheme; tensors of one value, such as zeros of biases, stay as they are. Statistics
    of batch-norms begin anew.

    Parameters
    ----------
    module : Module
        Is changed.
    untrained : mapping of str to Tensor
        The architecture's random weights, always the same; a parameter that is missing, or of another shape, is
        shuffled as it is.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            found = untrained.get(name)
            values = parameter.cpu() if found is None or found.shape != parameter.shape else found
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(values.flatten()[order].view(parameter.shape))
    for part in module.modules():
        if isinstance(part, BATCH_NORMS):
            part.reset_running_stats()


def _random_head(dim: int, classes: npt.NDArray[Any], seed: int) -> LinearHead:
    """Return a last layer as torch initialises it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layer = nn.Linear(dim, len(classes))
    return LinearHead(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy(), classes, unit=False)


def _on_all(linear: LinearHead, classes: npt.NDArray[Any]) -> LinearHead:
    """Return a head that has all classes; those that it has not seen are far below the others."""
    at = np.searchsorted(classes, linear.classes)
    weight = np.zeros((len(classes), linear.weight.shape[1]))
    bias = np.full(len(classes), linear.bias.min() - UNSEEN)
    weight[at], bias[at] = linear.weight, linear.bias
    return LinearHead(weight, bias, classes, linear.unit)


def _logits(network: ClassifierNetwork, view: View) -> Floats:
    network.eval()
    device = network.last.weight.device
    found: Sequence[Tensor] = []
    with torch.inference_mode():
        found = [network(torch.from_numpy(part).to(device)).float().cpu() for part in view.parts()]
    return np.asarray(torch.cat(list(found)).double().numpy())
