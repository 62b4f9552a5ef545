"""Estimators fitted on a torch device equal those fitted on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.svm import SVC
from stored import clusters, make_store

from embedpipe import fit
from embedpipe.errors import UsageError
from embedpipe.estimators import ShrunkenLDA, TunedLogisticRegression, TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.solvers import torch_matrix
from embedpipe.estimators.solvers.column_stats import ColumnStats, scores_of
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss, TrainingSet
from embedpipe.estimators.solvers.principal_rows import PrincipalRows
from embedpipe.estimators.solvers.torch_loss import TorchLogisticLoss, TorchRows
from embedpipe.estimators.solvers.torch_matrix import TorchMatrix, move_to_device, usable_device
from embedpipe.heads import FitOptions, load_head

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
on_each_device = pytest.mark.parametrize("device", ["cpu", CUDA])
LINEAR = [TunedLogisticRegression, TunedRidgeClassifier, ShrunkenLDA]


@pytest.fixture(autouse=True)
def tensors_are_no_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tensors refuse NumPy conversion, as on a GPU, and blocks so small that there are several."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("this tensor could be on a GPU")

    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    monkeypatch.setattr(torch_matrix, "BLOCK", 1 << 15)


def rows_of(classes: int, dtype: type = np.float32, rows: int = 400) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return read-only correlated rows (rows, 30), off-centre, and their classes."""
    X, y = clusters(rows, classes, dim=12, spread=2.0)
    X = (X @ np.random.default_rng(1).standard_normal((12, 30)) + np.linspace(-50, 100, 30)).astype(dtype)
    X += 0.1 * np.random.default_rng(2).standard_normal(X.shape).astype(dtype)
    X.flags.writeable = False
    return X, y


def check_alike(on_cpu: Any, on_torch: Any, X: npt.NDArray[Any]) -> None:
    """Check that two fitted models chose the same penalty and predict the same."""
    for chosen in ("C_", "alpha_"):
        assert getattr(on_cpu, chosen, None) == getattr(on_torch, chosen, None)
    for method in ("predict_proba", "decision_function"):
        if hasattr(on_cpu, method):
            wanted = getattr(on_cpu, method)(X)
            np.testing.assert_allclose(
                getattr(on_torch, method)(X), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max()
            )
    np.testing.assert_allclose(on_torch.coef_, on_cpu.coef_, rtol=1e-3, atol=1e-3 * np.abs(on_cpu.coef_).max())


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    held = vars(value).values() if isinstance(value, BaseEstimator) else value
    return (
        [each for part in held for each in tensors_in(part)]
        if isinstance(held, list | tuple | type({}.values()))
        else []
    )


@on_each_device
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 5, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", LINEAR)
def test_models_on_device_equal_cpu(kind: Any, classes: int, dtype: type, device: str) -> None:
    X, y = rows_of(classes, dtype)
    on_torch = kind(device=device).fit(X, y)
    check_alike(kind().fit(X, y), on_torch, X)
    assert {type(value) for value in (on_torch.coef_, on_torch.intercept_)} == {np.ndarray}
    assert not tensors_in(on_torch)


@on_each_device
def test_lda_on_device_with_more_rows_than_features(device: str) -> None:
    X, y = rows_of(3)
    y = np.where(np.arange(len(y)) % 40 == 0, 7, y)  # and one of fewer
    check_alike(ShrunkenLDA().fit(X, y), ShrunkenLDA(device=device).fit(X, y), X)


@on_each_device
def test_ridge_regression_on_device_equals_cpu(device: str) -> None:
    X, y = rows_of(5)
    Y = np.column_stack([y + X[:, 0], X[:, 1] ** 2]).astype(np.float64)
    on_cpu, on_torch = TunedRidge().fit(X, Y), TunedRidge(device=device).fit(X, Y)
    assert on_cpu.alpha_ == on_torch.alpha_
    np.testing.assert_allclose(on_torch.predict(X), on_cpu.predict(X), rtol=1e-7)


