"""Training: epochs over augmented pictures, which of them is kept, and exact resumption after a kill."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from embedpipe._utils.progress import Progress
from embedpipe.errors import BackboneError, TrainingDataError, UsageError
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.result import Epoch
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.distributed import Workers
from embedpipe.finetuning.training.images import ImageSet, Rows
from embedpipe.finetuning.training.optimizer import make_optimizer, share_of_rate
from embedpipe.finetuning.training.resume import load_state, save_state

OnEpoch = Callable[[Sequence[Epoch]], None]
#: Seconds between two states on disk within an epoch: what a kill costs at most, and resuming.
SAVE_SECONDS = 60.0
#: Steps after which losses are looked at: to read one from a GPU is to wait for it.
LOOK = 16
#: Norm to which longer gradients are cut.
LONGEST_GRADIENT = 1.0
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Run:
    """How far a run has come.

    Attributes
    ----------
    epochs : list of Epoch
        Those that are done.
    settled : int
        Number of the latest epoch that the validation rows do not tell from the best.
    batches : int
        Done of the epoch that is under way, with ``loss`` the sum over its ``images``, in ``seconds``.
    finished : bool
        Whether all epochs are done, or it stopped early.
    """

    epochs: list[Epoch] = field(default_factory=list)
    settled: int = 0
    batches: int = 0
    loss: float = 0.0
    images: int = 0
    seconds: float = 0.0
    finished: bool = False

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept: the settled one, or that before training where this was better."""
        settled = self.epochs[self.settled]
        return settled if settled.accuracy >= self.epochs[0].accuracy else self.epochs[0]

    def add(self, epoch: Epoch, rows: int) -> None:
        """Count an epoch, measured on so many validation rows.

        They do not tell it from the best where its accuracy is below the highest by no more than the standard error of
        such a difference. The latest of those is taken, as the learning rate has come down by then, and it alone is
        held against the network before training: the luckiest of several would beat that by chance.
        """
        self.epochs.append(epoch)
        highest = max(one.accuracy for one in self.epochs)
        if epoch.accuracy >= highest - math.sqrt(2 * highest * (1 - highest) / rows):
            self.settled = epoch.number


