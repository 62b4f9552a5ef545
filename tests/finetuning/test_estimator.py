"""`FineTunedClassifier`: training, pickles, and the tools of scikit-learn."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

import embedpipe
from embedpipe.errors import TrainingDataError, UnknownBackboneError, UsageError
from embedpipe.estimators import TemperatureCalibratedClassifier, TunedLogisticRegression
from embedpipe.finetuning.estimator import FineTunedClassifier
from embedpipe.splits.grouped import fold_numbers

#: The images are near-duplicates for the small network.
FAST = {"epochs": 2, "batch_size": 8, "near_duplicates": "off"}


def stripes(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Make noisy images of vertical and horizontal stripes, which a linear probe on random features cannot separate."""
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(count):
        wave = np.tile(30 * np.sin(np.arange(32) * np.pi / 2 + rng.uniform(0, 6)), (32, 1))
        wave = wave if i % 2 else wave.T
        pictures.append((128 + wave[..., None] + rng.normal(0, 60, (32, 32, 3))).clip(0, 255).astype(np.uint8))
    return pictures, np.where(np.arange(count) % 2, "upright", "lying")


def model(**parameters: object) -> FineTunedClassifier:
    return FineTunedClassifier(TINY, **{**FAST, **parameters})


def test_without_epochs_it_is_the_linear_probe() -> None:
    X, y = stripes(40)
    classifier = model(epochs=0).fit(X, y)
    assert [(epoch.number, epoch.training_loss) for epoch in classifier.epochs_] == [(0, None)]
    assert classifier.best_epoch_ == 0
    vectors = embedpipe.EmbeddingTransformer(TINY, store=None).fit(X).transform(X)
    train = fold_numbers(np.unique(y, return_inverse=True)[1], None, 5, np.random.default_rng(0)) != 0
    first = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(vectors[train], y[train])
    assert first.score(vectors[~train], y[~train]) == classifier.epochs_[0].validation_accuracy
    probe = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(vectors, y)
    np.testing.assert_array_equal(classifier.predict(X), probe.predict(vectors))
    np.testing.assert_allclose(classifier.predict_proba(X), probe.predict_proba(vectors), atol=1e-4)


def test_training_beats_the_probe_and_keeps_the_best_epoch() -> None:
    X, y = stripes(80)
    test, truth = stripes(60, seed=1)
    before = torch.random.get_rng_state()
    classifier = model(epochs=12, learning_rate=0.01, augment="none").fit(X, y)
    assert torch.equal(torch.random.get_rng_state(), before)
    best = classifier.epochs_[classifier.best_epoch_]
    assert classifier.best_epoch_ > 0
    assert best.validation_accuracy > max(epoch.validation_accuracy for epoch in classifier.epochs_) - 0.2
    assert classifier.score(test, truth) > model(epochs=0).fit(X, y).score(test, truth) + 0.1


@pytest.mark.parametrize("names", [["cat", "dog", "owl"], [7, 3, 5], [True, False]])
def test_classes_of_any_type_and_reproducible(names: list[object]) -> None:
    X, _ = stripes(30)
    y = [names[i % len(names)] for i in range(30)]
    classifier = model().fit(X, pd.Series(y))
    assert classifier.classes_.tolist() == sorted(set(y))
    assert set(classifier.predict(X).tolist()) <= set(y)
    shares = classifier.predict_proba(X)
    assert shares.shape == (30, len(names))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(clone(classifier).fit(X, y).predict_proba(X), shares)
    assert model(seed=1).fit(X, y).epochs_[1].training_loss != classifier.epochs_[1].training_loss


def test_pickles_hold_the_trained_weights() -> None:
    X, y = stripes(40)
    classifier = model(learning_rate=0.01).fit(X, y)
    shares = classifier.predict_proba(X)
    again = pickle.loads(pickle.dumps(classifier))
    twice = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(again.predict_proba(X), shares)
    np.testing.assert_array_equal(twice.predict_proba(X), shares)


def test_image_size_and_pooling_are_those_of_the_backbone_and_of_its_pickle() -> None:
    X, y = stripes(16)
    options = {"image_size": 64, "pooling": "cls", "weights": "none", **FAST, "epochs": 1}
    classifier = FineTunedClassifier("timm/test_vit", **options).fit(X, y)
    expected = embedpipe.load_backbone("timm/test_vit", weights="none", image_size=64, pooling="cls").spec
    assert (classifier.spec_.image_size, classifier.spec_.layers) == (64, expected.layers)
    shares = classifier.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(X), shares)


@pytest.mark.long
def test_pickles_of_timm_networks_need_no_weights_file() -> None:
    X, y = stripes(20)
    classifier = FineTunedClassifier("timm/test_resnet", weights="none", **FAST | {"epochs": 1}).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(X), classifier.predict_proba(X))


