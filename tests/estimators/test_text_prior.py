"""Classifiers from vectors of class names: without labels, calibrated by labels, and learning from few."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax
from sklearn.base import clone

from embedpipe.estimators import TextPriorClassifier, TunedLogisticRegression, ZeroShotClassifier
from embedpipe.estimators.wrappers.base import clone_with_chosen_params
from embedpipe.splits.mapped_rows import MappedRows

RNG = np.random.default_rng(0)
PROTOTYPES = RNG.normal(size=(3, 12))
NAMES = ["owl", "cat", "dog"]


def rows(count: int, off: float = 0.0, spread: float = 1.5) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Return rows around centres that lie ``off`` from the prototypes, and their labels."""
    rng = np.random.default_rng(1)
    y = np.arange(count) % 3
    centres = PROTOTYPES + off * np.random.default_rng(2).normal(size=PROTOTYPES.shape)
    X = centres[y] + spread * rng.normal(size=(count, PROTOTYPES.shape[1]))
    return (X * rng.uniform(0.1, 9, (count, 1))).astype(np.float32), np.array(NAMES)[y]


def cosines(X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (X.astype(np.float64), PROTOTYPES)]
    return np.asarray(unit[0] @ unit[1].T)


@pytest.mark.parametrize("cls", [ZeroShotClassifier, TextPriorClassifier])
def test_without_labels_the_nearest_name_is_predicted(cls: Any) -> None:
    X, _ = rows(30)
    model = cls(PROTOTYPES, NAMES, temperature=0.1).fit(X)
    assert model.classes_.tolist() == sorted(NAMES)
    assert model.predict(X).tolist() == [NAMES[i] for i in cosines(X).argmax(axis=1)]
    shares = np.exp(log_softmax(cosines(X)[:, [1, 2, 0]] / 0.1, axis=1))
    np.testing.assert_allclose(model.predict_proba(X), shares, rtol=1e-6)
    assert model.temperature_ == pytest.approx(0.1)


def test_labels_set_the_temperature_of_least_log_loss_and_nothing_else() -> None:
    X, y = rows(90)
    model = ZeroShotClassifier(PROTOTYPES, NAMES).fit(X, y)
    assert model.predict(X).tolist() == ZeroShotClassifier(PROTOTYPES, NAMES).fit(X).predict(X).tolist()
    truth = np.searchsorted(model.classes_, y)

    def loss(temperature: float) -> float:
        logs = log_softmax(cosines(X)[:, [1, 2, 0]] / temperature, axis=1)
        return -float(logs[np.arange(len(y)), truth].mean())

    at = loss(model.temperature_)
    assert at == pytest.approx(min(loss(temperature) for temperature in np.geomspace(0.001, 1, 400)), abs=1e-5)
    assert ZeroShotClassifier(PROTOTYPES, NAMES).fit(X, y, np.ones(90)).temperature_ == model.temperature_


def test_few_labels_move_the_classes_away_from_wrong_names_and_not_from_right_ones() -> None:
    wrong_X, wrong_y = rows(300, off=2.5)
    zero = ZeroShotClassifier(PROTOTYPES, NAMES).fit(wrong_X[:60], wrong_y[:60])
    prior = TextPriorClassifier(PROTOTYPES, NAMES).fit(wrong_X[:60], wrong_y[:60])
    assert prior.score(wrong_X[60:], wrong_y[60:]) > zero.score(wrong_X[60:], wrong_y[60:]) + 0.1
    assert prior.C_ > 0
    X, y = rows(300)
    one_each = TextPriorClassifier(PROTOTYPES, NAMES).fit(X[:3], y[:3])
    assert one_each.C_ == TextPriorClassifier.FALLBACK
    assert one_each.score(X[3:], y[3:]) > TunedLogisticRegression().fit(X[:3], y[:3]).score(X[3:], y[3:]) + 0.1


def test_a_tiny_and_a_large_penalty_are_the_two_ends() -> None:
    X, y = rows(60, off=1.0)
    zero = ZeroShotClassifier(PROTOTYPES, NAMES).fit(X, y)
    held = TextPriorClassifier(PROTOTYPES, NAMES, Cs=(0.0,)).fit(X, y)
    np.testing.assert_allclose(held.predict_proba(X), zero.predict_proba(X), rtol=1e-9)
    free = TextPriorClassifier(PROTOTYPES, NAMES, Cs=(1e4,)).fit(X, y)
    assert free.score(X, y) > zero.score(X, y)
    again = clone_with_chosen_params(held).fit(X, y)
    assert again.C_ == 0


def test_the_slope_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def keep(loss: Any, first: Any, **options: Any) -> Any:
        seen["loss"], seen["first"] = loss, first
        return type("Solution", (), {"x": first})

    monkeypatch.setattr("embedpipe.estimators.text_prior.text_prior.minimize", keep)
    X, y = rows(20)
    TextPriorClassifier(PROTOTYPES, NAMES, Cs=(0.5,)).fit(X, y, np.linspace(0.5, 2, 20))
    loss = seen["loss"]
    at = seen["first"] + RNG.normal(size=len(seen["first"])) * 0.01
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], at) < 1e-3


def test_rows_in_a_map_and_two_classes() -> None:
    X, y = rows(60)
    model = ZeroShotClassifier(PROTOTYPES, NAMES).fit(X, y)
    mapped = clone(model).fit(MappedRows([X]), y)
    np.testing.assert_array_equal(mapped.coef_, model.coef_)
    np.testing.assert_array_equal(mapped.predict(MappedRows([X])), model.predict(X))
    two = TextPriorClassifier(PROTOTYPES[:2], NAMES[:2]).fit(X[y != "dog"], y[y != "dog"])
    scores = two.decision_function(X)
    assert scores.shape == (60,)
    assert (two.predict(X) == np.where(scores > 0, "owl", "cat")).all()
    np.testing.assert_allclose(two.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)))


@pytest.mark.parametrize(
    ("prototypes", "classes", "y", "message"),
    [
        (PROTOTYPES[:2], NAMES, None, r"prototypes must have shape \(3, 12\), got \(2, 12\)"),
        (PROTOTYPES[:, :5], NAMES, None, r"prototypes must have shape \(3, 12\)"),
        (PROTOTYPES, ["cat", "cat", "dog"], None, "classes must be two or more, all different"),
        (PROTOTYPES[:1], ["cat"], None, "classes must be two or more"),
        (PROTOTYPES, NAMES, ["cat", "cow"] * 3, r"labels must be among the classes .*, got 'cow'"),
        (PROTOTYPES, NAMES, np.array(["cat", "cow"] * 3, object), r"labels must be among the classes .*, got 'cow'"),
    ],
)
def test_what_does_not_fit_is_refused(prototypes: Any, classes: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZeroShotClassifier(prototypes, classes).fit(rows(6)[0], y)
    with pytest.raises(ValueError, match="Cs must be numbers >= 0"):
        TextPriorClassifier(PROTOTYPES, NAMES, Cs=(-1.0,)).fit(*rows(6))
