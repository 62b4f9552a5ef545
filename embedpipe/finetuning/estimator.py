"""`FineTunedClassifier`: images in, classes out, by a network that is trained whole, as a scikit-learn classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor

from embedpipe._utils.device import choose_device
from embedpipe._utils.progress import Progress
from embedpipe.backbones import BackboneSpec, load_with_options
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.network import ImageNetwork, StateDict, StoredWeights
from embedpipe.backbones.options import DEFAULT_BACKBONES, BackboneOptions
from embedpipe.backbones.registry import get_provider, split_name
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.embedding.transformer import items_of, refuse_items
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators import TemperatureCalibratedClassifier, TunedLogisticRegression
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.result import Epoch
from embedpipe.finetuning.run_folder import architecture
from embedpipe.finetuning.training.classifier_network import SOFTENED, ClassifierNetwork
from embedpipe.finetuning.training.images import ImageSet, Rows
from embedpipe.finetuning.training.linear_head import LinearHead, linear_of
from embedpipe.finetuning.training.trainer import Trainer
from embedpipe.heads import Head
from embedpipe.heads.scoring import FitReport
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.neighbours.near import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates
from embedpipe.sources import list_items
from embedpipe.sources.listing import Listing
from embedpipe.splits.grouped import fold_numbers

_TRAINING = FineTuneOptions()
#: What a pickle has of a network: its tensors, in the processor's memory, and its last layer.
Carried = tuple[StateDict, LinearHead]
#: Pictures that go through the network at a time where nothing is learned.
BATCH = 64


class FineTunedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify images by a network that begins as a frozen backbone with a linear head, and is then trained whole.

    The head is a calibrated logistic regression on the backbone's features (LP-FT: Kumar, Raghunathan, Jones, Ma and
    Liang, ICLR 2022). Some of the rows are held out, near-duplicates on one side, and the latest epoch that they do not
    tell from the best is kept, or the untrained network where that was better on them. Pickles carry the trained
    weights.

    Parameters
    ----------
    backbone, weights, arch
        As in `BackboneOptions`.
    epochs, batch_size, accumulate, optimizer, learning_rate, weight_decay, patience, freeze_until, lora, augment, seed
        As in `FineTuneOptions`; the seed also chooses the rows that are held out.
    validation_fraction : float
        Share of the rows that is held out: one row in 2, 3, 4..., whichever is nearest.
    near_duplicates : float or "off"
        Centred cosine of the frozen features from which rows are near-duplicates and stay on one side,
        or ``"off"``.
    device : str, optional
        Where to train and predict; the GPU if it works, else the processor.
    verbose : bool
        Show progress on standard error.

    Attributes
    ----------
    classes_ : array (n_classes,)
    epochs_ : list of Epoch
        The network before any training, and after each epoch.
    best_epoch_ : int
        Number of the epoch whose weights were kept: 0 where the probe was better on the held-out rows; then the head
        is fitted on all.
    spec_ : BackboneSpec
        Of the backbone that it began with.

    Examples
    --------
    >>> model = FineTunedClassifier(epochs=5).fit(paths, y)  # doctest: +SKIP
    >>> model.predict(new_paths)  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONES["image"],
        *,
        weights: str = "default",
        arch: str | None = None,
        epochs: int = _TRAINING.epochs,
        batch_size: int = _TRAINING.batch_size,
        accumulate: int = _TRAINING.accumulate,
        optimizer: str = _TRAINING.optimizer,
        learning_rate: float | None = _TRAINING.learning_rate,
        weight_decay: float = _TRAINING.weight_decay,
        patience: int = _TRAINING.patience,
        freeze_until: str | None = _TRAINING.freeze_until,
        lora: int | None = _TRAINING.lora,
        augment: str = _TRAINING.augment,
        validation_fraction: float = 0.2,
        near_duplicates: NearDuplicates = NEAR_DUPLICATE_COSINE,
        seed: int = _TRAINING.seed,
        device: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.arch = arch
        self.epochs = epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.freeze_until = freeze_until
        self.lora = lora
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.near_duplicates = near_duplicates
        self.seed = seed
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Embed the images, fit the head, and train.

        Parameters
        ----------
        X : sequence of n_samples paths, PIL images, uint8 arrays (h, w, 3) or encoded bytes
            Or a table or array with one such column.
        y : array (n_samples,)
            Strings, integers or booleans.

        Raises
        ------
        UsageError
            If a parameter is wrong, or images cannot be read or decoded; the message names them and says why.
        TrainingDataError
            If there is too little to learn from, or the loss is not finite.
        BackboneError
            If the network cannot be loaded or trained.
        """
        options = self._training_options()
        items, y = items_of(X), column_or_1d(y)
        if len(items) != len(y):
            raise UsageError(f"X has {len(items)} items and y has {len(y)} labels: give one label each")
        check_classification_targets(y)
        classes, position = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise TrainingDataError(
                f"all {len(y)} labels are {classes.tolist()[0]!r}: give images of two classes at least"
            )
        backbone = self._load()
        vectors = _through(items, backbone.network, lambda pixels: backbone.forward(pixels.numpy())["embedding"])
        train, validation = self._divide(vectors, position)

        def probe(rows: Rows) -> LinearHead:
            fitted = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(vectors[rows], position[rows])
            report = FitReport("classification", "none", len(rows))
            return linear_of(Head("logreg", fitted, backbone.spec, "y", "", "", 0, report))

        # torch's generator is the user's, and training seeds it.
        with torch.random.fork_rng([backbone.device] if backbone.device.type == "cuda" else []):
            network = ClassifierNetwork(backbone, probe(train), options.batch_norm, options.lora, options.seed)
            images = _image_set(_listed(items), backbone.network, options.seed)
            trainer = Trainer(network, images, position.astype(np.int64), train, validation, options, softened=SOFTENED)
            run = trainer.fit(Progress(self.verbose))
            if not run.best.number:
                network.put_head(probe(np.arange(len(y))))
        self.classes_ = classes
        self.spec_ = backbone.spec
        self.epochs_: list[Epoch] = run.epochs
        self.best_epoch_ = run.best.number
        self._trained: ClassifierNetwork | Carried = network
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the classes' probabilities of images, float64 (n_samples, n_classes).

        Raises
        ------
        UsageError
            If images cannot be read or decoded; the message names them and says why.
        """
        check_is_fitted(self, "classes_")
        if isinstance(self._trained, tuple):
            self._trained = _rebuilt(self.spec_, *self._trained, choose_device(self.device)[0])
        network = self._trained.eval()
        device = network.last.weight.device

        def logits(pixels: Tensor) -> npt.NDArray[np.float64]:
            with torch.inference_mode():
                values: npt.NDArray[np.float64] = network(pixels.to(device)).cpu().double().numpy()
            return values

        shares: npt.NDArray[np.float64] = softmax(_through(items_of(X), network.network, logits), axis=1)
        return shares

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable class of each image, (n_samples,); raises what `predict_proba` does."""
        most = self.predict_proba(X).argmax(axis=1)
        predicted: npt.NDArray[Any] = self.classes_[most]
        return predicted

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle carries."""
        state = dict(super().__getstate__())
        if isinstance(network := state.get("_trained"), ClassifierNetwork):
            tensors = network.network.module.state_dict()
            state["_trained"] = {name: tensor.cpu() for name, tensor in tensors.items()}, network.head(self.classes_)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def _training_options(self) -> FineTuneOptions:
        """Return the checked parameters of the training. Raises UsageError."""
        if not 0 < self.validation_fraction <= 0.5:
            raise UsageError(
                f"validation_fraction={self.validation_fraction} is not above 0 and up to 0.5: 0.2 is usual"
            )
        names = {field.name for field in dataclasses.fields(FineTuneOptions)}
        check_near_duplicates(self.near_duplicates)
        return FineTuneOptions(**{name: value for name, value in self.get_params().items() if name in names})

    def _load(self) -> ImageBackbone:
        options = BackboneOptions(backbone=self.backbone, weights=self.weights, arch=self.arch, modality="image")
        backbone = load_with_options(options, choose_device(self.device)[0])
        assert isinstance(backbone, ImageBackbone)
        return backbone

    def _divide(self, vectors: npt.NDArray[np.float32], y: Rows) -> tuple[Rows, Rows]:
        """Return the rows to train on, with all classes, and those held out: classes even, near-duplicates whole."""
        cosine = self.near_duplicates
        groups = np.arange(len(y)) if cosine == "off" else near_duplicate_groups(vectors, cosine)
        parts = round(1 / self.validation_fraction)
        held_out = fold_numbers(y, groups, parts, np.random.default_rng(self.seed)) == 0
        unknown = ~np.isin(y, y[~held_out])
        held_out &= ~np.isin(groups, groups[unknown])
        if not held_out.any():
            raise TrainingDataError(
                f"{len(y)} images are too few to train on and to stop by: give more, or join fewer near-duplicates "
                f"(near_duplicates={self.near_duplicates})"
            )
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _listed(items: list[Any]) -> Listing:
    return list_items(items, [f"{row:09d}" for row in range(len(items))])


def _image_set(listing: Listing, network: ImageNetwork, seed: int) -> ImageSet:
    ids, uris = (listing.table.column(name).to_pylist() for name in ("id", "uri"))
    return ImageSet(listing.read, ids, uris, network.preprocessing, seed)


def _through(items: list[Any], network: ImageNetwork, run: Callable[[Tensor], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return what ``run`` makes of pictures as the network sees them, (n, k). Raises UsageError unless all are good."""
    listing = _listed(items)
    images = _image_set(listing, network, seed=0)
    parts = [run(pixels) for _, pixels in images.batches(np.arange(len(items)), BATCH) if len(pixels)]
    refuse_items({row: failure.message for row, failure in sorted(images.failed.items())}, listing)
    values = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
    refuse_items(dict.fromkeys(bad, "the network gives values that are not finite"), listing)
    return values


def _rebuilt(spec: BackboneSpec, state: StateDict, head: LinearHead, device: torch.device) -> ClassifierNetwork:
    """Return the network that a pickle carried."""
    provider, name = split_name(architecture(spec))
    network = get_provider(provider).load(name, StoredWeights(state, "a pickle"), offline=True)
    assert isinstance(network, ImageNetwork)
    assert isinstance(spec.preprocessing, Preprocessing)
    network = dataclasses.replace(network, preprocessing=spec.preprocessing)
    network.module.eval().to(memory_format=torch.channels_last)
    return ClassifierNetwork(ImageBackbone(spec, network, device), head)