def test_cross_validation_and_grid_search() -> None:
    X, y = stripes(16)
    classifier = model(epochs=0)
    assert clone(classifier).get_params() == classifier.get_params()
    assert classifier.set_params(batch_size=4).batch_size == 4
    assert cross_val_score(classifier, X, y, cv=2).shape == (2,)
    grid = {"learning_rate": np.array([1e-4, 1e-2]), "batch_size": np.arange(8, 9)}
    search = GridSearchCV(model(epochs=1), grid, cv=2).fit(np.stack(X), y)
    assert search.best_estimator_.learning_rate in (1e-4, 1e-2)


def test_paths_bytes_and_tables_are_equivalent(tmp_path: Path) -> None:
    X, y = stripes(24)
    paths = [tmp_path / f"{i}.png" for i in range(24)]
    for path, pixels in zip(paths, X, strict=True):
        Image.fromarray(pixels).save(path)
    classifier = model().fit([str(path) for path in paths], y)
    shares = classifier.predict_proba(X)
    for given in (paths, [path.read_bytes() for path in paths], pd.DataFrame({"photo": map(str, paths)})):
        np.testing.assert_array_equal(classifier.predict_proba(given), shares)


def test_copies_stay_together_and_rare_classes_are_trained_on() -> None:
    rng = np.random.default_rng(0)
    first = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) // (1 + i % 4) for i in range(20)]
    X, y = [*first, *first, first[0] // 9], [*range(4)] * 10 + [9]
    classifier = model(epochs=0, near_duplicates=1.0)
    vectors = embedpipe.EmbeddingTransformer(TINY, store=None).fit(X).transform(X)
    train, validation = classifier._split(vectors, np.unique(y, return_inverse=True)[1])
    assert len(train) + len(validation) == 41
    assert not set(train % 20) & set(validation[validation < 40] % 20)
    assert 40 in train
    assert classifier.fit(X, y).classes_.tolist() == [0, 1, 2, 3, 9]


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    X, y = stripes(20)
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = [*X[:18], str(tmp_path / "broken.png"), str(tmp_path / "nowhere.png")]
    with pytest.raises(UsageError, match=r"2 of 20 are not(.|\n)*item 18 .*broken.png(.|\n)*item 19 .*nowhere"):
        model().fit(broken, y)
    with pytest.raises(UsageError, match=r"1 of 1 are not(.|\n)*broken.png"):
        model(epochs=0).fit(X, y).predict([str(tmp_path / "broken.png")])


def test_texts_for_a_backbone_of_images_are_told_what_it_takes() -> None:
    with pytest.raises(UsageError, match=r"no such file.*; the backbone \S+ takes images") as error:
        model().fit(["good", "bad"] * 10, ["a", "b"] * 10)
    assert "modality" not in str(error.value)


def test_prediction_before_fit_is_refused() -> None:
    with pytest.raises(NotFittedError):
        model().predict(stripes(20)[0])


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (stripes(20)[0], ["a"] * 19, "got 20 items and 19 labels"),
        ([], [], "at least one item"),
        ("photo.png", ["a"], "got a single item"),
        (stripes(20)[0], np.linspace(0, 1, 20), "continuous"),
        (stripes(20)[0], ["a", None] * 10, "a label for each row, and 10 of 20 have none, the first is row 1: leave"),
        (stripes(20)[0], ["a"] * 20, "got 20 labels that are all 'a'"),
    ],
    ids=["length", "empty", "single item", "continuous", "missing labels", "one class"],
)
def test_invalid_training_data_is_refused(X: object, y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model().fit(X, y)


def test_too_few_images_are_refused() -> None:
    X, _ = stripes(1)
    with pytest.raises(TrainingDataError, match="too few for training and validation rows"):
        model(near_duplicates=0.01).fit(X * 4, list("abab"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"validation_fraction": 0.8}, "validation_fraction must be above 0 and at most 0.5, got 0.8"),
        ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
        ({"epochs": 2.5}, "epochs must be an integer, got 2.5"),
        ({"learning_rate": "fast"}, "learning_rate must be a number or None, got 'fast'"),
        ({"augment": "much"}, "augment must be one of auto, none, light, strong, got 'much'"),
        ({"near_duplicates": 0.0}, "got 0.0"),
    ],
)
def test_invalid_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model(**parameters).fit(*stripes(20))


def test_unusable_backbones_are_refused() -> None:
    X, y = stripes(20)
    with pytest.raises(UnknownBackboneError, match="resnet9999"):
        FineTunedClassifier("timm/resnet9999").fit(X, y)
    with pytest.raises(UsageError, match="embeds texts"):
        FineTunedClassifier("python:tiny_text_backbone.make").fit(X, y)
