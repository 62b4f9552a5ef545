"""The verb `evaluate`: output, files and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import run
from stored import clusters, make_store

from embedpipe import load_evaluation
from embedpipe.evaluation import Evaluation, EvaluationGrid

NAMES = np.array(["cat", "dog", "owl"])
QUICK = ("--heads", "centroid, lda", "--folds", "3", "--repeats", "1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that no test changes."""
    path = tmp_path_factory.mktemp("common") / "store"
    X, y = clusters(60, spread=1.0)
    labels: list[Any] = NAMES[y].tolist()
    labels[4] = None
    make_store(path, X, label=labels, number=(X[:, 0] + 0.25).tolist())
    return path


def test_first_lines_describe_rows_and_resampling(store: Path) -> None:
    shown = run("evaluate", store, *QUICK)
    assert shown.exit_code == 0, shown.output
    assert "'label', 59 rows, 3 classes: 3-fold stratified cross-validation" in shown.stdout
    assert "left out: 1 row without a label" in shown.stdout
    assert "note: no near-duplicates were found" in shown.stdout


def test_table_has_a_row_for_each_candidate(store: Path) -> None:
    lines = run("evaluate", store, *QUICK).stdout.splitlines()
    (header,) = (line for line in lines if line.lstrip().startswith("candidate"))
    for column in ("accuracy", "difference", "verdict", "log loss", "ECE", "fit", "predict 1,000"):
        assert column in header
    rows = [line for line in lines if line.lstrip().startswith(("centroid ", "lda "))]
    assert any(" best " in row for row in rows)
    assert any("most frequent class" in line for line in lines)
    assert lines[-1].startswith("best: ")


def test_verbose_shows_tests_and_splits(store: Path) -> None:
    assert "splits " not in run("evaluate", store, *QUICK).stdout
    shown = run("evaluate", store, *QUICK, "-v").stdout
    assert "(corrected resampled t-test, Holm)" in shown
    assert any(len(line.removeprefix("splits ")) == 64 for line in shown.splitlines())


def test_json_output(store: Path) -> None:
    done = run("evaluate", store, *QUICK, "--json", "--metric", "macro_f1", "--margin", "0.02")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["metric"], result["margin"], result["rows"]) == ("macro_f1", 0.02, 59)
    assert {one["name"] for one in result["candidates"]} == {"centroid", "lda"}
    assert result["candidates"][0]["difference"] is None
    assert result["candidates"][1]["difference"]["estimate"]["value"] <= 0
    assert len(result["candidates"][0]["metrics"]["accuracy"]) == 3
    assert "predictions" not in result


def test_regression(store: Path) -> None:
    shown = run("evaluate", store, "--label", "number", "--heads", "ridge", "--folds", "3", "--repeats", "1", "-v")
    assert shown.exit_code == 0, shown.output
    assert "'number', 60 rows: 3-fold cross-validation" in shown.stdout
    assert "baseline: mean" in shown.stdout
    assert "no other candidate" in shown.stdout


