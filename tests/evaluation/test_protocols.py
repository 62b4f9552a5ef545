"""Protocols against independent implementations: plain NumPy, scikit-learn, and draws by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from stored import clusters

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.evaluation import run_protocol
from embedpipe.evaluation.protocols import clip_lp, mteb_cls
from embedpipe.evaluation.protocols.details import detail_table, settings_table
from embedpipe.evaluation.protocols.few_shot import crossed_interval
from embedpipe.evaluation.protocols.problem import ProtocolResult, first_of_each_class
from embedpipe.evaluation.protocols.registry import PROTOCOLS


def problem(train: int = 240, test: int = 90, classes: int = 3, spread: float = 1.5, dim: int = 8) -> tuple[Any, ...]:
    """Return X_train, y_train, X_test, y_test, with names as labels."""
    names = np.array([f"class {number:02d}" for number in range(classes)])
    X, y = clusters(train, classes, dim, spread)
    X_test, y_test = clusters(test, classes, dim, spread, seed=1)
    return X, names[y], X_test, names[y_test]


def dino_accuracies(
    X: npt.NDArray[Any], y: npt.NDArray[Any], Q: npt.NDArray[Any], y_test: npt.NDArray[Any], k: int
) -> tuple[float, float]:
    """Vote as eval_knn.py of DINO does, row after row, in plain NumPy: sum of exp(cosine / T) over the k nearest."""

    def of_length_one(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        rows = rows.astype(np.float64)
        scaled: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return scaled

    rows, queries = of_length_one(X).astype(np.float64), of_length_one(Q).astype(np.float64)
    classes = sorted(set(y.tolist()))
    top1 = top5 = 0
    for query, actual in zip(queries, y_test.tolist(), strict=True):
        cosines = rows @ query
        nearest = np.argsort(-cosines, kind="stable")[:k]
        votes = [float(np.exp(cosines[nearest][y[nearest] == name] / 0.07).sum()) for name in classes]
        ranked = [classes[i] for i in np.argsort(-np.array(votes), kind="stable")]
        top1 += ranked[0] == actual
        top5 += actual in ranked[:5]
    return top1 / len(queries), top5 / len(queries)


@pytest.mark.parametrize("seed", range(3))
def test_dino_knn_agrees_with_the_published_vote(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, Q = rng.standard_normal((400, 24), np.float32), rng.standard_normal((150, 24), np.float32)
    y, y_test = rng.integers(0, 9, 400), rng.integers(0, 9, 150)
    result = run_protocol("dino-knn", X, y, Q, y_test)
    assert result.protocol == "dino-knn/1"
    assert [row["k"] for row in result.details] == [10, 20, 100, 200]
    for row in result.details:
        assert (row["top1"], row["top5"]) == dino_accuracies(X, y, Q, y_test, row["k"])
    assert result.metrics == {key: result.details[1][key] for key in ("top1", "top5")}


def test_dino_knn_leaves_out_k_above_the_number_of_rows() -> None:
    result = run_protocol("dino-knn", *problem(train=60))
    assert [row["k"] for row in result.details] == [10, 20]
    assert result.settings["k above the number of training rows"] == [100, 200]
    assert set(result.metrics) == {"top1"}  # of three classes, the true one is always among the first five
    with pytest.raises(TrainingDataError, match="at least 20 training rows, got 15"):
        run_protocol("dino-knn", *problem(train=15))


def test_clip_lp_agrees_with_scikit_learn_at_the_chosen_penalty() -> None:
    X, y, X_test, y_test = problem()
    result = run_protocol("clip-lp", X, y, X_test, y_test)
    plain = LogisticRegression(C=result.metrics["C"], max_iter=1000).fit(X, y)
    assert result.metrics["accuracy"] == plain.score(X_test, y_test)
    recalls = [(plain.predict(X_test[y_test == name]) == name).mean() for name in plain.classes_]
    assert result.metrics["mean_per_class_recall"] == pytest.approx(np.mean(recalls))
    ours = clip_lp.fit_logistic_regression(X, np.unique(y, return_inverse=True)[1], result.metrics["C"])
    np.testing.assert_allclose(ours.coef_, plain.coef_, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept_, plain.intercept_, rtol=1e-5, atol=1e-6)


def test_clip_lp_searches_the_grid_of_the_paper() -> None:
    X, y, X_test, y_test = problem()
    held_out = np.arange(len(y)) % 4 == 0
    result = run_protocol("clip-lp", X, y, X_test, y_test, held_out=held_out)
    steps = [8 * np.log10(row["C"]) for row in result.details]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert {-48, -32, -16, 0, 16, 32, 48} <= {round(step) for step in steps}
    best = max(row["held_out_accuracy"] for row in result.details)
    first = next(row for row in result.details if row["held_out_accuracy"] == best)
    assert result.metrics["C"] == first["C"]
    # The neighbours of the best, one step away, were tried.
    assert {round(8 * np.log10(first["C"])) + step for step in (-1, 1)} <= {round(step) for step in steps}
    for row in result.details:
        by_hand = LogisticRegression(C=row["C"], max_iter=1000).fit(X[~held_out], y[~held_out])
        assert row["held_out_accuracy"] == by_hand.score(X[held_out], y[held_out])
    assert result.settings["held out"] == "validation split"
    assert result.settings["held-out rows"] == held_out.sum()


def test_clip_lp_does_not_hold_out_single_rows() -> None:
    X, y, X_test, y_test = problem()
    y[0] = "alone"
    assert run_protocol("clip-lp", X, y, X_test, y_test).settings["held-out rows"] == 48
    with pytest.raises(TrainingDataError, match="at least one class must have 2 rows"):
        run_protocol("clip-lp", X[:3], ["a", "b", "c"], X_test[:1], ["a"])


@pytest.mark.parametrize("seed", [0, 5])
def test_mteb_draws_agree_with_mteb(seed: int) -> None:
    labels = [*np.random.default_rng(3).integers(0, 4, 70).tolist(), 4, 4]
    drawn = mteb_cls.draws(np.array(labels), 8, 42 + seed)
    order = list(range(len(labels)))
    for rows in drawn:
        np.random.RandomState(42 + seed).shuffle(order)
        count: dict[int, int] = defaultdict(int)
        expected = []
        for row in order:
            if count[labels[row]] < 8:
                expected.append(row)
                count[labels[row]] += 1
        assert rows.tolist() == expected
    assert len({tuple(rows) for rows in drawn}) == 10


def test_mteb_metrics_are_means_over_ten_fits() -> None:
    X, y, X_test, y_test = problem(classes=2)
    result = run_protocol("mteb-cls", X, y, X_test, y_test)
    labels, actual = (np.unique(part, return_inverse=True)[1] for part in (y, y_test))
    for size, suffix in ((8, ""), (16, "_16")):
        scores = []
        for rows in mteb_cls.draws(labels, size, 42):
            predicted = LogisticRegression(max_iter=100, random_state=42).fit(X[rows], labels[rows]).predict(X_test)
            scores.append(
                (
                    (predicted == actual).mean(),
                    f1_score(actual, predicted, average="macro"),
                    average_precision_score(actual, predicted),
                )
            )
        for name, value in zip(("accuracy", "f1", "ap"), np.mean(scores, axis=0), strict=True):
            assert result.metrics[name + suffix] == pytest.approx(value)
    assert len(result.details) == 20
    assert "ap" not in run_protocol("mteb-cls", *problem()).metrics


def test_few_shot_draws_rows_and_chooses_a_penalty_for_each() -> None:
    result = run_protocol("few-shot", *problem(train=150))
    assert [row["labels_per_class"] for row in result.details] == [1, 2, 4, 8, 16, "all"]
    assert [row["training_rows"] for row in result.details] == [3, 6, 12, 24, 48, 150]
    for row in result.details:
        assert len(row["draws"]) == len(row["C"]) == 5
        assert row["accuracy"] == pytest.approx(np.mean(row["draws"]))
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert len(set(result.details[0]["draws"])) > 1
    assert result.metrics["accuracy_all"] > result.metrics["accuracy_1"] + 0.1


def test_details_are_written_with_their_units() -> None:
    details = [{"labels_per_class": "all", "training_rows": 1200, "accuracy": 0.9, "low": 0.85, "high": 1.0}]
    details[0] |= {"draws": [0.9, 0.85], "C": [1e-6, 1e-6], "converged": True}
    result = ProtocolResult("few-shot/1", {}, {"k": [], "seeds": [1042], "temperature": 0.07}, details, 1.0)
    names, [row] = detail_table([result])
    assert names == ["labels per class", "training rows", "accuracy", "draws", "C", "converged"]
    shown = [text.replace("\xa0", " ") for text in row]
    assert shown == ["all", "1,200", "90.0 % (85.0 to 100.0)", "90.0, 85.0 %", "1e-06 each", "yes"]
    assert detail_table([result, result])[1][1][0] == "2"
    assert settings_table(result.settings) == [("seeds", "1042"), ("temperature", "0.07")]


def test_few_shot_stops_at_the_largest_class_and_is_deterministic() -> None:
    result, again, other = (run_protocol("few-shot", *problem(train=12), seed=seed) for seed in (0, 0, 1))
    assert [row["labels_per_class"] for row in result.details] == [1, 2, "all"]
    assert again.details == result.details
    assert other.details[0]["draws"] != result.details[0]["draws"]


def test_first_of_each_class_takes_all_rows_of_small_classes() -> None:
    y = np.array([0, 1, 0, 0, 1, 2])
    assert first_of_each_class(np.array([5, 4, 3, 2, 1, 0]), y, 2).tolist() == [5, 4, 3, 2, 1]


def test_crossed_interval_has_its_coverage() -> None:
    # Draws and test rows both shift the probability of a correct prediction; the true mean is over both.
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        chance = 0.7 + rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.12, (1, 200))
        mean, low, high = crossed_interval(rng.random((5, 200)) < chance)
        assert low <= mean <= high
        inside += low <= 0.7 <= high
    assert inside / 400 > 0.93
    exact = binomtest(20, 20).proportion_ci(0.95, "exact")
    assert crossed_interval(np.ones((5, 20), bool)) == pytest.approx((1.0, exact.low, 1.0))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_results_are_plain_data(name: str) -> None:
    result = run_protocol(name, *problem(train=30))
    assert result.protocol == f"{name}/{PROTOCOLS[name].version}"
    assert result.seconds > 0
    assert PROTOCOLS[name].citation
    assert json.loads(json.dumps(asdict(result))) == asdict(result)
    assert all(0 <= value <= 1 for key, value in result.metrics.items() if key != "C")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X_train": np.zeros((240, 7), np.float32)}, "equally many columns, got 7 and 8"),
        ({"X_train": np.full((240, 8), np.nan)}, "X_train must be a finite float array"),
        ({"y_train": ["a"] * 240}, "at least 2 classes, got only 'a'"),
        ({"y_test": ["new"] * 90}, "only have classes of y_train, got 'new'"),
        ({"y_test": ["class 01"]}, r"y_test must have shape \(90,\).*got \(1,\)"),
        ({"held_out": np.ones(240, bool)}, "held_out must select"),
    ],
)
def test_wrong_arrays_are_refused(change: dict[str, Any], message: str) -> None:
    arrays = dict(zip(("X_train", "y_train", "X_test", "y_test"), problem(), strict=True)) | change
    with pytest.raises(TrainingDataError, match=message):
        run_protocol("mteb-cls", **arrays)


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'dino_knn'.*dino-knn"):
        run_protocol("dino_knn", *problem())


@pytest.mark.parametrize("protocol", ["few-shot", "mteb-cls", "clip-lp"])
def test_the_largest_seed_works(protocol: str) -> None:
    largest = run_protocol(protocol, *problem(60, 30), seed=2**32 - 1)
    assert largest.metrics
    assert all(0 <= seed < 2**32 for seed in largest.settings.get("seeds", []))


@pytest.mark.parametrize(
    ("seed", "message"),
    [(-1, "seed must be >= 0, got -1"), (2**32, r"seed must be < 2\^32, got"), (0.5, "seed must be an integer, got")],
)
def test_seeds_out_of_range_are_refused(seed: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_protocol("few-shot", *problem(60, 30), seed=seed)
