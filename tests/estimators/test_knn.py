"""kNN estimators against the published vote in NumPy and against scikit-learn."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stored import clusters, make_store

from embedpipe import FaissKNNClassifier, FaissKNNRegressor, fit, load_head


def dino_vote(
    train: npt.NDArray[Any], y: npt.NDArray[Any], queries: npt.NDArray[Any], k: int, temperature: float, classes: int
) -> npt.NDArray[np.float64]:
    """Return the votes of section 4.1 of the DINO paper, query by query: w = exp(cosine / temperature)."""
    shares = []
    for query in queries.astype(np.float64):
        cosines = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in train.astype(np.float64)]
        votes = [0.0] * classes
        for neighbour in sorted(range(len(train)), key=lambda i: (-cosines[i], i))[:k]:
            votes[y[neighbour]] += float(np.exp(cosines[neighbour] / temperature))
        shares.append([vote / sum(votes) for vote in votes])
    return np.array(shares)


@pytest.mark.parametrize("k", [1, 10, 20, 100])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_softmax_votes_equal_the_published_formula(k: int, temperature: float) -> None:
    X, y = clusters(160, classes=4, spread=2.0)
    queries, truth = clusters(60, classes=4, spread=2.0, seed=1)
    head = FaissKNNClassifier(k, weights="softmax", metric="cosine", temperature=temperature).fit(X, y)
    expected = dino_vote(X, y, queries, k, temperature, 4)
    np.testing.assert_allclose(head.predict_proba(queries), expected, atol=1e-5)
    assert (head.predict(queries) == expected.argmax(axis=1)).all()
    assert 0.2 < (head.predict(queries) == truth).mean() < 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("weights", ["uniform", "distance", lambda distances: 1 / (1 + distances)])
def test_results_equal_scikit_learn(metric: Any, weights: Any) -> None:
    X, y = clusters(200, spread=1.5)
    queries, _ = clusters(80, spread=1.5, seed=1)
    ours = FaissKNNClassifier(7, metric=metric, weights=weights).fit(X, y)
    theirs = KNeighborsClassifier(7, metric=metric, weights=weights, algorithm="brute").fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(queries), theirs.predict_proba(queries), atol=1e-4)
    for mine, other in (
        (ours.kneighbors(queries), theirs.kneighbors(queries)),
        (ours.kneighbors(), theirs.kneighbors()),
    ):
        np.testing.assert_allclose(mine[0], other[0], atol=1e-5)
        assert (mine[1] == other[1]).mean() > 0.999
    values = np.stack([X[:, 0], X[:, 1] * 2], axis=1)
    mean = FaissKNNRegressor(7, metric=metric, weights=weights).fit(X, values).predict(queries)
    other = KNeighborsRegressor(7, metric=metric, weights=weights, algorithm="brute").fit(X, values).predict(queries)
    np.testing.assert_allclose(mean, other, atol=1e-4)


def test_row_is_not_its_own_neighbour_among_copies() -> None:
    X = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    distances, result = FaissKNNClassifier(3, metric="cosine").fit(X, np.arange(12)).kneighbors()
    assert (distances == 0).all()
    for row in range(12):
        assert result[row].tolist() == [other for other in range(row // 4 * 4, row // 4 * 4 + 4) if other != row]


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.long)])
def test_works_in_a_grid_search_also_in_several_processes(n_jobs: int) -> None:
    X, y = clusters(150, spread=1.5)
    model = make_pipeline(StandardScaler(), FaissKNNClassifier(metric="cosine"))
    search = GridSearchCV(model, {"faissknnclassifier__n_neighbors": [1, 5, 15]}, cv=3, n_jobs=n_jobs).fit(X, y)
    assert search.best_params_["faissknnclassifier__n_neighbors"] > 1
    assert cross_val_score(search.best_estimator_, X, y, cv=3).mean() > 0.6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "manhattan"}, "metric must be one of cosine, euclidean, got 'manhattan'"),
        ({"weights": "softmx"}, "weights must be callable or one of .*, got 'softmx'"),
        ({"weights": "softmax"}, "needs metric='cosine'"),
        ({"weights": "softmax", "metric": "cosine", "temperature": 0}, "temperature must be > 0, got 0"),
        ({"n_neighbors": 0}, "n_neighbors must be an integer >= 1, got 0"),
        ({"recall_target": 0}, r"recall_target must be in \(0, 1\], got 0"),
        ({"recall_target": 1.5}, r"recall_target must be in \(0, 1\], got 1.5"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaissKNNClassifier(**parameters).fit([[0.0], [1.0]], [0, 1])


def test_more_neighbours_than_rows_is_refused() -> None:
    head = FaissKNNClassifier(5).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"n_neighbors must be in \[1, 2\] for 2 training rows, got 5"):
        head.predict([[0.5]])


def test_approximate_votes_are_close_to_exact_votes() -> None:
    X, y = clusters(3000, classes=5, dim=12, spread=1.5)
    queries, _ = clusters(400, classes=5, dim=12, spread=1.5, seed=1)
    exact = FaissKNNClassifier(20, weights="softmax", metric="cosine").fit(X, y)
    head = clone(exact).set_params(recall_target=0.99).fit(X, y)
    assert 0 < head.probes_ < len(head.centroids_) / 2
    assert (head.predict(queries) == exact.predict(queries)).mean() >= 0.99
    result, expected = (each.kneighbors(queries, return_distance=False) for each in (head, exact))
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(result, expected, strict=True)]) >= 0.97 * 20
    again = pickle.loads(pickle.dumps(head))
    assert (again.predict_proba(queries) == head.predict_proba(queries)).all()
    assert (clone(head).fit(X, y).cells_ == head.cells_).all()
    # Fitted again with exact search, the cells are not used.
    assert (head.set_params(recall_target=1.0).fit(X, y).kneighbors(queries)[1] == expected).all()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_approximate_head_is_saved(task: Any, tmp_path: Path) -> None:
    X, y = clusters(600, spread=1.5)
    store = make_store(tmp_path / "store", X, label=y.tolist())
    head = fit(store, label="label", head="knn-approx", task=task)
    loaded = load_head(head.save(tmp_path / "head"))
    assert loaded.estimator.probes_ == head.estimator.probes_ > 0
    assert (loaded.estimator.predict(X) == head.estimator.predict(X)).all()


def test_values_beyond_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        FaissKNNClassifier(1).fit([[1e300], [1.0]], [0, 1])
