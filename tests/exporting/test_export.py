"""The verb export: what it writes, what it refuses, and that the model gives what the head gives."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from command import run
from exported_script import Exported, script_of

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.errors import HeadError, UsageError
from embedpipe.exporting import load_exported
from embedpipe.exporting.comparing import (
    Expected,
    Rows,
    compare,
    require_accurate,
    require_enough_rows,
    require_equal,
    require_near,
    split_rows,
)
from embedpipe.exporting.result import Comparison


def test_folder_is_whole_and_says_what_it_is(exported: Exported) -> None:
    assert {path.name for path in exported.folder.iterdir()} == {"model.onnx", "model.json", "predict.py", "README.md"}
    settings = json.loads((exported.folder / "model.json").read_text())
    assert settings["classes"] == ["cat", "dog"]
    assert settings["opset"] == 18
    assert settings["preprocessing"]["crop"] == [32, 32]
    comparison = exported.export.comparison
    assert (comparison.rows, comparison.held_out, comparison.labelled, comparison.different_labels) == (24, 8, 8, 0)
    assert comparison.largest_difference <= 1e-4
    card = (exported.folder / "README.md").read_text()
    assert "tiny_backbone:make" in card
    assert re.search(r"\| accuracy \| [\d.]+ \([\d.]+ to [\d.]+\) \|", card)
    assert "24 items, 8 of them held out: all labels equal" in card


def test_graph_takes_any_number_of_photos_and_names_no_place_of_this_machine(exported: Exported) -> None:
    model = onnx.load(str(exported.folder / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    (given,), (output,) = model.graph.input, model.graph.output
    assert given.name == "pixels"
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [0, 32, 32, 3]
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [0, 2]
    for path in exported.folder.iterdir():
        assert str(Path(embedpipe.__file__).parents[1]).encode() not in path.read_bytes()


def test_exported_model_gives_the_table_of_the_head(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.photos, tmp_path / "new")
    (tmp_path / "new" / "test" / "cat" / "broken.jpg").write_bytes(b"no picture")
    model = load_exported(exported.folder)
    given = model.predict(tmp_path / "new")
    expected = exported.head.predict(tmp_path / "new", trust=True).drop_columns("fitted_on")
    assert given.column_names == expected.column_names
    for name in ("id", "uri", "label", "second", "actual", "error"):
        assert given[name].to_pylist() == expected[name].to_pylist()
    for name in ("confidence", "margin", "probability_cat", "probability_dog"):
        good = expected["error"].is_null()
        np.testing.assert_allclose(given[name].filter(good), expected[name].filter(good), atol=1e-4)


def test_least_confident_first_sorts_the_table(exported: Exported) -> None:
    sure = load_exported(exported.folder / "model.onnx").predict(exported.photos, least_confident_first=True)
    assert sure["confidence"].to_pylist() == sorted(sure["confidence"].to_pylist())


def test_a_store_is_no_source_of_an_exported_model(exported: Exported) -> None:
    with pytest.raises(UsageError, match="an exported model takes images, and the source is a feature store"):
        load_exported(exported.folder).predict(exported.head.store)


def test_command_predicts_with_an_exported_folder(exported: Exported, tmp_path: Path) -> None:
    done = run("predict", exported.folder, exported.photos, "--to", tmp_path / "table.csv")
    assert done.exit_code == 0, done.output
    assert "24 items: 24 predicted, 0 failed" in done.output
    assert "accuracy" in done.output
    refused = run("predict", exported.folder, exported.photos, "--to", tmp_path / "table.csv", "--engine", "torch")
    assert refused.exit_code == 2
    assert "--engine is for the network of a head" in refused.stderr


def test_model_that_differs_is_refused_with_the_worst_item(exported: Exported) -> None:
    expected = Expected(
        [{"pixels": np.zeros((2, 1))}], np.array([[0.7, 0.3], [0.6, 0.4]]), ["a", "b"], ["cat"] * 2, 2, 0
    )
    show = Progress(False)
    near = compare(exported.head, expected, lambda _: np.array([[0.70009, 0.29991], [0.6, 0.4]]), show)
    require_equal(near, expected.outputs, "probabilities")
    far = compare(exported.head, expected, lambda _: np.array([[0.7, 0.3], [0.6002, 0.3998]]), show)
    with pytest.raises(HeadError, match=r"largest difference 2.0e-04.*; the worst item is 'b'"):
        require_equal(far, expected.outputs, "probabilities")
    other = compare(exported.head, expected, lambda _: np.array([[0.3, 0.7], [0.6, 0.4]]), show)
    assert other.different_labels == 1
    with pytest.raises(HeadError, match="1 different label"):
        require_equal(other, expected.outputs, "probabilities")
    with pytest.raises(HeadError, match="must give finite outputs of shape"):
        compare(exported.head, expected, lambda _: np.full((2, 2), np.nan), show)


def test_excluded_rows_are_not_compared(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.head.store, tmp_path / "photos.features")
    store = embedpipe.FeatureStore(tmp_path / "photos.features")
    excluded = [id for id in store.ids() if id.startswith("test/")]
    store.exclude(pa.table({"id": excluded, "excluded": ["copy"] * len(excluded)}))
    checked, fitted = split_rows(exported.head, store)
    assert checked.held_out == 0
    assert set(checked.ids) == set(fitted.ids) == set(store.ids()) - set(excluded)
    learned = Comparison(16, 0, 1e-9, "a", 0, labelled=16, accuracy=1.0, accuracy_of_head=1.0)
    assert learned.words == "16 items of its store: all labels equal, largest difference 1.0e-09"


def test_accuracy_of_another_precision_is_bounded(exported: Exported) -> None:
    many = np.tile([0.7, 0.3], (1000, 1))
    expected = Expected([{"pixels": np.zeros((1000, 1))}], many, ["x"] * 1000, ["cat"] * 1000, held_out=1000, failed=0)

    def model_with_mistakes(count: int) -> np.ndarray:
        outputs = many.copy()
        outputs[:count] = outputs[:count, ::-1]
        return outputs

    same = compare(exported.head, expected, lambda _: many, Progress(False), exact=False)
    assert same.loss_bound is not None
    assert same.loss_bound < 0.01
    require_accurate(same, "int8")
    worse = compare(exported.head, expected, lambda _: model_with_mistakes(12), Progress(False), exact=False)
    assert worse.accuracy == 0.988
    with pytest.raises(HeadError, match=r"precision='int8' may lose .* points of accuracy, and at most 1 is allowed"):
        require_accurate(worse, "int8")


def test_numbers_that_a_precision_moves_far_are_refused(exported: Exported) -> None:
    head = dataclasses.replace(exported.head, report=dataclasses.replace(exported.head.report, task="regression"))
    years = 30_000 + np.arange(100.0)[:, None]  # float16 keeps each sixteenth
    expected = Expected([{"pixels": np.zeros((100, 1))}], years, ["x"] * 100, [None] * 100, held_out=100, failed=0)
    halves = compare(head, expected, lambda _: years.astype(np.float16), Progress(False), exact=False)
    with pytest.raises(HeadError, match=r"at most 10 % of the spread .* which is 28.9, and moves that of 'x' by 8"):
        require_near(halves, years, "float16")
    small = dataclasses.replace(expected, outputs=years - 30_000)
    near = compare(head, small, lambda _: small.outputs.astype(np.float16), Progress(False), exact=False)
    require_near(near, small.outputs, "float16")


def test_script_takes_the_only_column_of_a_table_or_the_named_one(tmp_path: Path) -> None:
    script = script_of("text", tmp_path / "script")
    (tmp_path / "one.csv").write_text("body\nhello\n")
    (tmp_path / "two.csv").write_text("words,who\nhello,me\n")
    (only,) = script.texts_in(str(tmp_path / "one.csv"), "label", None)
    (named,) = script.texts_in(str(tmp_path / "two.csv"), "label", "words")
    assert only["payload"] == named["payload"] == "hello"
    with pytest.raises(SystemExit, match="must have a column 'text', and has words, who: name one of them by --text"):
        script.texts_in(str(tmp_path / "two.csv"), "label", None)


def test_int8_is_refused_before_the_work_if_rows_are_too_few(exported: Exported, tmp_path: Path) -> None:
    def rows(count: int, label: str | None = "cat") -> Rows:
        return Rows(["x"] * count, [label] * count, held_out=count, read=str)

    with pytest.raises(HeadError, match=r"8 rows cannot show that less than 1 point"):
        embedpipe.export(exported.head, tmp_path / "model", precision="int8")  # the network may not even be loaded
    require_enough_rows(exported.head, rows(370))  # enough if no label differs and the head has 90 % right
    with pytest.raises(HeadError, match=r"40 rows cannot show that less than 1 point .* takes some 400: label more"):
        require_enough_rows(exported.head, rows(40))
    numbers = dataclasses.replace(exported.head, report=dataclasses.replace(exported.head.report, task="regression"))
    for head, expected in ((exported.head, rows(400, None)), (numbers, rows(400))):
        with pytest.raises(HeadError, match=r"precision='int8' needs held-out rows with labels of classes"):
            require_enough_rows(head, expected)


def test_folder_of_something_else_is_refused(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"must be a new or empty folder, or an exported model"):
        embedpipe.export(exported.head, tmp_path, trust=True)
    (tmp_path / "model.json").write_text("of a game")
    with pytest.raises(UsageError, match=r"or an exported model, and is a folder of other files: give another"):
        embedpipe.export(exported.head, tmp_path, trust=True)
    shutil.copytree(exported.folder, tmp_path / "model")
    (tmp_path / "model/predictions.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"'predictions\.csv' in it would be lost: move it elsewhere"):
        embedpipe.export(exported.head, tmp_path / "model", trust=True)
    with pytest.raises(UsageError, match=r"cannot be read .*: name it, or another .*store=..."):
        embedpipe.export(exported.head, tmp_path / "new", store=tmp_path / "elsewhere", trust=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spec": embedpipe.BackboneSpec.of_vectors("api", 12, "image")}, "its vectors were imported, from 'api'"),
        ({"columns": (embedpipe.heads.columns.table_columns.TableColumn("age", "number", ()),)}, "the columns age"),
    ],
)
def test_head_that_cannot_leave_is_refused(exported: Exported, changes: dict, reason: str, tmp_path: Path) -> None:
    head = dataclasses.replace(exported.head, **changes)
    with pytest.raises(UsageError, match=f"cannot be exported: .*{reason}"):
        embedpipe.export(head, tmp_path / "model", trust=True)