@on_each_device
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", [TunedLogisticRegression, TunedRidgeClassifier])
def test_sample_weights_on_device(kind: Any, classes: int, device: str) -> None:
    X, y = rows_of(classes)
    weights = np.random.default_rng(0).uniform(0, 2, len(X))
    weights[::5] = 0
    on_cpu, on_torch = (kind(device=place).fit(X, y, sample_weight=weights) for place in (None, device))
    check_alike(on_cpu, on_torch, X)
    assert np.abs(on_cpu.coef_ - kind().fit(X, y).coef_).max() > 1e-3 * np.abs(on_cpu.coef_).max()


@on_each_device
def test_class_weights_on_device(device: str) -> None:
    X, y = rows_of(4)
    keep = (y != 1) | (np.arange(len(y)) % 3 == 0)
    X, y = X[keep], y[keep]
    on_cpu, on_torch = (
        TunedLogisticRegression(class_weight="balanced", device=place).fit(X, y) for place in (None, device)
    )
    check_alike(on_cpu, on_torch, X)
    assert np.abs(on_cpu.coef_ - TunedLogisticRegression().fit(X, y).coef_).max() > 1e-3 * np.abs(on_cpu.coef_).max()


@on_each_device
@pytest.mark.parametrize("classes", [2, 4])
def test_losses_and_gradients_on_device_equal_cpu(classes: int, device: str) -> None:
    """Sets overlap, one of them lacks a class, and some rows are in no set."""
    X, y = rows_of(classes, np.float64, 120)
    rng = np.random.default_rng(0)
    parts = [np.arange(0, 60), np.flatnonzero(y[:100] != 3), np.arange(30, 110)]
    sets = [TrainingSet(rows, rng.uniform(0, 3, len(rows))) for rows in parts]
    columns = ColumnStats.measure(X, np.arange(len(X)))
    on_cpu = LogisticLoss(PrincipalRows(X, columns), y, classes, sets)
    on_torch = TorchLogisticLoss(TorchRows(TorchMatrix(X, usable_device(device)), columns), y, classes, sets)
    to_device, to_numpy = on_torch.rows.backend.to_device, on_torch.rows.backend.to_numpy
    np.testing.assert_allclose(on_torch.rows.squares, on_cpu.rows.squares, rtol=1e-9, atol=1e-12)
    coef, intercept = (rng.standard_normal((3, on_cpu.n_scores, *more)) for more in ((30,), ()))
    # The signs of the axes may differ: compare along the features.
    losses, *slopes = on_torch(on_torch.rows.to_axes(to_device(coef)), to_device(intercept))
    slopes[0] = on_torch.rows.to_features(slopes[0])
    wanted, *expected_slopes = on_cpu(on_cpu.rows.to_axes(coef), intercept)
    expected_slopes[0] = on_cpu.rows.to_features(expected_slopes[0])
    np.testing.assert_allclose(losses, wanted, rtol=1e-10)
    for slope, expected in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(to_numpy(slope), expected, rtol=1e-9, atol=1e-10)


@on_each_device
def test_column_stats_and_scores_on_device_equal_cpu(device: str) -> None:
    X = rows_of(3)[0].copy()
    X[:, 4] = 7.0
    placed = TorchMatrix(X, usable_device(device))
    rows = np.arange(10, 390, 3)
    weights = np.random.default_rng(0).uniform(0, 1, len(rows))
    for given in (None, weights):
        on_cpu, on_torch = ColumnStats.measure(X, rows, given), ColumnStats.measure(placed, rows, given)
        np.testing.assert_allclose(on_torch.mean, on_cpu.mean, rtol=1e-12)
        np.testing.assert_allclose(on_torch.scale, on_cpu.scale, rtol=1e-9)
        assert np.flatnonzero(~on_torch.varies).tolist() == [4]
    coef, intercept = np.random.default_rng(1).standard_normal((3, 30)), np.ones(3)
    np.testing.assert_allclose(scores_of(placed, coef, intercept), scores_of(X, coef, intercept), rtol=1e-10)


