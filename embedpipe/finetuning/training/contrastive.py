"""`ContrastiveTrainer`: texts of a class are brought together, then a head is fitted on their new vectors (SetFit)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.checksums import file_sha256
from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Advance, Progress, uncounted
from embedpipe.backbones.network import TextNetwork
from embedpipe.backbones.providers.hugging_face.library import quiet
from embedpipe.backbones.spec import FEATURES, BackboneSpec
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.run_settings import require_same
from embedpipe.finetuning.training.base_trainer import MAX_GRADIENT_NORM, SAVE_SECONDS, BaseTrainer
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.epochs import Epoch, Run
from embedpipe.finetuning.training.items.batches import Batch
from embedpipe.finetuning.training.items.item_set import ItemSet, Rows
from embedpipe.finetuning.training.items.text_set import TextSet
from embedpipe.finetuning.training.state_file import load_state, save_state
from embedpipe.heads.conversion.linear_head import LinearHead

Vectors = npt.NDArray[np.float32]
#: From the vectors of rows and their positions to a head.
FitHead = Callable[[Vectors, Rows], LinearHead]
#: File beside those of the library in a checkpoint, written last.
RUN = "run.pt"
KEYS = {"settings", "run", "candidate_weights", "files"}
PROVIDER = "sentence-transformers"
#: By how much two texts of a class are to be nearer than texts of two classes, in cosine; SetFit's default.
MARGIN = 0.25


def require_contrastive(spec: BackboneSpec, options: FineTuneOptions, holder: str) -> None:
    """Raise UsageError if a backbone cannot be trained contrastively, or not with these options."""
    name = "contrastive training"
    if spec.provider != PROVIDER:
        raise UsageError(
            f"{name} is for text encoders of {PROVIDER}/, and {holder} is of {spec.provider}/{spec.name}: leave it out"
        )
    if [layer.name for layer in spec.layers] != [FEATURES]:
        raise UsageError(
            f"{name} needs the layer {FEATURES!r}, and the head is on "
            f"{', '.join(repr(layer.name) for layer in spec.layers)}: give a head on {FEATURES!r}, or none"
        )
    for each, usual in (("optimizer", "adamw"), ("layer_decay", None), ("lora", None), ("accumulate", 1)):
        if (value := getattr(options, each)) != usual:
            raise UsageError(f"{option(each, value)} does not apply to {name}: leave it out")
    if options.batch_size < 4 or options.batch_size % 2:
        raise UsageError(f"{option('batch_size')} must be even and >= 4 with {name}, got {options.batch_size}")


class ContrastiveTrainer(BaseTrainer):
    """Trains a text encoder so that texts of one class get similar vectors, then fits a head on these.

    SetFit's way (Tunstall et al., "Efficient few-shot learning without prompts", 2022) with the trainer of
    sentence-transformers and its loss of all triplets in a batch: two texts of a class and one of another (Hermans,
    Beyer and Leibe, 2017). Pairs of texts, SetFit's default, take four passes of a text where a triplet loss takes
    one. In a batch the classes take turns with two texts each; what is left of a frequent class waits for another
    epoch. After each epoch a head is fitted on the training rows and measured on the validation rows. In the end one is
    fitted on both, on the vectors of the best epoch.

    Parameters
    ----------
    network : ClassifierNetwork
        Of a sentence-transformers encoder, with a head of the training rows; is trained in place.
    items, y, train, validation, options
        As of `BaseTrainer`, as are ``state`` (a folder for the library's checkpoints), ``settings`` and ``on_epoch``.
    fit_head : callable
        ``fit_head(vectors, rows)`` returns a head that is fitted on the vectors of these rows.
    """

    def __init__(
        self,
        network: ClassifierNetwork,
        items: ItemSet,
        y: npt.NDArray[np.int64],
        train: Rows,
        validation: Rows,
        options: FineTuneOptions,
        fit_head: FitHead,
        **common: Any,
    ) -> None:
        assert isinstance(items, TextSet)  # see `require_contrastive`
        super().__init__(network, items, y, train, validation, options, **common)
        self._texts, self._fit_head = items, fit_head
        self._checkpoint: Path | None = None
        if self.device.type == "cuda" and self.device.index:
            raise UsageError(
                f"contrastive training needs the first GPU, got {self.device}: choose it with CUDA_VISIBLE_DEVICES"
            )

    def fit(self, progress: Progress) -> Run:
        """Train, or continue from the last checkpoint; see `BaseTrainer.fit`.

        Raises
        ------
        TrainingDataError
            Also if less than two classes have two training texts.
        """
        run = super().fit(progress)
        if run.best.number:
            rows, vectors = self._vectors(np.sort(np.concatenate([self._train, self._validation])))
            self.network.set_head(self._fit_head(vectors, rows))
        return run

    def _train_epochs(self, progress: Progress) -> None:
        with _generators_kept(self.device), quiet():
            self._train_encoder(progress)

    def _less_memory(self, batch: str) -> str:
        return f"{batch}: give a smaller {option('batch_size')}"

    def _logits(self, rows: Rows, advance: Advance) -> tuple[Rows, npt.NDArray[np.float64]]:
        read, values = self._apply(self.network, rows, advance)
        return read, values.double().numpy()

    def _vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        read, values = self._apply(self.network.vectors, rows)
        return read, values.numpy()

    def _apply(self, run: Callable[[Batch], Tensor], rows: Rows, advance: Advance = uncounted) -> tuple[Rows, Tensor]:
        self.network.eval()
        parts, values = [], []
        with torch.inference_mode():
            for part, batch in self.items.batches(rows, self.options.batch_size):
                if len(part):
                    parts.append(part)
                    values.append(run(batch.to(self.device)).float().cpu())
                advance(len(part))
        if not parts:
            self.items.require(0, len(rows), "training or validation")
        return np.concatenate(parts), torch.cat(values)

    @property
    def saves(self) -> bool:
        """Whether checkpoints are written."""
        return self._state is not None

    def add_loss(self, loss: float) -> None:
        """Add the loss of a batch. Raises TrainingDataError if it is not finite."""
        run = self.run
        if not math.isfinite(loss):
            smaller = float(f"{self.options.peak_rate('text') / 10:g}")
            raise TrainingDataError(
                f"the loss must be finite, got {loss} in epoch {len(run.epochs)}: use a smaller learning rate "
                f"({option('learning_rate', smaller)})"
            )
        run.batches, run.loss = run.batches + 1, run.loss + loss

    def finish_epoch(self, seconds: float, progress: Progress) -> None:
        """Fit a head on the training rows, and measure it on the validation rows."""
        start, run = time.monotonic(), self.run
        rows, vectors = self._vectors(self._train)
        self.network.set_head(self._fit_head(vectors, rows))
        self._finish_epoch(run.loss / max(run.batches, 1), len(rows), seconds + time.monotonic() - start)
        self._say_epoch(progress)

    def _train_encoder(self, progress: Progress) -> None:
        """Run the trainer of sentence-transformers from the checkpoint on, or from the beginning."""
        library, losses, transformers = (
            import_extra(name, "text")
            for name in ("sentence_transformers", "sentence_transformers.sentence_transformer.losses", "transformers")
        )
        import_extra("accelerate", "finetune")
        model: Any = self.network.network.module
        model.model_card_data.local_files_only = True  # the README of a checkpoint would ask the hub about the model
        arguments = library.SentenceTransformerTrainingArguments(**self._arguments())
        arguments._n_gpu = min(arguments.n_gpu, 1)  # it would take all GPUs
        distance = losses.BatchHardTripletLossDistanceFunction.cosine_distance

        class WithoutModelCard(library.SentenceTransformerTrainer):  # type: ignore[misc, name-defined]
            def add_model_card_callback(self, *_: Any) -> None:
                """Skip what would embed texts for examples in a README."""

        trainer = WithoutModelCard(
            model, arguments, self._labelled_texts(), loss=losses.BatchAllTripletLoss(model, distance, MARGIN)
        )
        trainer.remove_callback(transformers.PrinterCallback)
        per_epoch = len(trainer.get_train_dataloader())
        with progress.step("training", self.options.epochs * per_epoch, "batches") as advance:
            advance(per_epoch * (len(self.run.epochs) - 1))
            trainer.add_callback(_watcher(self, transformers.TrainerCallback, advance, progress))
            trainer.train(resume_from_checkpoint=None if self._checkpoint is None else str(self._checkpoint))

    def _arguments(self) -> dict[str, Any]:
        options, network, cpu = self.options, self.network.network, self.device.type == "cpu"
        assert isinstance(network, TextNetwork)
        return {
            "output_dir": "." if self._state is None else str(self._state),  # nothing is written without a state
            "num_train_epochs": options.epochs,
            "per_device_train_batch_size": options.batch_size,
            "batch_sampler": "group_by_label",
            "learning_rate": options.peak_rate("text"),
            "weight_decay": options.weight_decay,
            "warmup_steps": options.warmup,
            "max_grad_norm": MAX_GRADIENT_NORM,
            "prompts": network.preprocessing.prompt or None,
            "bf16": self.precision == "bf16",
            "fp16": self.precision == "fp16",
            "seed": options.seed,
            "save_strategy": "no",  # the callback says when
            "save_total_limit": 2,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": cpu,
            "dataloader_pin_memory": not cpu,
        }

    def _labelled_texts(self) -> Any:
        """Return the training texts as a Dataset."""
        datasets = import_extra("datasets", "finetune")
        texts = self._texts.texts(self._train)
        labels = self._y[np.array([*texts], np.int64)]
        if (np.bincount(labels) >= 2).sum() < 2:
            raise TrainingDataError(
                "contrastive training needs two classes with two training texts or more, got "
                f"{len(labels)} training texts of {len(np.unique(labels))} classes: label more"
            )
        return datasets.Dataset.from_dict({"text": [*texts.values()], "label": labels})

    def _resume(self) -> None:
        """Find the latest whole checkpoint, and read its run."""
        places = [] if self._state is None else self._state.glob(f"checkpoint-*/{RUN}")
        numbered = [file for file in places if file.parent.name.rpartition("-")[2].isdecimal()]
        files = sorted(numbered, key=lambda file: int(file.parent.name.rpartition("-")[2]))
        if not files:
            return
        state = load_state(files[-1], KEYS)
        remedy = f"continue it with the same, give another folder ({option('to', ...)}), or delete it"
        require_same(state["settings"], self._settings, f"the run in {str(self._state)!r}", remedy)
        if _hashes(files[-1].parent) != state["files"]:
            raise UsageError(
                f"the checkpoint {str(files[-1].parent)!r} is damaged, as its files do not have their checksums: "
                "delete it to start again from an earlier one, or from the beginning"
            )
        self._candidate_weights = state["candidate_weights"]
        epochs = [Epoch(**epoch) for epoch in state["run"].pop("epochs")]
        self.run = Run(epochs=epochs, **state["run"])
        self._checkpoint = files[-1].parent

    def save_run(self, folder: Path) -> None:
        """Write what the library's checkpoint lacks into its folder; a checkpoint without this is not whole."""
        run = dataclasses.asdict(self.run)
        state = {"settings": self._settings, "run": run, "candidate_weights": self._candidate_weights}
        save_state({**state, "files": _hashes(folder)}, folder / RUN)


def _watcher(trainer: ContrastiveTrainer, base: Any, advance: Advance, progress: Progress) -> Any:
    """Return the callback that measures the network after each epoch, and says when to save a checkpoint."""

    class Watcher(base):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.saved = self.started = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:  # not the summary at the end
                advance(1)
                trainer.add_loss(logs["loss"])

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.finish_epoch(time.monotonic() - self.started, progress)
            control.should_training_stop = trainer.run.finished
            self.started = time.monotonic()
            if trainer.saves and not trainer.run.finished and self.started - self.saved > SAVE_SECONDS:
                control.should_save, self.saved = True, self.started

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.save_run(Path(args.output_dir, f"checkpoint-{state.global_step}"))

    return Watcher()


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the library in a checkpoint."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RUN]
    # Hidden files are those that a killed process was writing.
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files if path.name[0] != "."}


@contextlib.contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Restore the global generators, which the library's trainer seeds."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
