"""The training loop: epochs over images or texts, selection of the epoch to keep, and exact resumption."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Advance, Progress
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.run_settings import require_same
from embedpipe.finetuning.training.base_trainer import MAX_GRADIENT_NORM, SAVE_SECONDS, BaseTrainer
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.distributed import Workers
from embedpipe.finetuning.training.epochs import Epoch, Run
from embedpipe.finetuning.training.items.batches import Batch, blank_batch
from embedpipe.finetuning.training.items.item_set import ItemSet, Rows
from embedpipe.finetuning.training.optimizer import make_optimizer, share_of_rate
from embedpipe.finetuning.training.state_file import load_state, save_state
from embedpipe.statistics.percentages import percent

#: Steps between two checks of the losses: to read a loss from a GPU is to wait for it.
LOSS_CHECK_STEPS = 16
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer(BaseTrainer):
    """Trains all weights together by the cross-entropy of the classes.

    Parameters
    ----------
    network, items, y, train, validation, options
        As of `BaseTrainer`, as are ``state`` (a file), ``settings`` and ``on_epoch``.
    last_layer_rate : float
        Learning rate of the last layer, as a multiple of the others'.
    softening : float
        Factor of the last layer before the first step.
    workers : Workers
        The processes that train together; each takes its share of every batch.
    """

    def __init__(
        self,
        network: ClassifierNetwork,
        items: ItemSet,
        y: npt.NDArray[np.int64],
        train: Rows,
        validation: Rows,
        options: FineTuneOptions,
        *,
        last_layer_rate: float = 1.0,
        softening: float = 1.0,
        workers: Workers | None = None,
        **common: Any,
    ) -> None:
        super().__init__(network, items, y, train, validation, options, **common)
        self.workers, self._softening, self._last_save = workers or Workers(), softening, time.monotonic()
        self._targets = torch.from_numpy(y)
        if options.batch_norm == "trained" and self.workers.count > 1:
            raise UsageError(
                f"{option('batch_norm')} must be 'frozen' if several processes train, got 'trained' and "
                f"{self.workers.count} "
                f"processes: each would use the statistics of its own {items.noun}"
            )
        self._model = self.workers.wrap(network)
        self._optimizer = make_optimizer(network, options, last_layer_rate)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._peak_rate = options.peak_rate(items.modality)
        self._rates = [group.get("lr_scale", 1.0) * self._peak_rate for group in self._optimizer.param_groups]
        self._per_epoch = math.ceil(len(train) / options.batch_size)
        self._losses: list[Tensor] = []

    def fit(self, progress: Progress) -> Run:
        """Train, or continue the run of the state file; see `BaseTrainer.fit`."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.options.seed + self.workers.index)  # each process draws its own dropout
            torch.set_flush_denormal(True)  # near a loss of 0 gradients are denormal, which is 10 times slower on a CPU
            try:
                run = super().fit(progress)
            finally:
                torch.set_flush_denormal(False)
        self.network.merge()
        return run

    def _train_epochs(self, progress: Progress) -> None:
        run = self.run
        if len(run.epochs) == 1 and not run.batches:
            self.network.soften(self._softening)
        done = (len(run.epochs) - 1) * self._per_epoch + run.batches
        with progress.step(
            "training", self.options.epochs * self._per_epoch, "batches", self._progress_text
        ) as advance:
            advance(done)
            while not run.finished:
                for count in self._batches():
                    advance(count)
                self._finish_epoch(run.loss / max(run.items, 1), run.items, run.seconds)
                self._say_epoch(progress)

    def _less_memory(self, batch: str) -> str:
        parts = counted(self.options.accumulate, "part")
        return f"{batch} in {parts}: split batches into more parts ({option('accumulate', ...)})"

    def _logits(self, rows: Rows, advance: Advance) -> tuple[Rows, npt.NDArray[np.float64]]:
        self.network.eval()
        size = math.ceil(self.options.batch_size / self.options.accumulate)  # a batch that memory holds in training too
        read_rows, logits = [np.empty(0, np.int64)], []
        with torch.inference_mode():
            for part, batch in self.items.batches(rows[self.workers.share], size):
                if len(part):
                    read_rows.append(part)
                    logits.append(self.network(batch.to(self.device)).float().cpu())
                advance(len(part) * self.workers.count)
        n_classes = self.network.last.out_features
        values = torch.cat(logits).double().numpy() if logits else np.empty((0, n_classes))
        shares = self.workers.gather((np.concatenate(read_rows), values))
        return np.concatenate([part for part, _ in shares]), np.concatenate([values for _, values in shares])

    def _batches(self) -> Iterator[int]:
        """Train the rest of an epoch, and yield 1 after each batch."""
        run, options = self.run, self.options
        number = len(run.epochs)
        order = np.random.default_rng([options.seed, number]).permutation(self._train)
        start = time.monotonic()
        before = run.seconds
        rest = order[run.batches * options.batch_size :]
        self.network.train()
        share = self.workers.share
        for rows, batch in self.items.batches(rest, options.batch_size, self.augmentation, number, share):
            items, saving = self.workers.total(torch.tensor([len(rows), self._save_is_due()])).tolist()
            if items > 1 or (items and self.network.batch_norm == "frozen"):  # one image has no batch statistics
                self._step((number - 1) * self._per_epoch + run.batches, items, rows, batch)
                run.items += items
            run.batches += 1
            run.seconds = before + time.monotonic() - start
            ended = run.batches == self._per_epoch
            if ended or saving or len(self._losses) == LOSS_CHECK_STEPS:
                self._check_losses()
            if saving and not ended:
                self._save()
            yield 1

    def _step(self, step: int, items: int, rows: Rows, batch: Batch) -> None:
        """Take one optimizer step on a batch of ``items``, of which ``rows`` are the share of this process."""
        share = share_of_rate(step, self.options.epochs * self._per_epoch, self.options.warmup)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        y, total = self._targets[rows], torch.zeros((), device=self.device)
        # All processes need the same number of parts, because they wait for one another.
        parts = min(self.options.accumulate, math.ceil(items / self.workers.count))
        self._optimizer.zero_grad(set_to_none=True)
        split: Sequence[Batch] = batch.tensor_split(parts)
        pieces = zip(split, y.tensor_split(parts), strict=True)
        for number, (part, classes) in enumerate(pieces, start=1):
            has_items = len(part) > 0
            if not has_items:
                part, classes = blank_batch(self.network.network), torch.zeros(1, dtype=y.dtype)
            with self._defer_sync(number < parts):
                with torch.autocast(self.device.type, PRECISIONS.get(self.precision), self.precision != "fp32"):
                    logits = self._model(part.to(self.device, non_blocking=True))
                loss = cross_entropy(logits.float(), classes.to(self.device), reduction="sum") * has_items
                # DistributedDataParallel averages gradients over the processes.
                torch.autograd.backward(self._scaler.scale(loss / items * self.workers.count))
            total += loss.detach()
        self._losses.append(total)
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_([p for _, p in self.network.trainable()], MAX_GRADIENT_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _defer_sync(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Exchange gradients between processes only after the last part of a batch."""
        if more and isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return contextlib.nullcontext()

    def _check_losses(self) -> None:
        """Add the losses of the latest steps to the epoch's. Raises TrainingDataError if one is not finite."""
        if not self._losses:
            return
        for loss in self.workers.total(torch.stack(self._losses)).tolist():
            if not math.isfinite(loss):
                raise TrainingDataError(
                    f"the loss must be finite, got {loss} in epoch {len(self.run.epochs)}: use a smaller learning rate "
                    f"({option('learning_rate', float(f'{self._peak_rate / 10:g}'))}) or "
                    f"{option('train_precision', 'fp32')}"
                )
            self.run.loss += loss
        self._losses.clear()

    def _keep_state(self) -> None:
        if self.run.finished or self.workers.total(torch.tensor([self._save_is_due()])).item():
            self._save()

    def _progress_text(self) -> str:
        best = self.run.best
        return f"kept so far: epoch {best.number}, {percent(best.validation_accuracy)}"

    def _save_is_due(self) -> int:
        """Return 1 in the first process if it is time to save; all processes then do."""
        return int(self.workers.first and time.monotonic() - self._last_save > SAVE_SECONDS)

    def _save(self) -> None:
        self._last_save = time.monotonic()
        if self._state is None:
            return
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        random = self.workers.gather(generators)
        if not self.workers.first:
            return
        state = {
            "settings": self._settings,
            "run": asdict(self.run),
            "network": self.network.state_dict(),
            "candidate_weights": self._candidate_weights,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": random,
        }
        save_state(state, self._state)

    def _resume(self) -> None:
        if self._state is None or not self._state.exists():
            return
        state = load_state(self._state)
        remedy = f"continue it with the same, give another folder ({option('to', ...)}), or delete it"
        require_same(state["settings"], self._settings, f"the run in {str(self._state.parent)!r}", remedy)
        if len(state["random"]) != self.workers.count:
            raise UsageError(
                f"the run in {str(self._state.parent)!r} must continue with its {len(state['random'])} processes, "
                f"got {self.workers.count}: launch as many, or give another folder ({option('to', ...)})"
            )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._candidate_weights = state["candidate_weights"]
        generators = state["random"][self.workers.index]
        torch.set_rng_state(generators["cpu"])
        if self.device.type == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], self.device)
        epochs = [Epoch(**epoch) for epoch in state["run"].pop("epochs")]
        self.run = Run(epochs=epochs, **state["run"])