def test_matrix_with_few_rows_stays_on_the_cpu() -> None:
    X, _ = clusters(30, dim=30)
    assert move_to_device(X, "cpu") is X
    tall = X[:, :29]
    assert isinstance(move_to_device(tall, "cpu"), TorchMatrix)
    assert move_to_device(tall, None) is tall


@pytest.mark.parametrize("kind", [*LINEAR, TunedRidge])
def test_clone_keeps_device(kind: Any) -> None:
    assert clone(kind(device="cpu")).get_params()["device"] == "cpu"


AROUND: dict[str, dict[str, Any]] = {
    "calibrated": {"calibrate": True},
    "rejecting": {"reject_share": 0.1},
    "without components": {"remove_components": 1},
    "weighted": {"class_weight": "balanced"},
}


@pytest.mark.long
@pytest.mark.parametrize("options", AROUND.values(), ids=AROUND)
def test_head_fitted_on_device_is_saved_without_device(tmp_path: Path, options: dict[str, Any]) -> None:
    X, y = clusters(150, spread=1.0)
    store = make_store(tmp_path / "s", X, label=np.array(["cat", "dog", "owl"])[y])
    on_cpu = fit(store, "logreg", folds=3, **options)
    on_torch = fit(store, "logreg", folds=3, device="cpu:0", to=tmp_path / "head", **options)  # torch's processor
    chosen = dict(on_torch.report.chosen)
    assert chosen.pop("device") == "cpu:0"
    assert chosen == pytest.approx(on_cpu.report.chosen, rel=1e-3)  # what is learned on top has no grid of values
    assert chosen["C"] == on_cpu.report.chosen["C"]
    assert on_torch.report.metrics["accuracy"] == on_cpu.report.metrics["accuracy"]
    assert not tensors_in(on_torch.estimator)
    assert "cpu:0" not in repr(on_torch.estimator)
    loaded = load_head(tmp_path / "head")
    np.testing.assert_allclose(loaded.estimator.predict_proba(X), on_cpu.estimator.predict_proba(X), atol=1e-4)
    assert torch_matrix.set_device(loaded.estimator, None)
    clone(loaded.estimator).fit(X, y)  # where there is no such device


def test_multilabel_and_regression_heads_on_device(tmp_path: Path) -> None:
    X, y = clusters(120)
    labels = make_store(tmp_path / "labels", X, label=np.array(["a", "a;b", "b"])[y])
    numbers = make_store(tmp_path / "numbers", X, label=X[:, 0] + 0.5)
    for store, head, task in (
        (labels, "logreg", "multilabel"),
        (labels, "ridge", "multilabel"),
        (numbers, "ridge", None),
    ):
        on_cpu, on_torch = (fit(store, head, folds=0, task=task, device=device) for device in (None, "cpu:0"))
        np.testing.assert_allclose(
            *(np.asarray(each.estimator.predict(X), float) for each in (on_cpu, on_torch)), rtol=1e-6
        )
        assert on_torch.report.chosen["device"] == "cpu:0"


@pytest.mark.parametrize("head", ["knn", "centroid", "auto", SVC()])
def test_heads_without_device_are_refused(tmp_path: Path, head: Any) -> None:
    X, y = clusters(60)
    store = make_store(tmp_path / "s", X, label=y)
    with pytest.raises(
        UsageError, match=r"on the CPU only: leave device='cpu:0' out, or choose logreg or ridge or lda"
    ):
        fit(store, head, device="cpu:0")
    assert fit(store, "knn", folds=0, device="cpu").name == "knn"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "meta"])
def test_unusable_device_is_refused_before_reading_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"device .*'{name}'"):
        fit(tmp_path / "no store", device=name)
    X, y = clusters(60)
    with pytest.raises(UsageError, match=rf"device .*'{name}'"):
        TunedLogisticRegression(device=name).fit(X, y)
    assert FitOptions(device=name).gpu == name
    assert FitOptions(device="cpu").gpu is None
