"""`fit`: training rows, metrics, and inputs that are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from stored import clusters, make_spec, make_store
from threadpoolctl import threadpool_info, threadpool_limits

from embedpipe import FeatureStore, fit
from embedpipe.errors import HeadError, TrainingDataError, UsageError
from embedpipe.estimators import TunedLogisticRegression
from embedpipe.heads.fit import chosen_params
from embedpipe.heads.registry import HEADS
from embedpipe.heads.scoring import FitReport, measure_logits

NAMES = np.array(["cat", "dog", "owl"])


def test_metrics_equal_those_of_scikit_learn(tmp_path: Path) -> None:
    X, y = clusters(90, spread=1.5)
    report = fit(make_store(tmp_path / "s", X, label=NAMES[y]), GaussianNB()).report
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(GaussianNB(), X, NAMES[y], cv=folds)
    shares = cross_val_predict(GaussianNB(), X, NAMES[y], cv=folds, method="predict_proba").astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    assert report.protocol == "5-fold cross-validation"
    assert report.confusion == metrics.confusion_matrix(NAMES[y], predicted).tolist()
    for i, (_, test) in enumerate(folds.split(X, y)):
        truth = NAMES[y][test]
        expected = {
            "accuracy": metrics.accuracy_score(truth, predicted[test]),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted[test]),
            "macro_f1": metrics.f1_score(truth, predicted[test], average="macro"),
            "log_loss": metrics.log_loss(truth, shares[test]),
        }
        assert {name: values[i] for name, values in report.metrics.items()} == pytest.approx(expected, rel=1e-5)
    assert report.baseline["accuracy"] == pytest.approx([1 / 3] * 5)
    assert report.baseline["log_loss"] == pytest.approx([np.log(3)] * 5)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@pytest.mark.parametrize("classes", [NAMES[:2], NAMES])
def test_metrics_of_rows_without_a_class_equal_those_of_scikit_learn(classes: np.ndarray) -> None:
    """The last class is predicted and never true, so that its recall is not defined and its F1 is 0."""
    logits = np.random.default_rng(0).standard_normal((40, len(classes)))
    truth, predicted = classes[np.arange(40) % (len(classes) - 1)], classes[logits.argmax(axis=1)]
    report = FitReport("classification", "test", 40)
    measure_logits(logits, truth, np.repeat(classes, 2), classes, report)
    assert report.confusion == metrics.confusion_matrix(truth, predicted, labels=classes).tolist()
    for scores, guess in ((report.metrics, predicted), (report.baseline, np.repeat(classes[0], 40))):
        assert {name: values for name, values in scores.items() if name != "log_loss"} == {
            "accuracy": [metrics.accuracy_score(truth, guess)],
            "balanced_accuracy": [metrics.balanced_accuracy_score(truth, guess)],
            "macro_f1": [metrics.f1_score(truth, guess, average="macro", zero_division=0)],
        }
    assert report.baseline["log_loss"] == pytest.approx([np.log(len(classes))])


@pytest.mark.parametrize("name", [name for name, tasks in HEADS.items() if "classification" in tasks])
def test_every_head_learns_classes(tmp_path: Path, name: str) -> None:
    X, y = clusters(120, spread=1.0)
    head = fit(make_store(tmp_path / "s", X, label=NAMES[y]), name, folds=3)
    assert head.name == name
    assert head.classes is not None
    assert head.classes.tolist() == NAMES.tolist()
    assert np.mean(head.report.metrics["accuracy"]) > 0.7
    assert np.mean(head.report.metrics["accuracy"]) > np.mean(head.report.baseline["accuracy"]) + 0.3
    assert (head.estimator.predict(X) == NAMES[y]).mean() > 0.8
    assert ("log_loss" in head.report.metrics) == hasattr(head.estimator, "predict_proba")


@pytest.mark.parametrize("name", [name for name, tasks in HEADS.items() if "regression" in tasks])
def test_every_head_learns_numbers(tmp_path: Path, name: str) -> None:
    X, _ = clusters(150)
    y = X @ np.arange(8) / 10 + 0.25
    head = fit(make_store(tmp_path / "s", X, age=y.astype(float)), name, label="age")
    assert head.task == "regression"
    assert head.classes is None
    assert np.mean(head.report.metrics["r2"]) > 0.5
    assert np.mean(head.report.metrics["mae"]) < np.mean(head.report.baseline["mae"]) / 1.5
    assert head.report.confusion == []


def test_split_column_is_used_and_test_rows_are_not_fitted_on(tmp_path: Path) -> None:
    X, y = clusters(120, spread=1.5)
    split = np.array(["train"] * 60 + ["validation"] * 30 + ["test"] * 30, dtype=object)
    head = fit(make_store(tmp_path / "s", X, label=NAMES[y], split=split), LogisticRegression())
    seen = split != "test"
    expected = LogisticRegression().fit(X[seen], NAMES[y][seen])
    assert head.report.protocol == "test split"
    assert head.report.rows == 90
    assert head.report.measured_rows == 30
    np.testing.assert_allclose(head.estimator.coef_, expected.coef_)
    assert head.report.metrics["accuracy"] == pytest.approx([expected.score(X[~seen], NAMES[y][~seen])])


def test_penalty_is_chosen_on_the_validation_split(tmp_path: Path) -> None:
    X, y = clusters(200, spread=2.0)
    labels = y.copy()
    labels[100:150] = np.random.default_rng(0).permutation(y[100:150])
    split = ["train"] * 100 + ["validation"] * 50 + ["test"] * 50
    head = fit(make_store(tmp_path / "s", X, label=NAMES[labels], split=split), "logreg")
    known = TunedLogisticRegression(cv=[(np.arange(100), np.arange(100, 150))]).fit(X[:150], labels[:150])
    assert head.report.chosen == {"C": known.C_}
    assert known.C_ < TunedLogisticRegression().fit(X[:150], labels[:150]).C_
    assert head.estimator.cv is None


def test_without_test_rows_the_validation_rows_measure(tmp_path: Path) -> None:
    X, y = clusters(90)
    split = ["train"] * 60 + ["validation"] * 20 + [None] * 5 + ["holdout"] * 5
    report = fit(make_store(tmp_path / "s", X, label=NAMES[y], split=split), "centroid").report
    assert (report.protocol, report.rows, report.measured_rows) == ("validation split", 60, 20)
    assert report.left_out == {"whose split is not train, validation or test ('holdout')": 10}


def test_missing_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    X, y = clusters(90)
    some: list[str | None] = [str(name) for name in NAMES[y]]
    some[:10] = [None] * 10
    report = fit(make_store(tmp_path / "s", X, label=some), "centroid").report
    assert report.left_out == {"without a label": 10}
    assert report.rows == 80
    numbers = [float("nan")] * 4 + [i + 0.5 for i in range(86)]
    report = fit(make_store(tmp_path / "t", X, size=numbers), "ridge", label="size").report
    assert report.left_out == {"without a size": 4}


def test_integers_are_classes_unless_the_task_is_regression(tmp_path: Path) -> None:
    X, y = clusters(90)
    store = make_store(tmp_path / "s", X, label=y, whole=y.astype(float), yes=[bool(v) for v in y])
    assert fit(store, "ridge").task == "classification"
    assert fit(store, "ridge", label="whole").task == "classification"
    assert fit(store, "ridge", task="regression").task == "regression"
    classes = fit(store, "ridge", label="yes").classes
    assert classes is not None
    assert classes.tolist() == [False, True]


def test_zero_folds_fit_without_measuring(tmp_path: Path) -> None:
    X, y = clusters(30)
    report = fit(make_store(tmp_path / "s", X, label=NAMES[y]), "knn", folds=0).report
    assert (report.protocol, report.metrics, report.measured_rows) == ("not measured", {}, 0)


def test_class_with_fewer_rows_than_folds_is_fitted_and_not_measured(tmp_path: Path) -> None:
    X, y = clusters(60)
    labels = NAMES[y].astype("<U8")
    labels[[3, 17]] = "rare"
    head = fit(make_store(tmp_path / "s", X, label=labels), "lda")
    assert (head.report.rows, head.report.measured_rows) == (60, 58)
    assert "rare" in head.estimator.classes_
    assert "rare" not in head.held_out["actual"].to_pylist()
    assert any("not measured, with fewer rows than the 5 folds: 'rare' (2 rows)" in note for note in head.report.notes)
    assert any("folds=2" in note for note in head.report.notes)


def test_many_rows_of_rare_classes_are_refused(tmp_path: Path) -> None:
    X, y = clusters(40)
    labels = NAMES[y].astype("<U8")
    labels[:4], labels[4:8] = "a", "b"
    with pytest.raises(TrainingDataError, match="5 folds need as many labelled rows, and class 'a' of 'label' has 4"):
        fit(make_store(tmp_path / "s", X, label=labels), "lda")
    labels[:4] = "a;b"
    with pytest.raises(TrainingDataError, match=r"or take the labels apart .task='multilabel'.$"):
        fit(make_store(tmp_path / "lists", X, label=labels), "lda")


def test_class_only_in_the_test_rows_counts_as_wrong(tmp_path: Path) -> None:
    X, y = clusters(90)
    labels = NAMES[y].tolist()
    labels[-3:] = ["yak"] * 3
    report = fit(make_store(tmp_path / "s", X, label=labels, split=["train"] * 60 + ["test"] * 30), "lda").report
    assert report.metrics["accuracy"][0] <= 0.9
    assert report.metrics["log_loss"][0] > 3
    assert np.array(report.confusion).shape == (4, 4)


def case(**columns: Any) -> dict[str, Any]:
    return columns


@pytest.mark.parametrize(
    ("columns", "options", "error", "message"),
    [
        (case(), {}, TrainingDataError, "has no labels: set them from a table"),
        (case(label=[None] * 12), {}, TrainingDataError, "has no labels"),
        (case(label=["cat"] * 12), {}, TrainingDataError, "and all 12 labelled rows have the label 'cat'"),
        (case(label=["a"] * 9 + ["b"] * 3), {}, TrainingDataError, "class 'b' of 'label' has 3.*folds=3"),
        (case(label=["a"] * 11 + ["b"]), {}, TrainingDataError, "or fit without measuring"),
        (case(label=list(range(12))), {}, TrainingDataError, "task='regression'"),
        (case(species=["a", "b"] * 6), {"label": "specis"}, UsageError, "no column 'specis' .*did you mean 'species'"),
        (case(label=["a", "b"] * 6), {"layer": "feature"}, UsageError, "did you mean 'features'"),
        (case(label=["a", "b"] * 6), {"task": "regression"}, TrainingDataError, "regression needs numbers"),
        (case(label=["a", "b"] * 6), {"head": "logref"}, UsageError, "unknown head 'logref'; did you mean 'logreg'"),
        (case(label=[0.5, 1.25] * 6), {"head": "logreg"}, UsageError, "not for regression: choose ridge or knn"),
        (case(label=["a", "b"] * 6), {"head": LinearRegression()}, UsageError, "Regression is not for classification"),
        (case(label=["a", "b"] * 6), {"head": LogisticRegression}, UsageError, "head must be a name or an instance"),
        (case(label=["a", "b"] * 6), {"folds": 1}, UsageError, "folds must be >= 2.*got 1"),
        (case(label=["a", "b"] * 6), {"task": "regresion"}, UsageError, "did you mean 'regression'"),
        (case(label=["a", "b"] * 6), {"labels": "x"}, UsageError, "did you mean 'label'"),
        (case(split=["train"] * 6 + ["test"] * 6), {"label": "split", "folds": 7}, TrainingDataError, "7 folds need"),
    ],
)  # fmt: skip
def test_bad_labels_and_options_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    store = make_store(tmp_path / "s", clusters(12)[0], **columns)
    with pytest.raises(error, match=message) as raised:
        fit(store, **options)
    assert str(tmp_path) not in message
    assert isinstance(raised.value, HeadError | UsageError)


def test_vectors_with_nan_are_refused_with_an_id(tmp_path: Path) -> None:
    X, y = clusters(20)
    X[7, 2] = np.nan
    with pytest.raises(
        TrainingDataError, match=r"vectors must be finite, and 1 of .* are not, such as that of 'row-007'"
    ):
        fit(make_store(tmp_path / "s", X, label=NAMES[y]), "ridge", folds=2)


def test_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="has no labels"):
        fit(FeatureStore.create(tmp_path / "s", make_spec(4)), "ridge")


def test_error_of_an_estimator_becomes_training_data_error(tmp_path: Path) -> None:
    X, y = clusters(30)
    with pytest.raises(TrainingDataError, match=r"LogisticRegression cannot learn from these rows.*'C'"):
        fit(make_store(tmp_path / "s", X, label=NAMES[y]), LogisticRegression(C=-1))


def test_prediction_that_is_no_class_is_refused(tmp_path: Path) -> None:
    class Shouts(GaussianNB):
        def predict(self, X: Any) -> Any:
            return np.char.upper(super().predict(X).astype(str))

    X, y = clusters(30)
    store = make_store(tmp_path / "store", X, label=[f"class {number}" for number in y])
    with pytest.raises(HeadError, match="must predict classes of its training rows, and predicts 'CLASS"):
        fit(store, Shouts())


def test_split_names_may_have_other_spellings(tmp_path: Path) -> None:
    X, y = clusters(90)
    split = ["Train"] * 30 + ["training"] * 30 + ["val"] * 10 + ["TEST"] * 20
    report = fit(make_store(tmp_path / "s", X, label=NAMES[y], split=split), "centroid").report
    assert (report.protocol, report.rows, report.measured_rows, report.left_out) == ("test split", 70, 20, {})
    other = fit(make_store(tmp_path / "t", X, label=NAMES[y], split=["a"] * 45 + ["b"] * 45), "centroid").report
    assert other.protocol == "5-fold cross-validation (the split column does not name train and test)"


def test_even_classes_have_an_even_baseline(tmp_path: Path) -> None:
    X, y = clusters(48, classes=4)
    report = fit(make_store(tmp_path / "s", X, label=y), "centroid").report
    assert np.mean(report.baseline["accuracy"]) == pytest.approx(0.25, abs=0.02)


def test_default_penalty_is_used_if_no_row_can_be_held_out(tmp_path: Path) -> None:
    X, y = clusters(90)
    split = np.where(y == 2, "validation", np.where(np.arange(90) < 60, "train", "test"))
    store = make_store(tmp_path / "s", X, label=NAMES[y], split=split)
    for head, chosen in (("logreg", {"C": 0.01}), ("ridge", {"alpha": 100.0})):
        report = fit(store, head).report
        assert report.chosen == pytest.approx(chosen)
        assert report.metrics["accuracy"][0] > 0.6


def test_default_head_depends_on_the_task(tmp_path: Path) -> None:
    X, y = clusters(60)
    store = make_store(tmp_path / "s", X, label=NAMES[y], size=X[:, 0] + 0.25)
    assert fit(store, folds=0).name == "logreg"
    assert fit(store, label="size", folds=0).name == "ridge"


def test_leave_one_out_gives_no_r2(tmp_path: Path) -> None:
    X, _ = clusters(20)
    report = fit(make_store(tmp_path / "s", X, size=X[:, 0] + 0.25), "ridge", label="size", folds=20).report
    assert list(report.metrics) == ["mae"]


def test_parallel_fits_restore_the_threads_of_blas() -> None:
    X, y = clusters(400, spread=2.0)

    def threads() -> list[int]:
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with ThreadPoolExecutor(3) as pool:
            assert len(list(pool.map(lambda _: TunedLogisticRegression().fit(X, y), range(6)))) == 6
        assert threads() == before


def test_fractions_are_refused_as_classes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", clusters(12)[0], label=[0.0, 1 / 3, 2 / 3, 1.0] * 3)
    with pytest.raises(TrainingDataError, match=r"holds fractions such as 0.333.*write them as text"):
        fit(store, task="classification", folds=2)


def test_labels_that_end_in_a_zero_byte_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="end in a zero byte"):
        fit(make_store(tmp_path / "s", clusters(12)[0], label=["a", "a\0"] * 6), folds=2)


def test_numbers_written_as_text_are_learned_as_numbers_on_request(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    price = [f"{value:.2f}" for value in X[:, 0]]
    store = make_store(tmp_path / "s", X, price=price, name_=["x", *price[1:]])
    head = fit(store, head="ridge", task="regression", label="price", folds=2)
    assert head.task == "regression"
    assert np.mean(head.report.metrics["r2"]) > 0.9
    with pytest.raises(TrainingDataError, match=r"column 'name_' .* has 1 other value, such as 'x'"):
        fit(store, head="ridge", task="regression", label="name_")


def test_chosen_arrays_are_read_as_numbers_and_text() -> None:
    """LogisticRegressionCV has a C for each class: reports, JSON and pages hold numbers and strings."""
    model = GaussianNB()
    model.C_, model.alpha_ = np.array([0.5]), np.array([0.1, 1.0])
    assert chosen_params(model) == {"C": 0.5, "alpha": "0.1, 1.0"}


def test_equal_numbers_have_no_r2(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", clusters(30)[0], label=[3.5] * 30)
    report = fit(store, task="regression", progress=False).report
    assert [*report.metrics] == ["mae"]


def test_copies_across_a_split_and_copies_at_odds_are_noted(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.0)
    assert fit(make_store(tmp_path / "clean", X, label=NAMES[y]), "lda").report.notes == []
    X[40] = X[0]
    X[41] = X[1] + np.float32(1e-4)
    labels = NAMES[y].copy()
    labels[0], labels[40] = "cat", "dog"
    split = ["train"] * 40 + ["test"] * 20
    leaked, odds = fit(make_store(tmp_path / "s", X, label=labels, split=split), "lda").report.notes
    assert leaked.startswith("2 held-out rows have near-duplicates (centred cosine of at least 0.95)")
    assert "(10.0 %)" in leaked
    assert odds.startswith("1 row is an exact copy of another with another label")
    assert "'row-040' of 'row-000'" in odds
