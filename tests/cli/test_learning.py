"""The verbs fit, predict and search: what they print, write and return."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import run
from conftest import TINY, write_photo
from PIL import Image

from embedpipe import FeatureStore


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> Path:
    for i in range(12, 45):
        write_photo(photos / ("cat", "dog", "owl")[i % 3] / f"{i:04d}.jpg", seed=i)
    assert run("embed", photos, "--to", tmp_path / "store", "--backbone", TINY, "-q").exit_code == 0
    return tmp_path / "store"


def test_fit_prints_metrics_beside_the_baseline_and_draws(store: Path, tmp_path: Path) -> None:
    shown = run("fit", store, "--head", "ridge", "--to", tmp_path / "head", "--picture", tmp_path / "c.png", "-v")
    assert shown.exit_code == 0, shown.output
    assert "ridge: classification of 'label', fitted on 45 rows, alpha = " in shown.stdout
    assert "5-fold cross-validation, 45 rows" in shown.stdout
    for name in ("accuracy", "balanced accuracy", "macro f1", "always the most frequent class"):
        assert f" {name}" in shown.stdout
    assert f"confusion matrix: {tmp_path / 'c.png'}" in shown.stdout
    assert "in brackets: the 95 % interval; after +-: the standard deviation over the folds" in shown.stdout
    with Image.open(tmp_path / "c.png") as picture:
        assert min(picture.size) > 300


def test_fit_gives_the_report_as_json(store: Path) -> None:
    result = json.loads(run("fit", store, "--head", "knn", "--folds", "3", "--json").stdout)
    assert (result["head"], result["rows"], result["folder"]) == ("knn", 45, None)
    assert (result["measured_on"], result["n_folds"], result["protocol"]) == ("folds", 3, "3-fold cross-validation")
    assert len(result["metrics"]["log_loss"]) == len(result["baseline"]["accuracy"]) == 3
    assert sum(map(sum, result["confusion"])) == 45


def test_fit_quotes_a_folder_with_a_space_in_the_next_command(store: Path, tmp_path: Path) -> None:
    shown = run("fit", store, "--head", "centroid", "--to", tmp_path / "my head")
    command = shown.stdout.replace("\n", "").partition("saved in ")[2]
    assert f"embedpipe predict '{tmp_path / 'my head'}' NEW" in command


def test_fit_tells_that_the_head_is_not_saved_and_is_silent_if_quiet(store: Path) -> None:
    assert "not saved" in run("fit", store, "--head", "centroid").stdout
    assert run("fit", store, "--head", "centroid", "-q").output == ""


def test_predict_writes_one_row_per_input(store: Path, tmp_path: Path) -> None:
    assert run("fit", store, "--head", "knn", "--to", tmp_path / "head", "-q").exit_code == 0
    for i in range(4):
        write_photo(tmp_path / "new" / f"{i}.jpg", seed=100 + i)
    (tmp_path / "new/broken.jpg").write_bytes(b"no image")
    result = run("predict", tmp_path / "head", tmp_path / "new", "--to", tmp_path / "out.csv", "--trust")
    assert result.exit_code == 3, result.output
    assert "5 items: 4 predicted, 1 failed" in result.stdout
    assert "broken.jpg" in result.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "broken.jpg"]
    probabilities = ["probability_cat", "probability_dog", "probability_owl"]
    assert list(rows[0]) == ["id", "uri", "label", "confidence", "second", "margin", *probabilities, "error"]
    assert [bool(row["label"]) for row in rows] == [True] * 4 + [False]
    assert rows[4]["error"].startswith("decode: ")


def test_predict_of_a_store_needs_no_trust_and_gives_the_accuracy(store: Path, tmp_path: Path) -> None:
    run("fit", store, "--head", "knn", "--to", tmp_path / "head", "-q")
    done = run("predict", tmp_path / "head", store, "--to", tmp_path / "all.parquet", "--json")
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["failed"], facts["fitted_on"]) == (45, 0, 45)
    assert not facts.keys() & {"accuracy", "labelled"}
    other = tmp_path / "other"
    assert run("embed", store.parent / "photos", "--to", other, "--backbone", TINY, "-q").exit_code == 0
    for i in range(3):
        write_photo(store.parent / "photos/dog" / f"new-{i}.jpg", seed=900 + i)
    assert run("embed", store.parent / "photos", "--to", other, "--backbone", TINY, "-q").exit_code == 0
    for source in (other, store.parent / "photos"):  # the same photos in another store, and as files
        to = tmp_path / "all.parquet"
        facts = json.loads(run("predict", tmp_path / "head", source, "--to", to, "--json", "--trust").stdout)
        rows = [row for row in pq.read_table(to).to_pylist() if not row["fitted_on"]]
        assert [row["id"] for row in rows] == [f"dog/new-{i}.jpg" for i in range(3)]
        assert (facts["rows"], facts["fitted_on"], facts["labelled"]) == (48, 45, 3)
        assert facts["accuracy"] == pytest.approx(sum(row["label"] == row["actual"] for row in rows) / 3)


def test_predictions_have_a_name_that_is_not_overwritten(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "add --to store.head" in run("fit", store, "--head", "centroid").stdout
    assert run("fit", store, "--head", "centroid", "--folds", "0", "--to", tmp_path / "head", "-q").exit_code == 0
    assert "see predictions.csv" in run("predict", tmp_path / "head", store).stdout
    again = run("predict", tmp_path / "head", store)
    assert again.exit_code == 2
    assert "predictions.csv exists and is overwritten only if it is named" in again.stderr
    assert "there is no head" in run("predict", tmp_path / "no.head", store).stderr
    assert run("predict", tmp_path / "head", store, "--to", "predictions.csv").exit_code == 0


def test_search_prints_draws_and_writes(store: Path, tmp_path: Path) -> None:
    done = run("search", store, "cat/0003.jpg", "-k", "4", "--picture", tmp_path / "n.png", "--to", tmp_path / "n.csv")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 6
    assert done.stdout.endswith("exact, among 45 rows\n")
    with Image.open(tmp_path / "n.png") as picture:
        assert min(picture.size) > 200
    assert len((tmp_path / "n.csv").read_text().splitlines()) == 5
    new = write_photo(tmp_path / "new.jpg", seed=20)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    both = run("search", store, new, tmp_path / "bad.jpg", "-k", "1", "--trust", "--json")
    assert both.exit_code == 3
    rows = json.loads(both.stdout)["neighbours"]
    assert [(row["query"], row["id"]) for row in rows] == [("new.jpg", "owl/0020.jpg"), ("bad.jpg", None)]
    assert "bad.jpg: " in both.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "STORE", "--head", "logref"), "did you mean 'logreg'"),
        (("fit", "STORE", "--label", "lable"), "did you mean 'label'"),
        (("fit", "STORE", "--head", "knn", "--estimator", "sklearn.svm:SVC"), "give one of them"),
        (("fit", "STORE", "--estimator", "sklearn.svm"), "--estimator must be module:Class"),
        (("fit", "STORE", "--picture", "c.jpg"), "must end in .png"),
        (("predict", "nowhere", "STORE", "--to", "x.csv"), "there is no head at 'nowhere'"),
        (("predict", "nowhere", "STORE", "--to", "x.txt"), "must end in .csv, .tsv, .parquet, .jsonl or .xlsx"),
        (("search", "STORE", "cat/003.jpg"), "has no id 'cat/003.jpg'"),
        (("search", "STORE", "cat/0003.jpg", "-k", "0"), "--k must be an integer >= 1, got 0"),
    ],
)
def test_bad_usage_gives_exit_code_2_and_the_reason(store: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*(store if word == "STORE" else word for word in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_estimator_from_the_working_folder(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_own_heads.py").write_text("from sklearn.svm import LinearSVC\n\nclass Mine(LinearSVC):\n    pass\n")
    fitted = run("fit", store, "--estimator", "my_own_heads:Mine", "--to", "head", "--folds", "2")
    assert fitted.exit_code == 0, fitted.output
    assert "--to predictions.csv --trust" in fitted.stdout
    assert "types that may run code or end the process" in run("predict", "head", store, "--to", "x.csv").stderr
    assert run("predict", "head", store, "--to", "x.csv", "--trust").exit_code == 0


def test_class_only_in_the_test_rows_is_drawn_and_named(photos: Path, tmp_path: Path) -> None:
    for i in range(24):
        write_photo(tmp_path / "d" / ("train" if i < 16 else "test") / ("cat", "dog")[i % 2] / f"{i}.jpg", seed=i)
    write_photo(tmp_path / "d/test/yak/30.jpg", seed=30)
    assert run("embed", tmp_path / "d", "--to", tmp_path / "s", "--backbone", TINY, "-q").exit_code == 0
    result = run("fit", tmp_path / "s", "--head", "ridge", "--picture", tmp_path / "c.png", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["classes"] == ["cat", "dog", "yak"]
    assert facts["confusion"][2][2] == 0
    assert (tmp_path / "c.png").exists()


def test_regression_has_no_picture_and_exits_with_0(store: Path, tmp_path: Path) -> None:
    lengths = [f"{id},{i + 0.5}" for i, id in enumerate(FeatureStore(store).ids())]
    (tmp_path / "l.csv").write_text("\n".join(["id,length", *lengths]))
    assert run("label", store, tmp_path / "l.csv", "--label", "length", "--into", "length").exit_code == 0
    result = run("fit", store, "--label", "length", "--picture", tmp_path / "c.png")
    assert result.exit_code == 0, result.output
    assert "ridge: regression of 'length'" in result.stdout
    assert "no confusion matrix, as the task is regression" in result.stderr


def test_unwritable_file_gives_one_line(store: Path, tmp_path: Path) -> None:
    assert run("fit", store, "--head", "centroid", "--to", tmp_path / "head", "-q").exit_code == 0
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for place in (tmp_path / "file/x.csv", tmp_path / "folder.csv"):
        result = run("predict", tmp_path / "head", store, "--to", place)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    drawn = run("fit", store, "--head", "centroid", "--picture", tmp_path / "file/c.png")
    assert (drawn.exit_code, len(drawn.stderr.splitlines())) == (2, 1)


def test_accuracy_on_the_rows_of_the_fit_is_called_too_high(store: Path, tmp_path: Path) -> None:
    assert run("fit", store, "--head", "centroid", "--to", tmp_path / "head", "-q").exit_code == 0
    shown = run("predict", tmp_path / "head", store, "--to", tmp_path / "p.csv")
    assert "WARNING: the head was fitted on" in shown.stdout


@pytest.fixture
def labelled(store: Path, tmp_path: Path) -> Path:
    """The store with several labels per item in ``tags``, and numbers in ``length``."""
    ids = FeatureStore(store).ids()
    rows = [f"{id},{'red;round' if i % 2 else 'red' if i % 3 else ''},{i + 0.5}" for i, id in enumerate(ids)]
    (tmp_path / "l.csv").write_text("\n".join(["id,tags,length", *rows]))
    for name in ("tags", "length"):
        assert run("label", store, tmp_path / "l.csv", "--label", name, "--into", name).exit_code == 0
    return store


def test_calibrated_head_that_rejects(store: Path, tmp_path: Path) -> None:
    options = ("--head", "ridge", "--calibrate", "--reject-share", "0.2", "--folds", "3", "--to", tmp_path / "h")
    fitted = run("fit", store, *options)
    assert fitted.exit_code == 0, fitted.output
    assert ", temperature = " in fitted.stdout
    for name in ("log loss", "rejected", "accuracy of the rest"):
        assert f" {name} " in fitted.stdout
    for i in range(100, 130):
        write_photo(tmp_path / "new" / ("cat", "dog", "owl")[i % 3] / f"{i}.jpg", seed=i)
    other = tmp_path / "other"
    assert run("embed", tmp_path / "new", "--to", other, "--backbone", TINY, "-q").exit_code == 0
    shown = run("predict", tmp_path / "h", other, "--to", tmp_path / "p.csv")
    assert " rejected: do not rely on their predictions" in shown.stdout
    assert "on those that are not rejected" in shown.stdout
    with (tmp_path / "p.csv").open() as file:
        assert {row["rejected"] for row in csv.DictReader(file)} == {"true", "false"}


def test_several_labels_per_item(labelled: Path, tmp_path: Path) -> None:
    fitted = run("fit", labelled, "--label", "tags", "--task", "multilabel", "--head", "lda", "--to", tmp_path / "m")
    assert fitted.exit_code == 0, fitted.output
    assert "mean average precision" in fitted.stdout
    assert "always the most frequent labels" in fitted.stdout
    facts = json.loads(run("predict", tmp_path / "m", labelled, "--to", tmp_path / "m.csv", "--json").stdout)
    assert set(facts["labels"]) <= {"red", "round", "(none)"}


def test_intervals_of_numbers(labelled: Path) -> None:
    fitted = run("fit", labelled, "--label", "length", "--interval-coverage", "0.8", "--folds", "3")
    assert fitted.exit_code == 0, fitted.output
    assert " coverage " in fitted.stdout


def test_option_that_a_head_cannot_take_is_refused(store: Path) -> None:
    refused = run("fit", store, "--head", "knn", "--class-weight", "balanced")
    assert (refused.exit_code, refused.stderr.splitlines()[0]) == (
        2,
        "embedpipe: knn takes no --class-weight: choose logreg or ridge (--head), or leave it out",
    )
