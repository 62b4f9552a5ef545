"""`CommonComponentRemover`: fitted inside the folds, saved with every head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from stored import clusters, make_store

from embedpipe import CommonComponentRemover, FaissKNNClassifier, FeatureStore, fit, load_head
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.heads.registry import HEADS


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    X, y = clusters(60, spread=1.0)
    X += 5 * np.arange(8, dtype=np.float32)  # the common component
    return make_store(tmp_path / "store", X, label=[f"class {i}" for i in y], weight=X[:, 0] + 0.25)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.no_cover
@parametrize_with_checks([CommonComponentRemover()])
def test_passes_scikit_learn_estimator_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 3])
def test_transform_subtracts_projection_on_first_singular_vectors(dtype: Any, count: int) -> None:
    X = (np.random.default_rng(0).standard_normal((200, 9)) * np.arange(1, 10) + 2).astype(dtype)
    new = X[:5] * 2 - 1
    remover = CommonComponentRemover(count).fit(X)
    first = np.linalg.svd(X.astype(np.float64), full_matrices=False)[2][:count]
    np.testing.assert_allclose(np.abs(np.sum(remover.components_ * first, axis=1)), 1, rtol=1e-9)
    result = remover.transform(new)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, new - new @ first.T @ first, atol=1e-4 if dtype == np.float32 else 1e-9)


def test_rows_of_low_rank_lose_no_other_direction() -> None:
    rows = np.array([[2.0, 0, 0, 0], [3.0, 0, 0, 0]])
    remover = CommonComponentRemover(3).fit(rows)
    assert remover.transform([[1.0, 2, 3, 4]]).tolist() == [[0, 2, 3, 4]]
    assert CommonComponentRemover().fit(np.zeros((3, 2))).transform([[1.0, 2]]).tolist() == [[1, 2]]


@pytest.mark.parametrize("count", [0, -1, 4, 5])
def test_n_components_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"n_components must be >= 1 and < n_features=4, got {count}"):
        CommonComponentRemover(count).fit(np.eye(4))


OWN = {
    "SVC": SVC(),
    "Pipeline": make_pipeline(StandardScaler(), FaissKNNClassifier(3, metric="cosine")),
}


@pytest.mark.parametrize(
    ("head", "label"), [*((name, "label") for name in [*HEADS, *OWN]), ("ridge", "weight"), ("knn", "weight")]
)
def test_every_head_saves_the_remover_with_it(store: FeatureStore, tmp_path: Path, head: str, label: str) -> None:
    made = fit(store, OWN.get(head, head), label=label, folds=2, remove_components=1, to=tmp_path / "head")
    assert made.name == f"{head} without 1 component"
    assert made.report.chosen["remove_components"] == 1
    manifest = json.loads((tmp_path / "head/manifest.json").read_text())
    assert manifest["head"] == made.name
    assert manifest["report"]["chosen"]["remove_components"] == 1
    again = load_head(tmp_path / "head", trust=head in OWN)
    X = store.to_numpy()
    assert again.estimator.predict(X).tolist() == made.estimator.predict(X).tolist()
    assert again.predict(store).equals(made.predict(store))
    # Adding a removed component to a row does not change its prediction.
    common = made.estimator.steps[0][1].components_[0]
    if label == "label":
        assert made.estimator.predict(X + 3 * common).tolist() == made.estimator.predict(X).tolist()


def test_remover_is_fitted_on_training_rows_only(tmp_path: Path) -> None:
    X, y = clusters(60)
    split = np.array(["train", "validation", "test"])[np.arange(60) // 3 % 3]
    X[split == "test"] += 100 * np.eye(8, dtype=np.float32)[0]
    store = make_store(tmp_path / "store", X, label=y.tolist(), split=split.tolist())
    made = fit(store, "logreg", remove_components=2)
    expected = CommonComponentRemover(2).fit(X[split != "test"])
    np.testing.assert_allclose(made.estimator.steps[0][1].components_, expected.components_)
    # The penalty is chosen on the validation rows, as without the remover.
    assert made.report.chosen["C"] == made.estimator.steps[-1][1].C_
    assert made.name == "logreg without 2 components"


def test_removing_the_common_component_helps_nearest_neighbours(tmp_path: Path) -> None:
    X, y = clusters(60)
    X[:, 0] = 50 * np.random.default_rng(1).standard_normal(60)
    store = make_store(tmp_path / "store", X, label=y.tolist())
    plain, without = (fit(store, "knn", remove_components=n).report.metrics["accuracy"] for n in (0, 1))
    assert np.mean(plain) < 0.8 < np.mean(without)


def test_remove_components_option_on_the_command_line(store: FeatureStore, tmp_path: Path) -> None:
    done = run("fit", store.path, "--remove-components", 1, "--to", tmp_path / "head", "--json")
    assert json.loads(done.stdout)["head"] == "logreg without 1 component"
    assert load_head(tmp_path / "head").report.chosen["remove_components"] == 1


def test_remove_components_out_of_range_is_refused(store: FeatureStore) -> None:
    with pytest.raises(UsageError, match="remove_components must be >= 0, got -1"):
        fit(store, remove_components=-1)
    with pytest.raises(TrainingDataError, match="n_components must be >= 1 and < n_features=8, got 8"):
        fit(store, remove_components=8)