class Trainer:
    """Trains a network on some rows, and chooses which weights to keep by others.

    Parameters
    ----------
    network : ClassifierNetwork
        Is changed; has the weights that were kept in the end.
    images : ImageSet
    y : int64 array (n_samples,)
        Class numbers of all rows.
    train, validation : int64 array
    options : FineTuneOptions
    state : path, optional
        A file of this run, from which it goes on if it is there.
    key : str
        What makes the run what it is: a state of another one is refused.
    last_rate : float
        Learning rate of the last layer, as a multiple of the others'.
    softened : float
        What the last layer is multiplied by before the first step.
    workers : Workers
        Those that train it together: each takes its share of every batch.
    on_epoch : callable, optional
        Is given all epochs so far, after each of them.
    """

    def __init__(
        self,
        network: ClassifierNetwork,
        images: ImageSet,
        y: npt.NDArray[np.int64],
        train: Rows,
        validation: Rows,
        options: FineTuneOptions,
        *,
        state: Path | None = None,
        key: str = "",
        last_rate: float = 1.0,
        softened: float = 1.0,
        workers: Workers | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.network, self.images, self.options = network, images, options
        self.workers, self._on_epoch, self._softened = workers or Workers(), on_epoch, softened
        self._y, self._train, self._validation = torch.from_numpy(y), train, validation
        self._state, self._key = state, key
        self.device = network.last.weight.device
        self.augmentation = options.augmentation(len(train))
        self.precision = options.train_precision or _usual_precision(self.device)
        if options.freeze_until is not None:
            network.freeze_before(options.freeze_until)
        if options.batch_norm == "trained" and self.workers.count > 1:
            raise UsageError(
                "batch_norm='trained' takes the statistics of one process's pictures: train in one process, or leave "
                "them frozen"
            )
        self._model = self.workers.together(network)
        self._optimizer = make_optimizer(network, options, last_rate)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._rates = [group.get("lr_scale", 1.0) * options.peak_rate for group in self._optimizer.param_groups]
        self._per_epoch = math.ceil(len(train) / options.batch_size)
        self._losses: list[Tensor] = []
        self._settled: dict[str, Tensor] = {}
        self.last_state: dict[str, Tensor] = {}
        self.run = Run()

    def fit(self, progress: Progress) -> Run:
        """Train, from where the run stands.

        Raises
        ------
        TrainingDataError
            If no training or validation picture can be read, or the loss is not finite.
        UsageError
            If the state is that of another run.
        BackboneError
            If the device has too little memory.
        """
        torch.manual_seed(self.options.seed + self.workers.index)  # dropout is each one's own
        torch.set_flush_denormal(True)  # near a loss of 0 gradients are such numbers, ten times as slow on a processor
        before = self._weights()
        self._resume()
        run, options = self.run, self.options
        try:
            if not run.epochs:
                self._finish_epoch(None)
            elif self._on_epoch is not None:
                self._on_epoch(run.epochs)
            if len(run.epochs) == 1 and not run.batches:
                self.network.soften(self._softened)
            total = options.epochs * self._per_epoch
            done = (len(run.epochs) - 1) * self._per_epoch + run.batches
            with progress.step("training", total, "batches", self._said) as advance:
                advance(done)
                while not run.finished:
                    for count in self._batches():
                        advance(count)
                    self._finish_epoch(run.loss / max(run.images, 1))
                    last = run.epochs[-1]
                    progress.say(
                        f"epoch {last.number} of {options.epochs}: loss {last.training_loss:.4f}, validation accuracy "
                        f"{last.accuracy:.2%}, log-loss {last.log_loss:.4f}{' (kept)' * (run.best is last)}"
                    )
        except torch.OutOfMemoryError as error:
            raise BackboneError(
                f"{self.device} has too little memory for {options.batch_size} images in {options.accumulate} "
                f"part{'s' * (options.accumulate > 1)}: cut batches into more parts (--accumulate)"
            ) from error
        finally:
            torch.set_flush_denormal(False)
        self.last_state = self.network.backbone_state()
        self.network.load_state_dict(self._settled if run.best.number else before)
        self.network.merge()
        return run

    def logits(self, rows: Rows) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return the rows whose pictures can be read, and the network's logits for them, (n, n_classes)."""
        self.network.eval()
        size = self.options.batch_size
        kept, found = [np.empty(0, np.int64)], []
        with torch.inference_mode():
            for part, pixels in self.images.batches(rows[self.workers.share], size):
                if len(part):
                    kept.append(part)
                    found.append(self.network(pixels.to(self.device)).float().cpu())
        n_classes = self.network.last.out_features
        values = torch.cat(found).double().numpy() if found else np.empty((0, n_classes))
        shares = self.workers.gathered((np.concatenate(kept), values))
        return np.concatenate([part for part, _ in shares]), np.concatenate([values for _, values in shares])

    def _batches(self) -> Iterator[int]:
        """Train the rest of an epoch, and yield after each batch."""
        run, options = self.run, self.options
        number = len(run.epochs)
        order = np.random.default_rng([options.seed, number]).permutation(self._train)
        saved = start = time.monotonic()
        before = run.seconds
        rest = order[run.batches * options.batch_size :]
        self.network.train()
        share = self.workers.share
        for rows, pixels in self.images.batches(rest, options.batch_size, self.augmentation, number, share):
            late = self.workers.first and time.monotonic() - saved > SAVE_SECONDS
            images, saving = self.workers.total(torch.tensor([len(rows), late])).tolist()
            if images > 1 or (images and self.network.batch_norm == "frozen"):  # of one there are no statistics
                self._step((number - 1) * self._per_epoch + run.batches, images, rows, pixels)
                run.images += images
            run.batches += 1
            run.seconds = before + time.monotonic() - start
            ended = run.batches == self._per_epoch
            if ended or saving or len(self._losses) == LOOK:
                self._look()
            if saving and not ended:
                self._save()
                saved = time.monotonic()
            yield 1

    def _step(self, step: int, images: int, rows: Rows, pixels: Tensor) -> None:
        """Take one step of the optimizer, by so many pictures, of which these are this process's."""
        share = share_of_rate(step, self.options.epochs * self._per_epoch, self.options.warmup)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        y, total = self._y[rows], torch.zeros((), device=self.device)
        # As many parts in each process, as they wait for one another.
        parts = min(self.options.accumulate, math.ceil(images / self.workers.count))
        self._optimizer.zero_grad(set_to_none=True)
        split = zip(pixels.tensor_split(parts), y.tensor_split(parts), strict=True)
        for number, (part, classes) in enumerate(split, start=1):
            counted = len(part) > 0
            if not counted:
                part, classes = torch.zeros((1, *part.shape[1:]), dtype=part.dtype), torch.zeros(1, dtype=y.dtype)
            with self._apart(number < parts):
                with torch.autocast(self.device.type, PRECISIONS.get(self.precision), self.precision != "fp32"):
                    logits = self._model(part.to(self.device, non_blocking=True))
                loss = cross_entropy(logits.float(), classes.to(self.device), reduction="sum") * counted
                # Gradients become means over the processes.
                torch.autograd.backward(self._scaler.scale(loss / images * self.workers.count))
            total += loss.detach()
        self._losses.append(total)
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_([p for _, p in self.network.trained()], LONGEST_GRADIENT)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _apart(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Let processes exchange gradients after the last part of a batch only."""
        if more and isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return contextlib.nullcontext()

    def _look(self) -> None:
        """Add up the losses of the latest steps. Raises TrainingDataError if one is not finite."""
        if not self._losses:
            return
        for loss in self.workers.total(torch.stack(self._losses)).tolist():
            if not math.isfinite(loss):
                raise TrainingDataError(
                    f"the loss became {loss} in epoch {len(self.run.epochs)}: train with a smaller learning rate "
                    f"(--learning-rate {self.options.peak_rate / 10:g}) or in fp32 (--train-precision fp32)"
                )
            self.run.loss += loss
        self._losses.clear()

    def _finish_epoch(self, training_loss: float | None) -> None:
        """Measure on the validation rows, keep the best weights, and save."""
        run, start = self.run, time.monotonic()
        rows, logits = self.logits(self._validation)
        self.images.require(len(rows), len(self._validation), "validation")
        if run.epochs:
            self.images.require(run.images, len(self._train), "training")
        y = self._y[rows]
        accuracy = float((logits.argmax(axis=1) == y.numpy()).mean())
        loss = float(cross_entropy(torch.from_numpy(logits), y))
        seconds = run.seconds + time.monotonic() - start
        epoch = Epoch(len(run.epochs), training_loss, accuracy, loss, run.images, seconds)
        run.add(epoch, len(rows))
        run.batches, run.loss, run.images, run.seconds = 0, 0.0, 0, 0.0
        if run.settled == epoch.number > 0:  # those before training are kept apart
            self._settled = self._weights()
        late = epoch.number - run.settled >= self.options.patience
        run.finished = late or epoch.number >= self.options.epochs
        self._save()
        if self._on_epoch is not None:
            self._on_epoch(run.epochs)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _said(self) -> str:
        best = self.run.best
        return f"kept: {best.accuracy:.2%} after epoch {best.number}"

    def _save(self) -> None:
        if self._state is None:
            return
        own = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.device)
        random = self.workers.gathered(own)
        if not self.workers.first:
            return
        state = {
            "key": self._key,
            "run": asdict(self.run),
            "network": self.network.state_dict(),
            "settled": self._settled,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": random,
        }
        save_state(state, self._state)

    def _resume(self) -> None:
        if self._state is None or not self._state.exists():
            return
        state = load_state(self._state)
        if state["key"] != self._key:
            raise UsageError(
                f"{str(self._state.parent)!r} holds a run of other data or options: name another folder (--to), "
                "or delete it"
            )
        if len(state["random"]) != self.workers.count:
            raise UsageError(
                f"{str(self._state.parent)!r} holds a run of {len(state['random'])} processes, and this is one of "
                f"{self.workers.count}: launch as many, or name another folder (--to)"
            )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._settled = state["settled"]
        own = state["random"][self.workers.index]
        torch.set_rng_state(own["cpu"])
        if self.device.type == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], self.device)
        epochs = [Epoch(**epoch) for epoch in state["run"].pop("epochs")]
        self.run = Run(epochs=epochs, **state["run"])


def _usual_precision(device: torch.device) -> str:
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
