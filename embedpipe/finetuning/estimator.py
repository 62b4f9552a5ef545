"""`FineTunedClassifier`: a scikit-learn classifier of images or texts that fine-tunes a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from embedpipe._utils.device import choose_device
from embedpipe._utils.options import build_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones import BackboneSpec, load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.load import with_pooling
from embedpipe.backbones.network import ImageNetwork, StateDict, StoredWeights, TextNetwork
from embedpipe.backbones.options import DEFAULT_BACKBONES, BackboneOptions
from embedpipe.backbones.registry import get_provider, split_name
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.embedding.transformer import items_of, refuse_items
from embedpipe.errors import BackboneError, TrainingDataError, UsageError, require_one_of
from embedpipe.estimators import TemperatureCalibratedClassifier, TunedLogisticRegression
from embedpipe.estimators.targets import check_no_label_missing
from embedpipe.finetuning.options import FineTuneOptions, Method
from embedpipe.finetuning.run_folder import architecture, is_hugging_face
from embedpipe.finetuning.source import make_item_set, require_trainable
from embedpipe.finetuning.training.base_trainer import BaseTrainer
from embedpipe.finetuning.training.classifier_network import SOFTENING, ClassifierNetwork
from embedpipe.finetuning.training.contrastive import ContrastiveTrainer, require_contrastive
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.finetuning.training.items.batches import Batch, embed_batch
from embedpipe.finetuning.training.items.item_set import ItemSet, Rows
from embedpipe.finetuning.training.trainer import Trainer
from embedpipe.heads.conversion.linear_head import LinearHead, fold_estimator
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates
from embedpipe.sources import list_items
from embedpipe.sources.listing import Listing
from embedpipe.sources.options import modality_of
from embedpipe.splits.grouped import fold_numbers

_TRAINING = FineTuneOptions()
#: What a pickle holds of the network: its tensors, on the CPU, and its last layer.
PickledNetwork = tuple[StateDict, LinearHead]


class FineTunedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier of images or texts that fine-tunes a network, starting from a linear head on its features (LP-FT).

    The head is a calibrated logistic regression on the features of the frozen backbone; then all weights are trained
    (Kumar, Raghunathan, Jones, Ma and Liang, ICLR 2022). A part of the rows is held out for validation, with
    near-duplicates on the same side. The weights of the latest epoch whose validation accuracy is within one standard
    error of the best are kept, or those of the linear probe if it is more accurate, or as accurate and has a lower
    log-loss. Pickles hold the trained weights; to load one of a network of Hugging Face needs its configuration, from
    the same folder, package or cache.

    Parameters
    ----------
    backbone, weights, arch, image_size, pooling
        As in `BackboneOptions`; the pooling is that of the features.
    method : str
        ``lp-ft``, or ``contrastive`` for text encoders of ``sentence-transformers/`` and few labels: texts of a class
        are brought together, and the head is fitted on their new vectors.
    epochs, batch_size, accumulate, optimizer, learning_rate, weight_decay, patience, freeze_until, lora, augment, seed
        As in `FineTuneOptions`; the seed also chooses the validation rows.
    validation_fraction : float
        Share of the rows held out for validation, above 0 and up to 0.5; rounded to one row in 2, 3, 4, ...
    near_duplicates : float or "off"
        Centred cosine of the frozen features from which rows are near-duplicates and stay on the same side, or
        ``"off"``.
    device : str, optional
        Where to train and predict; by default the GPU if it works, else the CPU.
    verbose : bool
        Show progress on standard error.

    Attributes
    ----------
    classes_ : array (n_classes,)
    epochs_ : list of Epoch
        From epoch 0, the network before training, on.
    best_epoch_ : int
        Number of the epoch whose weights were kept; 0 if the linear probe was better on the validation rows. The probe
        is then fitted on all rows.
    spec_ : BackboneSpec
        The backbone before training.

    See Also
    --------
    embedpipe.finetune : The same training for a feature store; its runs can be resumed.

    Examples
    --------
    >>> y = ["dark", "bright"] * 10
    >>> X = [np.full((32, 32, 3), 40 if name == "dark" else 200, np.uint8) for name in y]
    >>> model = FineTunedClassifier("timm/test_resnet", weights="none", epochs=1, near_duplicates="off")
    >>> model.fit(X, y).predict(X[:2])
    array(['dark', 'bright'], dtype='<U6')
    """

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONES["image"],
        *,
        weights: str = "default",
        arch: str | None = None,
        image_size: int | None = None,
        pooling: str | None = None,
        method: str = "lp-ft",
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
        self.image_size = image_size
        self.pooling = pooling
        self.method = method
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
        """Embed the items, fit the linear head, and fine-tune the network.

        Parameters
        ----------
        X : sequence of n_samples paths, PIL images, uint8 arrays (h, w, 3) or encoded bytes
            For a backbone of texts, strings. Or a table or array with one column of these.
        y : array (n_samples,)
            Strings, integers or booleans.

        Raises
        ------
        UsageError
            If a parameter is wrong, or items cannot be read or decoded; the message names them and the reasons.
        TrainingDataError
            If there are too few labels, or the loss is not finite.
        BackboneError
            If the network cannot be loaded or trained.
        """
        options = self._training_options()
        check_no_label_missing(y)
        items, y = items_of(X), column_or_1d(y)
        if len(items) != len(y):
            raise UsageError(f"X and y must have the same length, got {len(items)} items and {len(y)} labels")
        check_classification_targets(y)
        classes, position = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise TrainingDataError(
                f"y must have two classes or more, got {len(y)} labels that are all {classes.tolist()[0]!r}"
            )
        backbone = self._load()
        if self.method == "contrastive":
            require_contrastive(backbone.spec, options, "the backbone")
        vectors = self._run(items, backbone, lambda batch: embed_batch(backbone, batch)["embedding"])
        train, validation = self._split(vectors, position)

        def fit_head(X: npt.NDArray[np.float32], rows: Rows) -> LinearHead:
            logreg = TemperatureCalibratedClassifier(TunedLogisticRegression())
            return fold_estimator(logreg.fit(X, position[rows]))

        def fit_probe(rows: Rows) -> LinearHead:
            return fit_head(vectors[rows], rows)

        network = ClassifierNetwork(backbone, fit_probe(train), options.batch_norm, options.lora, options.seed)
        item_set = _item_set(_list_items(items, backbone), backbone, options.seed)
        data = item_set, position.astype(np.int64), train, validation, options
        trainer: BaseTrainer
        if self.method == "contrastive":
            trainer = ContrastiveTrainer(network, *data, fit_head)
        else:
            trainer = Trainer(network, *data, softening=SOFTENING)
        run = trainer.fit(Progress(self.verbose))
        if not run.best.number:
            network.set_head(fit_probe(np.arange(len(y))))
        self.classes_ = classes
        self.spec_ = backbone.spec
        self.epochs_: list[Epoch] = run.epochs
        self.best_epoch_ = run.best.number
        self._trained: ClassifierNetwork | PickledNetwork = network
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes, float64 (n_samples, n_classes).

        Raises
        ------
        UsageError
            If items cannot be read or decoded; the message names them and the reasons.
        """
        check_is_fitted(self, "classes_")
        if isinstance(self._trained, tuple):
            self._trained = self._restore(*self._trained)
        network = self._trained.eval()
        device = network.last.weight.device

        def logits(batch: Batch) -> npt.NDArray[np.float64]:
            with torch.inference_mode():
                values: npt.NDArray[np.float64] = network(batch.to(device)).cpu().double().numpy()
            return values

        backbone = _as_backbone(self.spec_, network.network, device)
        probabilities: npt.NDArray[np.float64] = softmax(self._run(items_of(X), backbone, logits), axis=1)
        return probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable class of each item, (n_samples,); raises the errors of `predict_proba`."""
        probabilities = self.predict_proba(X)
        predicted: npt.NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return predicted

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling, with the tensors of the network on the CPU."""
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
        """Return the options of the training. Raises UsageError if one is wrong."""
        if not 0 < self.validation_fraction <= 0.5:
            raise UsageError(f"validation_fraction must be above 0 and at most 0.5, got {self.validation_fraction}")
        names = {field.name for field in dataclasses.fields(FineTuneOptions)}
        check_near_duplicates(self.near_duplicates)
        require_one_of("method", self.method, get_args(Method))
        given = {name: value for name, value in self.get_params().items() if name in names}
        (options,) = build_options((FineTuneOptions,), given)
        chosen: FineTuneOptions = options
        return chosen

    def _load(self) -> Backbone:
        names = {name: getattr(self, name) for name in ("backbone", "weights", "arch", "image_size")}
        options = BackboneOptions(**names, pooling=None if self.pooling is None else (self.pooling,))
        backbone = load_with_options(options, choose_device(self.device)[0])
        require_trainable(backbone.spec, "the backbone")
        return backbone

    def _restore(self, state: StateDict, head: LinearHead) -> ClassifierNetwork:
        """Rebuild the network of a pickle."""
        if not is_hugging_face(self.spec_) and ":" not in self.spec_.name:  # a name that a library knows
            return _restore_network(self.spec_, state, head, choose_device(self.device)[0])
        network = ClassifierNetwork(self._load(), head)
        network.network.module.load_state_dict(state)
        return network

    def _run(self, items: list[Any], backbone: Backbone, run: Callable[[Batch], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Prepare items and return the values of ``run`` for them, (n, k), in batches as small as those of training.

        Raises UsageError if an item fails, and BackboneError if the device has too little memory.
        """
        listing = _list_items(items, backbone)
        prepared, size = _item_set(listing, backbone, seed=0), math.ceil(self.batch_size / self.accumulate)
        try:
            parts = [run(batch) for _, batch in prepared.batches(np.arange(len(items)), size) if len(batch)]
        except torch.OutOfMemoryError as error:
            raise BackboneError(
                f"{backbone.device} has too little memory for {size} {prepared.noun}: set a smaller batch_size"
            ) from error
        refuse_items({row: failure.message for row, failure in sorted(prepared.failed.items())}, listing)
        values = np.concatenate(parts)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        refuse_items(dict.fromkeys(bad, "the network returns values that are not finite"), listing)
        return values

    def _split(self, vectors: npt.NDArray[np.float32], y: Rows) -> tuple[Rows, Rows]:
        """Split the rows, stratified and with near-duplicates on the same side; every class has training rows."""
        cosine = self.near_duplicates
        groups = np.arange(len(y)) if cosine == "off" else near_duplicate_groups(vectors, cosine)
        parts = round(1 / self.validation_fraction)
        held_out = fold_numbers(y, groups, parts, np.random.default_rng(self.seed)) == 0
        unknown = ~np.isin(y, y[~held_out])
        held_out &= ~np.isin(groups, groups[unknown])
        if not held_out.any():
            raise TrainingDataError(
                f"{len(y)} items are too few for training and validation rows. Give more, or raise near_duplicates, "
                f"which is {self.near_duplicates}"
            )
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _list_items(items: list[Any], backbone: Backbone) -> Listing:
    with modality_of(f"the backbone {backbone.spec.provider}/{backbone.spec.name}"):
        return list_items(items, [f"{row:09d}" for row in range(len(items))], backbone.spec.modality)


