"""The map, its lasso, conditions, and the predictions of a head."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from serving.conftest import Api
from sklearn.neighbors import KNeighborsClassifier

import embedpipe
from embedpipe._utils.option_names import command_line
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import StoreError
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing import out_of_fold
from embedpipe.serving.viewing.collection import Collection
from embedpipe.serving.viewing.layout import Layout
from embedpipe.serving.viewing.out_of_fold import predict_out_of_fold
from embedpipe.serving.viewing.searching import Searcher
from embedpipe.serving.viewing.viewer import Viewer, _carry_over


@pytest.fixture(scope="module")
def viewer(store: Any) -> Viewer:
    head = embedpipe.fit(store, "centroid", progress=False)
    made = Viewer(
        embedpipe.FeatureStore(store.path), Searcher(None, ReloadOptions(trust=True), ComputeOptions()), head=head
    )
    made.start()
    return made


@pytest.fixture(scope="module")
def ready(viewer: Viewer) -> Api:
    api = Api(create_app(viewer))
    for _ in range(600):
        if api.json("map")["state"] != "computing" and api.client.get("/api/store").json()["head"]["state"] == "ready":
            break
        time.sleep(0.1)
    return api


def test_the_map_has_a_point_for_each_row_and_is_kept(ready: Api, viewer: Viewer) -> None:
    points = np.frombuffer(ready.get("map/points").content, "<u2").reshape(-1, 2)
    assert points.shape == (30, 2)
    assert points.max() < 65535
    assert viewer.layout(ready.key).note.startswith("t-SNE")


def test_a_map_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    first, second = Layout(lambda: vectors), Layout(lambda: vectors)
    for layout in (first, second):
        if layout is second:
            monkeypatch.setattr("embedpipe.report.pictures.map_points.project", None)
        layout.start()
        while layout.state == "computing":
            time.sleep(0.05)
    assert (first.state, second.state) == ("ready", "ready")
    assert np.array_equal(first.points, second.points)  # type: ignore[arg-type]


def test_a_lasso_selects_what_lies_in_it(ready: Api) -> None:
    points = np.frombuffer(ready.get("map/points").content, "<u2").reshape(-1, 2) / 65534
    left = np.flatnonzero(points[:, 0] < 0.5)
    answer = ready.json("rows", within="-1,-1,0.5,-1,0.5,2,-1,2", count=30)
    assert [row["row"] for row in answer["rows"]] == left.tolist()
    bits = np.unpackbits(
        np.frombuffer(ready.get("mask", within="-1,-1,0.5,-1,0.5,2,-1,2").content, np.uint8), bitorder="little"
    )
    assert np.flatnonzero(bits).tolist() == left.tolist()


def test_conditions_are_those_of_search(ready: Api) -> None:
    answer = ready.json("rows", where="label = 'owl' AND id < 'owl/20.jpg'")
    assert {row["label"] for row in answer["rows"]} == {"owl"}
    assert 0 < answer["total"] < 10
    assert ready.json("rows", where="label = 'owl'", near="row:0")["total"] == 10
    assert ready.json("rows", where="prediction = 'cat'")["total"] == ready.json("counts")["prediction"][0]["count"]
    for wrong in ("label = ", "colour = 'red'", "read_csv('/etc/passwd')", "(SELECT 1)"):
        with command_line():  # as `view` runs
            answer = ready.get("rows", where=wrong)
        assert answer.status_code == 400, wrong
        assert "--where" not in answer.text, wrong


@pytest.mark.parametrize("span", [(-1.7e308, 1.7e308), (0.0, 5000 * 5e-324)])
def test_numbers_of_any_span_have_codes(store: Any, span: tuple[float, float]) -> None:
    shown, (low, high) = Collection(store), span
    shown.add_columns({"number": pa.array(np.repeat([low, low / 2 + high / 2, high], 10))})
    codes = shown.codes("number")
    assert codes is not None
    assert codes.codes.tolist() == np.repeat([0, 128, 255], 10).tolist()


def test_codes_are_places_among_the_values(ready: Api) -> None:
    info = ready.client.get("/api/store").json()
    values = next(column["values"] for column in info["columns"] if column["name"] == "label")
    codes = np.frombuffer(ready.get("codes", column="label").content, "<u2")
    assert [values[code] for code in codes] == [row["label"] for row in ready.json("rows", count=30)["rows"]]
    assert ready.get("codes", column="content_hash").status_code == 400


def test_a_head_of_another_column_is_compared_with_that_column(copied: Callable[[], Path]) -> None:
    store = embedpipe.FeatureStore(copied())
    ids = store.ids()
    kinds = pa.table({"id": ids, "label": ["wild" if id.startswith("owl") else "tame" for id in ids]})
    store.label(kinds, into="kind")
    head = embedpipe.fit(store, "lda", label="kind", progress=False)
    viewer = Viewer(store, Searcher(None, ReloadOptions(), ComputeOptions()), edit=True, head=head)
    viewer.predictions.add_to(viewer.collection)  # type: ignore[union-attr]
    api = Api(create_app(viewer))
    assert {row["label"] for row in api.json("rows", count=30)["rows"]} == {"wild", "tame"}
    edits = [{"row": 0, "value": "wild", "was": "tame"}]
    assert api.post("labels", "PUT", json={"edits": edits}).status_code == 200
    assert api.json("rows/0")["values"]["kind"] == "wild"
    assert api.json("rows/0")["values"]["label"] == "cat"


@pytest.mark.parametrize(("values", "names"), [([True, False], {"true", "false"}), ([1.0, 2.0], {"1", "2"})])
def test_labels_and_predictions_of_any_type_have_the_same_names(
    copied: Callable[[], Path], values: list[Any], names: set[str]
) -> None:
    store = embedpipe.FeatureStore(copied())
    kinds = [values[id.startswith("owl")] for id in store.ids()]
    store.label(pa.table({"id": store.ids(), "label": kinds}), into="kind")
    head = embedpipe.fit(store, "lda", label="kind", progress=False)
    viewer = Viewer(store, Searcher(None, ReloadOptions(), ComputeOptions()), head=head)
    viewer.predictions.add_to(viewer.collection)  # type: ignore[union-attr]
    api = Api(create_app(viewer))
    rows = api.json("rows", count=30)["rows"]
    assert {row["label"] for row in rows} == {row["prediction"] for row in rows} == names
    assert {*api.json("rows/0")["probabilities"]} == names
    columns = {each["name"]: each for each in api.client.get("/api/store").json()["columns"]}
    assert columns["kind"]["kind"] == "number" or {*columns["kind"]["values"]} == names


def test_orders_of_a_head_with_probabilities(store: Any) -> None:
    _, api = _seen_by(store, "lda")
    confidence = [row["confidence"] for row in api.json("rows", order="uncertain", count=30)["rows"]]
    assert confidence == sorted(confidence)
    wrong = api.json("rows", order="wrong", count=30)["rows"]
    assert all(row["label"] != row["prediction"] for row in wrong)
    assert [row["confidence"] for row in wrong] == sorted((row["confidence"] for row in wrong), reverse=True)
    shares = api.json("rows/0")["probabilities"]
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert max(shares, key=lambda name: shares[name]) == api.json("rows", count=1)["rows"][0]["prediction"]


def test_rows_that_a_head_was_fitted_on_are_predicted_without_them(store: Any) -> None:
    viewer, api = _seen_by(store, "lda")
    assert set(viewer.collection.table["fitted_on"].to_pylist()) == {"out of fold"}
    note = api.client.get("/api/store").json()["head"]["note"]
    assert "30 items of these: they are predicted by heads of the same kind that were fitted without them" in note


def test_rows_that_cannot_be_predicted_out_of_fold_are_marked_and_in_no_order(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_of_fold, "MOST_ROWS", 10)
    viewer, api = _seen_by(store, "lda")
    assert viewer.predictions is not None
    expected = viewer.predictions.head.predict(store, progress=False)
    assert [row["prediction"] for row in api.json("rows", count=30)["rows"]] == expected.column(2).to_pylist()
    assert api.client.get("/api/store").json()["head"]["label"] == "label"
    assert api.json("rows/0")["values"]["fitted_on"] == "yes"
    assert set(viewer.collection.table["fitted_on"].to_pylist()) == {"yes"}
    assert api.json("rows", order="wrong")["total"] == api.json("rows", order="uncertain")["total"] == 0
    assert "whose labels it knows" in api.client.get("/api/store").json()["head"]["note"]


def test_a_head_that_remembers_its_rows_guesses_them_out_of_fold() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 4)).astype(np.float32), rng.choice(["cat", "dog", "owl"], 90)
    X[60:], y[60:] = X[:30], y[:30]  # copies give nothing away
    fitted = KNeighborsClassifier(1).fit(X, y)
    done = predict_out_of_fold(fitted, X, y)
    assert fitted.score(X, y) == 1
    assert done.rows.tolist() == list(range(90))
    assert (done.predicted == y).mean() < 0.6
    assert done.shares is not None
    assert (fitted.classes_[done.shares.argmax(axis=1)] == done.predicted).all()


def test_other_items_are_predicted_again(copied: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store = embedpipe.FeatureStore(copied())
    viewer, api = _seen_by(store, "lda")
    before = {row["id"]: row["prediction"] for row in api.json("rows", count=30)["rows"]}
    monkeypatch.setattr(viewer, "start", lambda: None)
    store.remove(store.ids()[:1])
    described = api.client.get("/api/store").json()
    api.key = described["key"]
    assert (described["head"]["state"], api.json("rows/0")["probabilities"]) == ("computing", {})
    viewer._prepare(viewer.collection, viewer.predictions)
    assert api.client.get("/api/store").json()["head"]["state"] == "ready"
    shares = api.json("rows/0")["probabilities"]
    assert max(shares, key=lambda name: shares[name]) == before[api.json("rows/0")["id"]]


def test_rows_that_are_read_while_predictions_come_are_whole(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, api = _seen_by(store, "lda")
    viewer._open(Collection(viewer.collection.store))
    collection = viewer.collection
    row, add_columns = collection.row, collection.add_columns
    added: list[set[str]] = []

    def predicted_meanwhile(*given: Any) -> Any:
        values = row(*given)
        viewer.predictions.add_to(collection)  # type: ignore[union-attr]
        return values

    def recorded(columns: Any) -> None:
        added.append({*columns})
        add_columns(columns)

    monkeypatch.setattr(collection, "row", predicted_meanwhile)
    monkeypatch.setattr(collection, "add_columns", recorded)
    assert api.json("rows", count=1)["rows"][0]["prediction"] is None
    assert added == [{"prediction", "confidence", "fitted_on"}]
    monkeypatch.undo()
    assert api.json("rows", count=1)["rows"][0]["prediction"] is not None


def test_predictions_are_ready_once_the_rows_that_are_shown_have_them(store: Any) -> None:
    viewer, api = _seen_by(store, "lda")
    predicted = viewer.collection
    viewer._state = Collection(viewer.collection.store), *viewer._state[1:]  # a label was changed meanwhile
    assert api.client.get("/api/store").json()["head"]["state"] == "computing"
    _carry_over(predicted, viewer.collection)
    head = api.client.get("/api/store").json()["head"]
    assert (head["state"], head["orders"]) == ("ready", ["uncertain", "wrong"])


def test_a_head_predicts_although_there_is_no_index(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, api = _seen_by(store, "lda")
    viewer._open(viewer.collection)

    def fail(collection: object) -> None:
        raise StoreError("no index")

    monkeypatch.setattr(viewer.searcher, "index", fail)
    viewer._prepare(viewer.collection, viewer.predictions)
    assert api.client.get("/api/store").json()["head"]["state"] == "ready"


def test_the_page_knows_how_several_labels_are_separated(copied: Callable[[], Path]) -> None:
    store = embedpipe.FeatureStore(copied())
    kinds = ["round,red" if id.startswith("owl") else "red" for id in store.ids()]
    store.label(pa.table({"id": store.ids(), "label": kinds}))
    head = embedpipe.fit(store, "logreg", task="multilabel", label_separator=",", folds=0, progress=False)
    viewer = Viewer(store, Searcher(None, ReloadOptions(), ComputeOptions()), head=head)
    assert viewer.describe(viewer.collection)["head"]["separator"] == ","
    viewer._head = embedpipe.fit(store, "logreg", folds=0, progress=False)
    viewer._open(viewer.collection)
    assert viewer.describe(viewer.collection)["head"]["separator"] is None


def _seen_by(store: Any, head: str) -> tuple[Viewer, Api]:
    """Return what the page shows of the rows that a head was fitted on."""
    fitted = embedpipe.fit(store, head, progress=False)
    viewer = Viewer(embedpipe.FeatureStore(store.path), Searcher(None, ReloadOptions(), ComputeOptions()), head=fitted)
    assert viewer.predictions is not None
    viewer.predictions.add_to(viewer.collection)
    return viewer, Api(create_app(viewer))
