"""`evaluate` on small made-up stores: results are consistent, and wrong arguments are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from stored import clusters, make_spec, make_store

from embedpipe import FeatureStore, fit
from embedpipe.backbones import LayerSpec
from embedpipe.errors import HeadError, TrainingDataError, UsageError
from embedpipe.evaluation import Evaluation, evaluate
from embedpipe.splits import load_splits
from embedpipe.store.schema import vector_column

NAMES = np.array(["cat", "dog", "owl", "rat"])
#: Fewer folds, for tests that do not depend on their number.
ONCE: dict[str, Any] = {"folds": 3, "repeats": 1, "progress": False}


class Twin(GaussianNB):  # type: ignore[misc]
    """Equal to its parent class, with another name."""


class Clueless(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the first class, and has neither probabilities nor scores."""

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        return np.full(len(X), self.classes_[0])


class Counting(NearestCentroid):  # type: ignore[misc]
    """Appends to a file whenever it is fitted."""

    def __init__(self, marks: str) -> None:
        super().__init__()
        self.marks = marks

    def fit(self, X: Any, y: Any) -> Self:
        with Path(self.marks).open("a") as file:
            file.write("x")
        super().fit(X, y)
        return self


def labelled(path: Path, rows: int = 60, spread: float = 1.0, classes: int = 3, **columns: Any) -> FeatureStore:
    """Make a store of clusters with names as labels."""
    X, y = clusters(rows, classes, spread=spread)
    return make_store(path, X, label=NAMES[y].tolist(), **columns)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Return a store that no test changes."""
    return labelled(tmp_path_factory.mktemp("common") / "store", 61)


def split_names(rows: int) -> list[str]:
    """Return split names: a third of the rows is for test, and every fourth of the others for validation."""
    return ["test" if i % 9 < 3 else ("validation" if i % 4 == 0 else "train") for i in range(rows)]


def check_consistency(result: Evaluation) -> None:
    """Compare the metrics with the table of predictions, resample by resample."""
    table = result.predictions
    assert list(dict.fromkeys(table["candidate"].to_pylist())) == [each.name for each in result.candidates]
    name, score = ("accuracy", accuracy_score) if result.classes else ("r2", r2_score)
    for candidate in result.candidates:
        of_candidate = table.filter(pa.compute.equal(table["candidate"], candidate.name)).to_pylist()
        for metric, values in candidate.metrics.items():
            estimate = candidate.estimates[metric]
            assert estimate.value == pytest.approx(np.mean(values))
            assert estimate.low <= estimate.value <= estimate.high
        for number, value in enumerate(candidate.metrics[name]):
            rows = [row for row in of_candidate if row["resample"] == number]
            assert len({row["id"] for row in rows}) == len(rows)
            assert value == pytest.approx(score([row["actual"] for row in rows], [row["predicted"] for row in rows]))
        assert len(of_candidate) == sum(row["resample"] < len(candidate.metrics[result.metric]) for row in of_candidate)


@pytest.fixture(scope="module")
def two_repeats(store: FeatureStore) -> Evaluation:
    """Return an evaluation of three heads by 2 x 5 folds of 61 rows."""
    return evaluate(store, heads=["centroid", GaussianNB(), "knn"], repeats=2, progress=False)


def test_evaluation_names_its_settings(two_repeats: Evaluation) -> None:
    result = two_repeats
    assert (result.label, result.task, result.metric) == ("label", "classification", "accuracy")
    assert result.higher_is_better
    assert result.resampling.startswith("2 x 5-fold stratified cross-validation")
    assert (result.n_repeats, result.n_folds, result.n_resamples) == (2, 5, 10)
    assert (result.rows, result.classes, result.left_out) == (61, ["cat", "dog", "owl"], {})
    assert result.baseline["accuracy"] == pytest.approx(21 / 61, abs=0.02)


def test_candidates_are_sorted_by_the_metric(two_repeats: Evaluation) -> None:
    assert {candidate.name for candidate in two_repeats.candidates} == {"centroid", "GaussianNB", "knn"}
    means = [candidate.estimates["accuracy"].value for candidate in two_repeats.candidates]
    assert means == sorted(means, reverse=True)
    assert two_repeats.best is two_repeats.candidates[0]
    assert two_repeats.best.difference is None


def test_metrics_agree_with_the_table_of_predictions(two_repeats: Evaluation) -> None:
    check_consistency(two_repeats)
    assert two_repeats.predictions.num_rows == 3 * 2 * 61
    assert all(len(candidate.metrics["accuracy"]) == 10 for candidate in two_repeats.candidates)


def test_class_details_count_each_row_of_the_first_repeat_once(two_repeats: Evaluation) -> None:
    for candidate in two_repeats.candidates:
        confusion = np.array(candidate.confusion)
        assert confusion.sum() == 61
        assert [scores.rows for scores in candidate.per_class] == [21, 20, 20]
        assert [scores.recall for scores in candidate.per_class] == pytest.approx(
            confusion.diagonal() / confusion.sum(1)
        )
        assert min(candidate.fit_seconds, candidate.predict_seconds, candidate.size_bytes) > 0


def test_wrong_items_are_all_errors_and_the_most_confident_is_first(two_repeats: Evaluation) -> None:
    for candidate in two_repeats.candidates:
        assert len(candidate.wrong) == 61 - np.trace(candidate.confusion)
        probabilities = [item.probability for item in candidate.wrong]
        if candidate.calibrated is None:
            assert set(probabilities) <= {None}
        else:
            assert probabilities == sorted(probabilities, reverse=True)
        assert all(item.actual != item.predicted for item in candidate.wrong)


def test_rejection_curves_end_at_the_error_rate_of_all_rows(two_repeats: Evaluation) -> None:
    for candidate in two_repeats.candidates:
        assert "distance" in {curve.signal for curve in candidate.rejection}
        for curve in candidate.rejection:
            assert curve.coverage[-1] == 1
            assert curve.risk[-1] == pytest.approx(1 - np.trace(candidate.confusion) / 61)


def test_differences_are_means_of_paired_differences(two_repeats: Evaluation) -> None:
    best = two_repeats.best.metrics["accuracy"]
    for candidate in two_repeats.candidates[1:]:
        difference = candidate.difference
        assert difference is not None
        assert difference.estimate.value == pytest.approx(np.mean(np.subtract(candidate.metrics["accuracy"], best)))
        assert difference.worse + difference.equal + difference.better == pytest.approx(1)
        assert difference.p <= difference.adjusted


def test_probabilities_are_null_for_heads_without(two_repeats: Evaluation) -> None:
    probabilities = two_repeats.predictions["probabilities"]
    assert probabilities.null_count == 2 * 61  # those of centroid
    values = np.array(probabilities.drop_null().to_pylist())
    assert values.shape == (2 * 2 * 61, 3)
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)


def test_seed_draws_other_folds(store: FeatureStore) -> None:
    seeds = (0, 1, 1)
    evaluations = [evaluate(store, heads=["centroid"], seed=seed, **ONCE) for seed in seeds]
    first, second, third = (evaluation.splits_id for evaluation in evaluations)
    assert first != second == third
    heads = [fit(store, head="centroid", seed=seed, progress=False).report.metrics for seed in seeds]
    assert heads[0] != heads[1] == heads[2]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss"])
def test_test_split_is_measured_once(tmp_path: Path, metric: str) -> None:
    store = labelled(tmp_path / "store", 90, 1.5, split=split_names(90))
    result = evaluate(store, heads=[GaussianNB(), "knn"], metric=metric, progress=False)
    assert result.resampling.startswith("test split")
    assert (result.n_repeats, result.n_folds) == (1, 1)
    check_consistency(result)
    assert {*result.predictions["id"].to_pylist()} == {f"row-{i:03d}" for i in range(90) if i % 9 < 3}
    first, second = (candidate.estimates[metric].value for candidate in result.candidates)
    assert first <= second if metric == "log_loss" else first >= second


@pytest.mark.parametrize(("metric", "test"), [("accuracy", "McNemar's exact test"), ("log_loss", "paired bootstrap")])
def test_differences_on_a_test_split(tmp_path: Path, metric: str, test: str) -> None:
    store = labelled(tmp_path / "store", 90, 1.5, split=split_names(90))
    result = evaluate(store, heads=[GaussianNB(), "knn"], metric=metric, progress=False)
    assert result.higher_is_better == (metric != "log_loss")
    first, second = (candidate.estimates[metric].value for candidate in result.candidates)
    difference = result.candidates[1].difference
    assert difference is not None
    assert difference.test == test
    assert difference.estimate.value == pytest.approx(second - first)
    assert difference.estimate.low <= difference.estimate.value <= difference.estimate.high
    assert difference.worse + difference.equal + difference.better == pytest.approx(1)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_clearly_worse_head_is_significantly_worse(tmp_path: Path, split: bool, metric: str) -> None:
    store = labelled(tmp_path / "store", 90, 0.5, split=split_names(90) if split else None)
    result = evaluate(store, heads=[Clueless(), "centroid"], repeats=1, metric=metric, progress=False)
    assert [each.name for each in result.candidates] == ["centroid", "Clueless"]
    difference = result.candidates[1].difference
    assert difference is not None
    assert difference.verdict == "worse"
    assert difference.estimate.high < 0
    assert difference.adjusted == difference.p < 0.01  # a single test is not corrected
    assert difference.worse > 0.99
    assert set(result.candidates[1].metrics) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert result.candidates[1].calibration is result.candidates[1].calibrated is None
    assert result.candidates[1].metrics["accuracy"] == pytest.approx(
        [1 / 3] * len(result.best.metrics["accuracy"]), abs=0.03
    )


@pytest.mark.parametrize(("metric", "split"), [("accuracy", True), ("log_loss", False), ("brier", True)])
def test_equal_heads_do_not_differ(tmp_path: Path, metric: str, split: bool) -> None:
    store = labelled(tmp_path / "store", 60, 1.5, split=split_names(60) if split else None)
    result = evaluate(store, heads=[GaussianNB(), Twin()], metric=metric, **ONCE)
    assert [each.name for each in result.candidates] == ["GaussianNB", "Twin"]  # ties keep the given order
    difference = result.candidates[1].difference
    assert difference is not None
    assert (difference.estimate.value, difference.p, difference.adjusted) == (0, 1, 1)
    # Heads that agree on few rows may differ on others.
    assert difference.verdict == "undecided"
    assert difference.estimate.high == pytest.approx(-difference.estimate.low)
    assert difference.estimate.high > 0.03
    assert difference.equal < 0.9


def test_margin_decides_what_is_equivalent(tmp_path: Path) -> None:
    store = labelled(tmp_path / "store", 90, 1.2)
    heads = ["centroid", GaussianNB()]
    wide, none = (evaluate(store, heads=heads, margin=margin, **ONCE) for margin in (0.9, 0.0))
    assert (wide.margin, none.margin) == (0.9, 0.0)
    verdicts = [each.difference.verdict for result in (wide, none) for each in result.candidates if each.difference]
    assert verdicts[0] == "equivalent"
    assert verdicts[1] in ("undecided", "worse")
    assert wide.splits_id == none.splits_id


def test_p_values_are_corrected_for_all_pairs(store: FeatureStore) -> None:
    result = evaluate(store, heads=["centroid", "ridge", GaussianNB(), Clueless()], **ONCE)
    tests = [each.difference for each in result.candidates if each.difference]
    assert len(tests) == 3
    smallest = min(tests, key=lambda each: each.p)
    assert smallest.adjusted == pytest.approx(min(6 * smallest.p, 1))  # all pairs of four


def store_of_numbers(path: Path) -> FeatureStore:
    """Make a store whose label is a linear function of the first feature."""
    X, _ = clusters(60)
    return make_store(path, X, label=(2.0 * X[:, 0] + 100.5).tolist())


def test_regression_orders_candidates_by_r2(tmp_path: Path) -> None:
    result = evaluate(store_of_numbers(tmp_path / "store"), heads=["knn", Ridge()], **ONCE)
    assert (result.task, result.metric, result.classes) == ("regression", "r2", [])
    assert result.resampling.startswith("3-fold cross-validation")
    assert [candidate.name for candidate in result.candidates] == ["Ridge", "knn"]
    assert list(result.best.metrics) == ["r2", "mae", "rmse"]
    assert result.best.estimates["r2"].value > 0.99
    assert result.baseline["r2"] < 0.05
    check_consistency(result)


def worst_row(predictions: pa.Table) -> str:
    error = np.abs(predictions["actual"].to_numpy() - predictions["predicted"].to_numpy())
    return str(predictions["id"][int(error.argmax())])


def test_regression_has_no_class_details(tmp_path: Path) -> None:
    result = evaluate(store_of_numbers(tmp_path / "store"), heads=["knn"], **ONCE)
    assert "probabilities" not in result.predictions.column_names
    best = result.best
    assert [best.per_class, best.confusion, best.rejection] == [[], [], []]
    assert best.wrong[0].id == worst_row(result.predictions)
    assert 0 < len(best.wrong) <= 100


def test_regression_by_an_error_orders_candidates_ascending(tmp_path: Path) -> None:
    result = evaluate(store_of_numbers(tmp_path / "store"), heads=["knn", Ridge()], metric="mae", **ONCE)
    assert not result.higher_is_better
    assert result.best.name == "Ridge"
    difference = result.candidates[1].difference
    assert difference is not None
    assert difference.estimate.value > 0
    assert difference.verdict == "worse"


def test_default_heads_of_regression(tmp_path: Path) -> None:
    result = evaluate(store_of_numbers(tmp_path / "store"), **ONCE)
    assert {candidate.name for candidate in result.candidates} == {"ridge", "knn"}


def test_whole_numbers_are_classes_by_default(tmp_path: Path) -> None:
    store = make_store(tmp_path / "counts", clusters(60)[0], label=np.arange(60) % 3)
    assert evaluate(store, heads=["centroid"], **ONCE).classes == ["0", "1", "2"]
    assert evaluate(store, heads=["ridge"], task="regression", **ONCE).task == "regression"


def two_layers(path: Path, rows: int = 60) -> FeatureStore:
    """Make a store whose first layer is noise, and whose second layer is informative."""
    X, y = clusters(rows, spread=0.5)
    spec = make_spec(4)
    store = FeatureStore.create(path, dataclasses.replace(spec, layers=(*spec.layers, LayerSpec("early", "avg", 8))))
    noise = np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)
    columns = {
        "id": [f"row-{i:03d}" for i in range(rows)],
        "content_hash": [f"{i:064x}" for i in range(rows)],
        "source_root": ["made up"] * rows,
        "label": NAMES[y],
        "embedding": vector_column(noise),
        "embedding_early": vector_column(X),
    }
    store.write(pa.table(columns))
    return store.refresh()


def test_layers_are_compared_and_joined(tmp_path: Path) -> None:
    store = two_layers(tmp_path / "store")
    result = evaluate(store, heads="centroid", **ONCE)
    assert [each.name for each in result.candidates] == ["centroid on early", "centroid on features"]
    assert [each.dim for each in result.candidates] == [8, 4]
    early = evaluate(store, heads=["centroid"], layer=("early",), **ONCE)
    assert [(each.name, each.layers) for each in early.candidates] == [("centroid", ("early",))]
    both = evaluate(store, heads=GaussianNB(), layer="early+features", **ONCE)
    assert (both.best.layers, both.best.dim) == (("early", "features"), 12)


def test_auto_chooses_the_informative_layer(tmp_path: Path) -> None:
    store = two_layers(tmp_path / "store", 45)
    result = evaluate(store, heads=["auto", "centroid"], folds=2, repeats=1, progress=False)
    assert {each.name for each in result.candidates} == {"auto", "centroid on features", "centroid on early"}
    (auto,) = (each for each in result.candidates if each.name == "auto")
    assert (auto.layers, auto.dim) == (("features", "early"), 12)
    assert auto.estimates["accuracy"].value > 0.9
    assert result.candidates[-1].name == "centroid on features"
    assert auto.calibration is not None  # auto has probabilities of its own
    check_consistency(result)
    json.dumps(result.to_dict())


def test_backbones_are_compared_on_common_rows(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.0)
    names = NAMES[y].tolist()
    first = make_store(tmp_path / "first", X, label=names)
    order = 10 + np.random.default_rng(0).permutation(50)
    second = FeatureStore.create(tmp_path / "second", make_spec(8, "other"))
    rows = {
        "id": [f"row-{i:03d}" for i in order],
        "content_hash": [f"{i:064x}" for i in order],
        "source_root": ["made up"] * 50,
        "label": NAMES[y[order]],
        "embedding": vector_column(X[order]),
    }
    second.write(pa.table(rows))
    second.refresh()
    result = evaluate([first, second], heads=["centroid"], **ONCE)
    assert (result.rows, result.left_out) == (50, {f"not in {second.path}": 10})
    assert {each.name for each in result.candidates} == {"centroid of timm/made_up", "centroid of timm/other"}
    # The vectors are equal, so that the metrics are equal if rows are matched by id.
    a, b = result.candidates
    assert a.metrics == b.metrics
    assert a.confusion == b.confusion
    check_consistency(result)
    assert {*result.predictions["id"].to_pylist()} == {f"row-{i:03d}" for i in range(10, 60)}


def test_stores_of_different_items_or_labels_are_refused(tmp_path: Path) -> None:
    store = labelled(tmp_path / "store")
    X, y = clusters(60)
    other = make_store(tmp_path / "other", X, "other", label=np.roll(NAMES[y], 1).tolist())
    with pytest.raises(TrainingDataError, match=r"agree on 'label', and 60 items differ.*'row-000'.*embedpipe label"):
        evaluate([store, other], **ONCE)
    strange = FeatureStore.create(tmp_path / "strange", make_spec(8))
    rows = {"id": ["a"], "content_hash": ["0" * 64], "source_root": ["x"], "embedding": vector_column(X[:1])}
    strange.write(pa.table(rows))
    with pytest.raises(UsageError, match="none of the ids of"):
        evaluate([store, strange.refresh()], **ONCE)
    unlike = make_store(tmp_path / "unlike", X, "other", content_hash=[f"{i:064x}" for i in range(100, 160)])
    message = r"60 of 60 items with the same id have another content in .*unlike.*, such as 'row-000'"
    with pytest.raises(UsageError, match=message):
        evaluate([store, unlike], **ONCE)
    with pytest.raises(UsageError, match="got one twice"):
        evaluate([store, tmp_path / "store"], **ONCE)
    with pytest.raises(UsageError, match="at least one feature store"):
        evaluate([], **ONCE)


def test_items_that_changed_between_two_stores_are_left_out(tmp_path: Path) -> None:
    store = labelled(tmp_path / "store")
    hashes = [f"{i + 1000 * (i < 7):064x}" for i in range(60)]
    other = make_store(tmp_path / "other", clusters(60)[0], "other", content_hash=hashes)
    result = evaluate([store, other], heads=["centroid"], **ONCE)
    assert (result.rows, result.left_out) == (53, {f"with another content in {other.path}": 7})
    assert not {f"row-{i:03d}" for i in range(7)} & {*result.predictions["id"].to_pylist()}


def test_items_without_a_content_hash_are_noted(tmp_path: Path) -> None:
    store = labelled(tmp_path / "store")
    other = make_store(tmp_path / "other", clusters(60)[0], "other", content_hash=[""] * 60)
    result = evaluate([store, other], heads=["centroid"], **ONCE)
    assert (result.rows, result.left_out) == (60, {})
    assert any("without a content hash: 60 rows of" in note for note in result.notes)


def test_scikit_learn_estimators_as_heads(store: FeatureStore) -> None:
    both = [GaussianNB(), GaussianNB(var_smoothing=1e3)]
    result = evaluate(store, heads=both, **ONCE)
    assert {each.name for each in result.candidates} == {"GaussianNB()", "GaussianNB(var_smoothing=1000.0)"}
    assert not hasattr(both[0], "classes_")  # estimators of the user are cloned
    with pytest.raises(UsageError, match=r"heads must be picklable, and Pipeline is not: replace lambdas"):
        evaluate(store, heads=[make_pipeline(FunctionTransformer(lambda x: x), GaussianNB())], **ONCE)
    with pytest.raises(UsageError, match="Ridge is not for classification"):
        evaluate(store, heads=[Ridge()], **ONCE)
    with pytest.raises(UsageError, match="head must be a name or an instance of a scikit-learn estimator"):
        evaluate(store, heads=[GaussianNB], **ONCE)


def test_groups_stay_in_one_fold(tmp_path: Path) -> None:
    patients = [f"patient {i // 4}" for i in range(60)]
    store = labelled(tmp_path / "store", patient=patients)
    result = evaluate(store, heads=["centroid"], group="patient", **ONCE)
    assert result.resampling == "3-fold stratified cross-validation, groups together"
    fold_of: dict[str, int] = {}
    for row in result.predictions.to_pylist():
        patient = patients[int(row["id"].removeprefix("row-"))]
        assert fold_of.setdefault(patient, row["resample"]) == row["resample"]
    assert len(fold_of) == 15
    assert result.splits_id != evaluate(store, heads=["centroid"], **ONCE).splits_id


def test_near_duplicates_are_reported_and_stay_in_one_fold(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.0)
    X[30:40] = X[:10] + 1e-4
    store = make_store(tmp_path / "store", X, label=NAMES[y].tolist())
    result = evaluate(store, heads=["centroid"], **ONCE)
    assert "near-duplicates together" in result.resampling
    assert any("near-duplicates" in note and "20 rows" in note for note in result.notes)
    fold = {row["id"]: row["resample"] for row in result.predictions.to_pylist()}
    assert all(fold[f"row-{i:03d}"] == fold[f"row-{i + 30:03d}"] for i in range(10))
    apart = evaluate(store, heads=["centroid"], near_duplicates="off", **ONCE)
    assert "together" not in apart.resampling
    fold = {row["id"]: row["resample"] for row in apart.predictions.to_pylist()}
    assert any(fold[f"row-{i:03d}"] != fold[f"row-{i + 30:03d}"] for i in range(10))


def test_splits_are_saved_and_reused(store: FeatureStore, tmp_path: Path) -> None:
    file = tmp_path / "splits.parquet"
    first = evaluate(store, heads=["centroid"], splits=str(file), **ONCE)
    assert load_splits(file).identity == first.splits_id
    # The file decides, whatever folds and repeats are.
    again = evaluate(store, heads=[GaussianNB()], splits=str(file), folds=5, repeats=2, progress=False)
    assert (again.splits_id, again.resampling) == (first.splits_id, first.resampling)
    assert again.predictions.select(["resample", "id"]).equals(first.predictions.select(["resample", "id"]))
    given = evaluate(store, heads=["centroid"], splits=load_splits(file), **ONCE)
    assert (given.splits_id, given.candidates[0].metrics) == (first.splits_id, first.candidates[0].metrics)
    assert given.notes[-1] == "splits are given: folds, repeats and near_duplicates are not used"
    smaller = make_store(tmp_path / "smaller", clusters(40)[0], label=NAMES[clusters(40)[1]].tolist())
    with pytest.raises(UsageError, match=r"21 of the 61 ids of these splits are missing, such as 'row-040'"):
        evaluate(smaller, heads=["centroid"], splits=str(file), **ONCE)
    with pytest.raises(UsageError, match=r"must end in \.parquet"):
        evaluate(store, heads=["centroid"], splits=str(tmp_path / "splits.json"), **ONCE)
    (tmp_path / "none.parquet").write_text("nothing")
    with pytest.raises(UsageError, match="cannot read splits"):
        evaluate(store, heads=["centroid"], splits=str(tmp_path / "none.parquet"), **ONCE)


def test_rerun_is_equal_and_fits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    store, marks = labelled(tmp_path / "store"), tmp_path / "marks"
    heads = [Counting(str(marks)), "knn"]

    def fits() -> int:
        return len(marks.read_text())

    def plain(result: Evaluation) -> dict[str, Any]:
        return {key: value for key, value in result.to_dict().items() if key != "seconds"}

    first = evaluate(store, heads=heads, **ONCE)
    once = fits()
    assert once >= 3
    again = evaluate(tmp_path / "store", heads=heads, metric="accuracy", **ONCE)
    assert fits() == once
    assert plain(again) == plain(first)  # with times and sizes: nothing was measured again
    assert again.predictions.equals(first.predictions)
    # Another metric or margin needs no new fits; other splits and another version of the store do.
    evaluate(store, heads=heads, metric="macro_f1", margin=0.1, **ONCE)
    assert fits() == once
    evaluate(store, heads=heads, **{**ONCE, "folds": 4})
    assert fits() > once
    more = fits()
    X, y = clusters(60, spread=1.0, seed=5)
    store.write(
        pa.table(
            {
                "id": [f"row-{i:03d}" for i in range(60)],
                "content_hash": [f"{i + 60:064x}" for i in range(60)],
                "source_root": ["made up"] * 60,
                "label": NAMES[y],
                "embedding": vector_column(X),
            }
        )
    )
    changed = evaluate(tmp_path / "store", heads=heads, **ONCE)
    assert fits() > more
    assert plain(changed) != plain(first)


def test_rare_class_is_left_out_with_a_note(tmp_path: Path) -> None:
    X, y = clusters(60, 2)
    names = NAMES[y]
    names[:2] = "ant"
    result = evaluate(make_store(tmp_path / "store", X, label=names.tolist()), heads=["centroid", GaussianNB()], **ONCE)
    assert result.rows == 58
    assert result.classes == ["cat", "dog"]
    ((reason, count),) = result.left_out.items()
    assert "'ant'" in reason
    assert count == 2
    assert any("'ant' (2 rows) left out" in note for note in result.notes)
    assert not {"row-000", "row-001"} & {*result.predictions["id"].to_pylist()}
    assert np.shape(result.best.confusion) == (2, 2)
    assert "roc_auc" in result.best.metrics  # two classes are left
    check_consistency(result)


def test_booleans_are_classes(tmp_path: Path) -> None:
    X, y = clusters(60, 2)
    result = evaluate(make_store(tmp_path / "store", X, label=(y == 1).tolist()), heads="lda", metric="roc_auc", **ONCE)
    assert result.classes == ["False", "True"]
    assert result.best.estimates["roc_auc"].value > 0.9
    assert {*result.predictions["predicted"].to_pylist()} == {True, False}
    check_consistency(result)


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    X, y = clusters(60)
    names: list[str | None] = NAMES[y].tolist()
    names[4] = None
    result = evaluate(make_store(tmp_path / "store", X, label=names), heads=["centroid"], **ONCE)
    assert (result.rows, result.left_out) == (59, {"without a label": 1})


def test_class_of_test_rows_only_counts_as_wrong(tmp_path: Path) -> None:
    X, y = clusters(90)
    names, split = NAMES[y], split_names(90)
    names[0] = "ant"  # of a test row
    result = evaluate(
        make_store(tmp_path / "store", X, label=names.tolist(), split=split), heads=["lda"], progress=False
    )
    assert result.classes == ["ant", "cat", "dog", "owl"]
    assert result.best.per_class[0].recall == 0
    assert any("'ant' count as wrong" in note for note in result.notes)
    row = result.predictions.filter(pa.compute.equal(result.predictions["id"], "row-000")).to_pylist()[0]
    assert row["actual"] == "ant"
    assert row["probabilities"][0] == 0
    check_consistency(result)


def test_split_column_can_be_the_label(tmp_path: Path) -> None:
    result = evaluate(labelled(tmp_path / "store", split=split_names(60)), heads=["centroid"], label="split", **ONCE)
    assert result.classes == ["test", "train", "validation"]
    assert "cross-validation" in result.resampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": ("feature",)}, r"no layer 'feature'.*did you mean 'features'"),
        ({"label": "lable"}, r"no column 'lable' \(label=\.\.\.\); did you mean 'label'"),
        ({"group": "patient"}, r"no column 'patient' \(group=\.\.\.\).*Available: "),
        ({"metric": "acuracy"}, r"metric must be one of .*got 'acuracy'; did you mean 'accuracy'"),
        ({"metric": "r2"}, r"metric must be one of accuracy, .* for classification, got 'r2'"),
        ({"metric": "roc_auc", "heads": ["centroid"]}, "metric 'roc_auc' needs 2 classes, got 3"),
        (
            {"metric": "log_loss", "heads": ["centroid", "lda"]},
            "metric 'log_loss' needs heads with predict_proba, and centroid has none",
        ),
        ({"heads": ["centroid", "centroid"]}, "heads must be unique, got centroid more than once"),
        ({"heads": ["auto", "auto"]}, "got auto more than once"),
        ({"heads": [GaussianNB(), GaussianNB()]}, r"got GaussianNB\(\) more than once"),
        ({"heads": ["logrec"]}, r"unknown head 'logrec'; did you mean 'logreg'"),
        ({"task": "multilabel"}, "task must be classification or regression, got 'multilabel'"),
        ({"task": "regression"}, "regression needs numbers"),
        ({"margin": -0.1}, r"margin must be >= 0 and at most 1e\+18, got -0.1"),
        ({"margin": float("nan")}, "got nan"),
        ({"margin": float("inf")}, "got inf"),
        ({"folds": 1}, "folds must be >= 2 and repeats >= 1, got 1 and 1"),
        ({"folds": 30}, "fewer than the 30 folds"),
        ({"near_duplicates": 1.01}, "near_duplicates must be .* got 1.01"),
        ({"near_duplicates": 0.0}, r"near_duplicates must be a cosine in \(0, 1\] or 'off', got 0\.0"),
        ({"heads": None}, r"heads must be a head or a list of heads"),
        ({"splits": 3}, r"splits must be a path or a Splits, got 3"),
        (
            {"repeats": 5, "protocol": "clip-lp", "metric": "brier"},
            "metric='brier' must be left out with protocol='clip-lp'",
        ),
        ({"repeats": 5, "protocol": "clip-lp", "margin": 0.2}, r"margin=0\.2 must be left out with protocol"),
        ({"repeats": 2, "protocol": "clip-lp"}, "repeats=2 must be left out with protocol"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"seed": 2**32}, r"seed must be < 2\^32, got 4294967296"),
        ({"marign": 0.1}, r"unknown option 'marign'; did you mean 'margin'"),
    ],
)
def test_wrong_arguments_are_refused(store: FeatureStore, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, HeadError), match=message):
        evaluate(store, **{**ONCE, **options})


def test_store_without_labels_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", clusters(20)[0])
    with pytest.raises(TrainingDataError, match=r"no labels: set them from a table with `embedpipe label"):
        evaluate(store, **ONCE)


def test_to_dict_and_to_frame(store: FeatureStore) -> None:
    result = evaluate(store, heads=["logreg", "ridge", "knn"], **ONCE)
    plain = result.to_dict()
    assert "predictions" not in plain
    read = json.loads(json.dumps(plain, allow_nan=False))
    assert [each["name"] for each in read["candidates"]] == [each.name for each in result.candidates]
    assert read["candidates"][1]["difference"]["verdict"] in ("equivalent", "undecided", "worse")
    frame = result.to_frame()
    assert frame["candidate"].tolist() == [each.name for each in result.candidates]
    assert frame["accuracy"].tolist() == [each.estimates["accuracy"].value for each in result.candidates]
    assert frame["verdict"][0] == "best"
    assert frame["difference"][0] == 0
    assert (frame["accuracy_low"] <= frame["accuracy"]).all()
    (logreg,) = (each for each in result.candidates if each.name == "logreg")
    assert len(logreg.chosen["C"]) == 3


def test_repr_is_one_line_and_html_is_escaped(tmp_path: Path) -> None:
    result = evaluate(labelled(tmp_path / "store"), heads=["centroid", NearestCentroid()], **ONCE)
    result.candidates[1].name = "<b>"
    assert repr(result).startswith("Evaluation(label='label', best='")
    assert repr(result).endswith("2 candidates, 60 rows, 3-fold stratified cross-validation)")
    assert repr(result.best).endswith("verdict='best')")
    assert ">&lt;b&gt;</td>" in result._repr_html_()