def _item_set(listing: Listing, backbone: Backbone, seed: int) -> ItemSet:
    ids, uris = (listing.table.column(name).to_pylist() for name in ("id", "uri"))
    return make_item_set(listing.read, ids, uris, backbone, seed)


def _as_backbone(spec: BackboneSpec, network: ImageNetwork | TextNetwork, device: torch.device) -> Backbone:
    if isinstance(network, TextNetwork):
        return TextBackbone(spec, network, device)
    return ImageBackbone(spec, network, device)


def _restore_network(spec: BackboneSpec, state: StateDict, head: LinearHead, device: torch.device) -> ClassifierNetwork:
    """Rebuild the network of a pickle."""
    provider, name = split_name(architecture(spec))
    size: dict[str, Any] = {} if spec.image_size is None else {"image_size": spec.image_size}
    network = get_provider(provider).load(name, StoredWeights(state, "a pickle"), offline=True, **size)
    assert isinstance(network, ImageNetwork)
    assert isinstance(spec.preprocessing, Preprocessing)
    options = BackboneOptions(backbone=spec.name, pooling=tuple(layer.pooling for layer in spec.layers))
    network = dataclasses.replace(with_pooling(network, options), preprocessing=spec.preprocessing)
    network.module.eval().to(memory_format=torch.channels_last)
    return ClassifierNetwork(ImageBackbone(spec, network, device), head)