def test_page_predictions_and_splits_are_written(store: Path, tmp_path: Path) -> None:
    page, table = tmp_path / "new" / "page.html", tmp_path / "predictions.parquet"
    splits = tmp_path / "splits.parquet"
    shown = run("evaluate", store, *QUICK, "--page", page, "--predictions", table, "--splits", splits)
    assert shown.exit_code == 0, shown.output
    assert str(page) in shown.stdout
    text = page.read_text()
    assert "centroid" in text
    assert "lda" in text
    rows = pq.read_table(table)
    assert rows.num_rows == 2 * 59
    assert rows.column_names == ["candidate", "resample", "id", "actual", "predicted", "probabilities"]
    assert splits.exists()
    quiet = run("evaluate", store, *QUICK, "--page", page, "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_published_protocol(store: Path) -> None:
    shown = run("evaluate", store, "--protocol", "dino-knn", "--folds", "3", "-v")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("dino-knn/1, 'label': 3-fold stratified cross-validation")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["backbone", "layer", "top-1", "accuracy"] in lines
    assert ["fold", "k", "top-1", "accuracy"] in lines
    (layer,) = json.loads(run("evaluate", store, "--protocol", "dino-knn", "--folds", "3", "--json").stdout)["layers"]
    assert (layer["backbone"], layer["layers"]) == ("timm/made_up", ["features"])
    assert layer["metrics"]["top1"] == pytest.approx(np.mean([one["metrics"]["top1"] for one in layer["results"]]))
    assert run("evaluate", store, "--protocol", "dino-knn", "--folds", "3", "-q").output == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--heads", "logrec"), "unknown head 'logrec'; did you mean 'logreg'"),
        (("--heads", "lda,lda"), "heads must be unique, got lda more than once"),
        (("--label", "lable"), "did you mean 'label'? Available: "),
        (("--layer", "feature"), "did you mean 'features'"),
        (("--group", "patient"), "has no column 'patient' (--group)"),
        (("--metric", "r2"), "metric must be one of accuracy, balanced_accuracy"),
        (("--task", "multilabel"), "task must be classification or regression, got 'multilabel'"),
        (("--margin", "-1"), "--margin must be >= 0 and at most 1e+18, got -1.0"),
        (("--folds", "1"), "--folds must be >= 2"),
        (("--near-duplicates", "1.01"), "--near-duplicates must be a cosine in (0, 1] or 'off', got 1.01"),
        (("--near-duplicates", "of"), "--near-duplicates must be a cosine in (0, 1] or 'off', got 'of'"),
        (("--page", "page.pdf"), "must end in .html"),
        (("--predictions", "table.txt"), "must end in .csv, .tsv, .parquet, .jsonl or .xlsx"),
        (("--splits", "splits.csv"), "must end in .parquet"),
        (("--splits", "s3://bucket/splits.parquet"), "--splits must be a local file, got the URL"),
        (("--protocol", "clip"), "unknown protocol 'clip'; did you mean 'clip-lp'? Available: "),
        (
            ("--protocol", "clip-lp", "--heads", "lda"),
            "--heads and --backbones must be left out with --protocol clip-lp",
        ),
        (("--to", "results.txt"), "must end in .json"),
        (("--table", "table.doc"), "must end in .tex, .md, .csv, .tsv, .parquet, .jsonl or .xlsx"),
        (("--backbones", "timm/resnet18"), "backbones must be left out for feature stores"),
        (("--weights", "none"), "options of sources and backbones need backbones to embed with (--backbones)"),
        (("--protocol", "clip-lp", "--label", "number"), "protocols need classes"),
    ],
)
def test_wrong_options_have_exit_code_2_and_one_message(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("evaluate", store, *options, "-q")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("embedpipe: ")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_missing_and_repeated_stores_are_refused(store: Path, tmp_path: Path) -> None:
    assert run("evaluate").exit_code == 2
    done = run("evaluate", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    assert "got one twice" in run("evaluate", store, store).stderr


def test_protocol_writes_page_predictions_table_and_results(store: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("page.html", "predictions.csv", "table.md", "results.json")]
    options = [
        part for pair in zip(("--page", "--predictions", "--table", "--to"), files, strict=True) for part in pair
    ]
    done = run("evaluate", store, "--protocol", "dino-knn", "--folds", "2", "--repeats", "5", *options)
    assert done.exit_code == 0, done.output
    page, predictions, table, _ = (file.read_text() for file in files)
    assert "dino-knn/1" in page
    assert "Top-1 accuracy" in page
    assert predictions.splitlines()[0].replace('"', "") == ("store,backbone,layer,setting,resample,id,actual,predicted")
    assert "k = 20" in predictions
    assert "| timm/made\\_up |" in table
    again = run("evaluate", files[-1], "--table", tmp_path / "again.md")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.md").read_text() == table


@pytest.fixture(scope="module")
def results(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Two files of results, and what the command showed when it made the first, beside which lies a table."""
    folder = tmp_path_factory.mktemp("results")
    first, second = folder / "photos.json", folder / "drawings_2.json"
    shown = run("evaluate", store, *QUICK, "--to", first, "--table", first.with_suffix(".tex"))
    run("evaluate", store, *QUICK, "--seed", "1", "--to", second, "-q")
    return first, second, shown.stdout


def test_saved_result_is_shown_as_it_was_when_measured(results: tuple[Path, Path, str], tmp_path: Path) -> None:
    first, _, shown = results
    again = run("evaluate", first, "--table", tmp_path / "again.tex")
    table = first.with_suffix(".tex").read_text()
    assert table.count("\\textbf{") == 2
    assert (tmp_path / "again.tex").read_text() == table
    assert shown.split("\n\n")[1] == again.stdout.split("\n\n")[1]


def test_saved_results_of_two_datasets_are_joined(results: tuple[Path, Path, str], tmp_path: Path) -> None:
    done = run("evaluate", *results[:2], "--table", tmp_path / "joined.tex", "--page", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    header = "Backbone & Head & photos (\\%) & drawings\\_2 (\\%) & Average rank"
    assert header in (tmp_path / "joined.tex").read_text()
    assert "photos" in done.stdout
    assert 'href="page-drawings_2.html"' in (tmp_path / "page.html").read_text()
    assert (tmp_path / "page-photos.html").exists()


def test_joined_results_keep_every_dataset_and_what_failed(results: tuple[Path, Path, str], tmp_path: Path) -> None:
    photos, drawings = map(load_evaluation, results[:2])
    assert isinstance(photos, Evaluation)
    assert isinstance(drawings, Evaluation)
    grids = tmp_path / "a.json", tmp_path / "b.json"
    EvaluationGrid({"photos": photos}, {"backbone one": "too slow"}).save(grids[0])
    EvaluationGrid({"drawings": drawings}, {"backbone two": "too large"}).save(grids[1])
    done = run("evaluate", *grids, "--to", tmp_path / "all.json")
    assert done.exit_code == run("evaluate", grids[0]).exit_code == 3, done.output
    joined = load_evaluation(tmp_path / "all.json")
    assert isinstance(joined, EvaluationGrid)
    assert (list(joined.datasets), list(joined.failed)) == (["photos", "drawings"], ["backbone one", "backbone two"])
    EvaluationGrid({"drawings": drawings, "photos": drawings}).save(grids[1])
    refused = run("evaluate", *grids)
    assert (refused.exit_code, "'photos' of b.json is in another too" in refused.stderr) == (2, True)


def test_options_of_measuring_are_refused_for_saved_results(results: tuple[Path, Path, str], tmp_path: Path) -> None:
    refused = run("evaluate", results[0], "--heads", "lda")
    assert (refused.exit_code, "are measured already" in refused.stderr) == (2, True)
    assert run("evaluate", tmp_path / "none.json").exit_code == 2


def test_stores_of_several_datasets_are_columns(store: Path, tmp_path: Path) -> None:
    X, y = clusters(45, spread=2.0, seed=3)
    make_store(
        tmp_path / "other",
        X,
        label=NAMES[y].tolist(),
        content_hash=[f"{i + 900:064x}" for i in range(45)],
        source_root=["elsewhere/drawings"] * 45,
    )
    done = run("evaluate", store, tmp_path / "other", *QUICK, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [evaluation["rows"] for evaluation in result["datasets"].values()] == [59, 45]
    assert [*result["datasets"]] == ["made up", "drawings"]
    assert len(result["average_ranks"]) == 2
    shown = run("evaluate", store, tmp_path / "other", *QUICK)
    assert "Average rank" in shown.stdout


def test_label_of_a_table_is_learned(tmp_path: Path, photos: Path) -> None:
    files = [path.relative_to(tmp_path).as_posix() for path in sorted(photos.rglob("*.jpg"))]
    table = tmp_path / "photos.csv"
    table.write_text("image,kind\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(files)))
    options = ("--backbones", "python:tiny_backbone.make", "--image", "image", "--label", "kind", *QUICK)
    done = run("evaluate", table, *options, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["classes"], result["rows"]) == (["a", "b"], 12)


def test_what_is_neither_store_nor_source_is_refused_at_once(tmp_path: Path, photos: Path) -> None:
    done = run("evaluate", photos)
    assert done.exit_code == 2
    assert "or name backbones to embed with (--backbones)" in done.stderr
    done = run("evaluate", photos, tmp_path / "nowhere", "--backbones", "python:tiny_backbone.make")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    assert "tiny_backbone" not in done.stderr  # nothing was embedded


def test_backbones_embed_sources(tmp_path: Path, make_photos: Callable[..., Path]) -> None:
    sources = [make_photos(18, name=name) for name in ("photos", "drawings")]
    backbones = "python:tiny_backbone.make,timm/nothing"
    command = ("evaluate", *sources, "--backbones", backbones, "--table", tmp_path / "table.csv", *QUICK, "-q")
    done = run(*command)
    assert done.exit_code == 3, done.output
    assert "drawings, timm/nothing: timm" in done.stderr
    table = (tmp_path / "table.csv").read_text()
    assert table.splitlines()[0].replace('"', "").startswith("backbone,head,photos,photos_low,photos_high,")
    (sources[0] / "cat" / "0000.jpg").unlink()
    assert run(*command).exit_code == 3
    rows = (tmp_path / "table.csv").read_text().replace('"', "").splitlines()
    assert [line.split(",")[rows[0].split(",").index("photos_n")] for line in rows[1:]] == ["17", "17"]
