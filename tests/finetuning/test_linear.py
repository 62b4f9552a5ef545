"""Folding heads into one affine map and back: equal scores, or an error."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from stored import clusters, make_spec, make_store

from embedpipe import CommonComponentRemover, FeatureStore, Head, VarianceFloorScaler, fit, load_head
from embedpipe.backbones import LayerSpec
from embedpipe.errors import UsageError
from embedpipe.estimators import AutoClassifier, RejectingClassifier, TemperatureCalibratedClassifier
from embedpipe.finetuning.linear_probe import fold_head
from embedpipe.heads.conversion.linear_head import LinearHead
from embedpipe.store.schema import vector_column

DIM = 9
NAMES = np.array(["ant", "bee", "cat", "dog", "owl"])
NEW = np.random.default_rng(5).standard_normal((40, DIM)) * 3 + 1
NEW[0] = 0

LINEAR: dict[str, Any] = {
    "logreg": "logreg",
    "ridge": "ridge",
    "lda": "lda",
    "LogisticRegression": LogisticRegression(),
    "LogisticRegression without intercept": LogisticRegression(fit_intercept=False),
    "RidgeClassifier": RidgeClassifier(),
    "LinearSVC": LinearSVC(random_state=0),
    "LinearSVC without intercept": LinearSVC(random_state=0, fit_intercept=False),
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis(),
    "SGDClassifier": SGDClassifier(random_state=0),
    "scaler": make_pipeline(StandardScaler(), LogisticRegression()),
    "scaler without mean": make_pipeline(StandardScaler(with_mean=False), LogisticRegression()),
    "scaler without scale": make_pipeline(StandardScaler(with_std=False), LogisticRegression()),
    "unit": make_pipeline(Normalizer(), LogisticRegression()),
    "unit, then scaler": make_pipeline(Normalizer(), StandardScaler(), RidgeClassifier()),
    "components": make_pipeline(CommonComponentRemover(2), LogisticRegression()),
    "nested": make_pipeline(make_pipeline(Normalizer(), StandardScaler()), "passthrough", LogisticRegression()),
}


def made_store(path: Path, classes: int) -> FeatureStore:
    """Make a store with layers of 6 and 3 values and a label column of class names."""
    X, y = clusters(30 * classes, classes, DIM, spread=1.5)
    spec = make_spec(6)
    store = FeatureStore.create(path, dataclasses.replace(spec, layers=(*spec.layers, LayerSpec("early", "avg", 3))))
    columns = {
        "id": [f"row-{i:03d}" for i in range(len(X))],
        "content_hash": [f"{i:064x}" for i in range(len(X))],
        "source_root": ["made up"] * len(X),
        "label": NAMES[y],
        "embedding": vector_column(X[:, :6]),
        "embedding_early": vector_column(X[:, 6:]),
    }
    store.write(pa.table(columns))
    return store.refresh()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, FeatureStore]:
    return {classes: made_store(tmp_path_factory.mktemp("stores") / "store", classes) for classes in (2, 5)}


@pytest.fixture(scope="module")
def head(stores: dict[int, FeatureStore]) -> Head:
    """Fit a head whose estimator the tests replace."""
    return fit(stores[5], "lda", layer="features+early", folds=0)


def fitted(store: FeatureStore, estimator: Any, **options: Any) -> Head:
    return fit(store, estimator, **{"layer": "features+early", "folds": 0, **options})


def assert_same(linear: LinearHead, scores: npt.NDArray[np.float64], X: npt.NDArray[Any] = NEW) -> None:
    """Check that logits equal the scores; for two classes, that their difference does and that they sum to 0."""
    logits = linear.logits(X)
    assert logits.dtype == linear.weight.dtype == linear.bias.dtype == np.float64
    assert logits.shape == (len(X), len(linear.classes))
    assert linear.weight.shape == (len(linear.classes), X.shape[1])
    assert linear.bias.shape == (len(linear.classes),)
    if scores.ndim == 1:
        np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-12)
        logits = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(logits, scores, rtol=1e-9, atol=1e-9 * np.abs(scores).max())


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", LINEAR)
def test_logits_equal_the_scores_of_the_head(stores: dict[int, FeatureStore], name: str, classes: int) -> None:
    head = fitted(stores[classes], LINEAR[name])
    linear = fold_head(head)
    assert linear.classes.tolist() == NAMES[:classes].tolist()
    assert linear.unit == ("unit" in name or name == "nested")
    scores = head.estimator.decision_function(NEW)
    assert_same(linear, scores)
    predicted = linear.classes[linear.logits(NEW).argmax(axis=1)]
    assert (predicted[1:] == head.estimator.predict(NEW)[1:]).all()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", ["logreg", "ridge", "lda", "scaler", "unit, then scaler"])
def test_calibration_is_folded_into_the_weights(stores: dict[int, FeatureStore], name: str, classes: int) -> None:
    head = fitted(stores[classes], LINEAR[name], calibrate=True)
    calibrated = head.estimator
    assert isinstance(calibrated, TemperatureCalibratedClassifier)
    assert abs(calibrated.temperature_ - 1) > 1e-3
    linear = fold_head(head)
    assert_same(linear, calibrated.estimator_.decision_function(NEW) / calibrated.temperature_)
    shares = softmax(linear.logits(NEW), axis=1)
    np.testing.assert_allclose(shares, calibrated.predict_proba(NEW), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", ["features+early", "early+features"])
def test_columns_follow_the_order_of_the_layers(stores: dict[int, FeatureStore], order: str) -> None:
    head = fitted(stores[5], "logreg", layer=order)
    assert "+".join(head.layers) == order
    assert_same(fold_head(head), head.estimator.decision_function(NEW))
    single = fitted(stores[5], "logreg", layer="features")
    assert_same(fold_head(single), single.estimator.decision_function(NEW[:, :6]), NEW[:, :6])


def test_rejecting_head_is_folded_as_the_head_inside(stores: dict[int, FeatureStore]) -> None:
    head = fitted(stores[2], "logreg", calibrate=True, reject_share=0.1)
    assert isinstance(head.estimator, RejectingClassifier)
    shares = softmax(fold_head(head).logits(NEW), axis=1)
    np.testing.assert_allclose(shares, head.estimator.predict_proba(NEW), rtol=1e-9, atol=1e-12)
    pipeline = dataclasses.replace(head, estimator=Pipeline([("unit", "passthrough"), ("head", head.estimator)]))
    assert_same(fold_head(pipeline), np.diff(fold_head(head).logits(NEW))[:, 0])


def test_removed_components_are_folded_into_the_weights(stores: dict[int, FeatureStore]) -> None:
    head = fitted(stores[5], "ridge", remove_components=2)
    linear = fold_head(head)
    assert_same(linear, head.estimator.decision_function(NEW))
    components = head.estimator.steps[0][1].components_
    np.testing.assert_allclose(linear.weight @ components.T, 0, atol=1e-12)
    scaled_later = fitted(stores[5], make_pipeline(Normalizer(), LogisticRegression()), remove_components=1)
    with pytest.raises(
        UsageError, match=r"Normalizer must be the first step, got CommonComponentRemover .*'common_components'"
    ):
        fold_head(scaled_later)


def auto(normalisation: str, layer: str, part: slice, estimator: Any, X: npt.NDArray[Any], y: Any) -> AutoClassifier:
    """Return an AutoClassifier with the given choices."""
    made = AutoClassifier([("features", 6), ("early", 3)])
    made.n_features_in_, made.classes_, made.trials_ = DIM, np.unique(y), []
    made.layer_, made.normalisation_, made.head_ = layer, normalisation, "lda"
    made.start_, made.stop_ = part.start, part.stop
    made.estimator_ = TemperatureCalibratedClassifier(estimator).fit(X[:, part], y)
    return made


@pytest.mark.parametrize("classes", [2, 5])
def test_auto_classifier_is_folded_over_all_layers(head: Head, classes: int) -> None:
    X, y = clusters(30 * classes, classes, DIM, spread=1.5)
    joined = "features+early"
    for layer, part in {"early": slice(6, 9), "features": slice(0, 6), joined: slice(0, 9)}.items():
        for normalisation, steps in {"none": [], "standard": [VarianceFloorScaler()], "unit": [Normalizer()]}.items():
            chosen = auto(normalisation, layer, part, make_pipeline(*steps, LinearDiscriminantAnalysis()), X, NAMES[y])
            changed = dataclasses.replace(head, estimator=chosen)
            if normalisation == "unit" and layer != joined:
                with pytest.raises(UsageError, match=rf"scales layer '{layer}' alone.* layer='{layer}'$"):
                    fold_head(changed)
                continue
            linear = fold_head(changed)
            assert linear.weight.shape == (classes, DIM)
            shares = softmax(linear.logits(NEW), axis=1)
            np.testing.assert_allclose(shares, chosen.predict_proba(NEW), rtol=1e-9, atol=1e-12)


@pytest.mark.long
def test_auto_inside_a_rejecting_head_is_folded(stores: dict[int, FeatureStore]) -> None:
    head = fitted(stores[2], "auto", layer=None, reject_share=0.1)
    assert isinstance(head.estimator.estimator_, AutoClassifier)
    shares = softmax(fold_head(head).logits(NEW), axis=1)
    np.testing.assert_allclose(shares, head.estimator.predict_proba(NEW), rtol=1e-9, atol=1e-12)


NOT_LINEAR = {
    "knn": "must be linear, got FaissKNNClassifier. Fit a linear one, such as logreg",
    "centroid": r"must be X @ coef_.T \+ intercept_, which it is not for CentroidClassifier",
    "gauss": "must be linear, got GaussianNB",
    "curved": "must be linear, got SVC",
    "pairs": r"must be X @ coef_.T \+ intercept_, which it is not for SVC",
    "pca": "steps must be Normalizer, StandardScaler or CommonComponentRemover, got PCA in step 'pca'",
    "sum": "Normalizer must have norm='l2', got 'l1' in step 'normalizer'",
    "scaler first": "Normalizer must be the first step, got StandardScaler before it in step 'standardscaler'",
}
MAKERS: dict[str, Any] = {
    "gauss": GaussianNB(),
    "curved": SVC(),
    "pairs": SVC(kernel="linear"),
    "pca": make_pipeline(PCA(4), LogisticRegression()),
    "sum": make_pipeline(Normalizer(norm="l1"), LogisticRegression()),
    "scaler first": make_pipeline(StandardScaler(), Normalizer(), LogisticRegression()),
}


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("name", NOT_LINEAR)
def test_estimator_that_is_not_affine_is_refused(stores: dict[int, FeatureStore], name: str, calibrate: bool) -> None:
    head = fitted(stores[5], MAKERS.get(name, name), calibrate=calibrate)
    with pytest.raises(UsageError, match=NOT_LINEAR[name]) as refused:
        fold_head(head)
    assert str(refused.value).startswith(f"head {head.name!r} cannot become the last layer of a network: ")


def test_regression_and_multilabel_heads_are_refused(tmp_path: Path) -> None:
    X, y = clusters(60)
    numbers = fit(make_store(tmp_path / "n", X, label=y + 0.5), "ridge", folds=0)
    with pytest.raises(UsageError, match=r"head 'ridge' is for regression\. Fit one with task='classification'"):
        fold_head(numbers)
    sets = [";".join(["a"] * (k != 1) + ["b"] * (k > 0)) for k in y.tolist()]
    several = fit(make_store(tmp_path / "s", X, label=sets), "logreg", task="multilabel", folds=0)
    with pytest.raises(UsageError, match="head 'logreg' is for multilabel"):
        fold_head(several)


#: Transformers that can be folded into the map that follows them.
STEPS: dict[str, Any] = {
    "unit": Normalizer(),
    "scaler": StandardScaler(),
    "centre": StandardScaler(with_std=False),
    "components": CommonComponentRemover(),
}


@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), max_size=4),
    classes=st.integers(2, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_steps_are_folded_unless_they_precede_the_normalizer(
    head: Head, names: list[str], classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, DIM)) * 10 ** rng.uniform(-1, 1, DIM) + rng.standard_normal(DIM)
    y = np.arange(40) % classes
    estimator = Pipeline([*((f"{i}", clone(STEPS[name])) for i, name in enumerate(names)), ("head", RidgeClassifier())])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # removed components make the system singular
        changed = dataclasses.replace(head, estimator=estimator.fit(X, y))
    if "unit" in names and any(name != "unit" for name in names[: len(names) - names[::-1].index("unit")]):
        with pytest.raises(UsageError, match="Normalizer must be the first step"):
            fold_head(changed)
    else:
        assert_same(fold_head(changed), estimator.decision_function(X), X)


@given(classes=st.integers(2, 5), dim=st.integers(1, 12), unit=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_estimator_made_from_a_linear_head_gives_its_logits(
    head: Head, classes: int, dim: int, unit: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    linear = LinearHead(rng.standard_normal((classes, dim)), rng.standard_normal(classes), NAMES[:classes], unit)
    estimator, X = linear.to_estimator(), rng.standard_normal((7, dim))
    logits = linear.logits(X)
    difference = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(estimator.predict_proba(X), softmax(logits, axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(estimator.decision_function(X), difference if classes == 2 else logits, atol=1e-12)
    assert (estimator.predict(X) == NAMES[logits.argmax(axis=1)]).all()
    if classes == 2:
        np.testing.assert_allclose(estimator.predict_proba(X)[:, 1], expit(difference), rtol=1e-9)
    again = fold_head(dataclasses.replace(head, estimator=estimator))
    assert again.unit == unit
    assert again.classes.tolist() == NAMES[:classes].tolist()
    assert_same(again, estimator.decision_function(X), X)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", ["logreg", "unit, then scaler"])
def test_folded_head_is_saved_and_loaded(
    stores: dict[int, FeatureStore], tmp_path: Path, name: str, classes: int
) -> None:
    head = fitted(stores[classes], LINEAR[name], calibrate=True)
    made = dataclasses.replace(head, estimator=fold_head(head).to_estimator())
    assert made.estimator.n_features_in_ == DIM
    made.save(tmp_path / "head")
    loaded = load_head(tmp_path / "head")
    rows = NEW.astype(np.float32)
    np.testing.assert_allclose(loaded.estimator.predict_proba(rows), head.estimator.predict_proba(rows), atol=1e-5)
    np.testing.assert_array_equal(loaded.estimator.decision_function(NEW), made.estimator.decision_function(NEW))
    np.testing.assert_array_equal(fold_head(loaded).logits(NEW), fold_head(made).logits(NEW))
    assert loaded.predict(stores[classes])["label"].equals(head.predict(stores[classes])["label"])


def test_float32_vectors_are_not_changed() -> None:
    rng = np.random.default_rng(0)
    linear = LinearHead(rng.standard_normal((3, DIM)), np.zeros(3), np.arange(3), unit=True)
    rows = NEW.astype(np.float32)
    before = rows.copy()
    np.testing.assert_array_equal(linear.logits(rows), linear.logits(rows.astype(np.float64)))
    np.testing.assert_array_equal(rows, before)
    assert not linear.logits(rows)[0].any()  # a zero vector stays zero
