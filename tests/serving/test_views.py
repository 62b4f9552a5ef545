"""The map, its lasso, conditions, and the predictions of a head."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from serving.conftest import Api

import embedpipe
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing.layout import Layout
from embedpipe.serving.viewing.searching import Searcher
from embedpipe.serving.viewing.viewer import Viewer


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
        assert ready.get("rows", where=wrong).status_code == 400, wrong


def test_codes_are_places_among_the_values(ready: Api) -> None:
    info = ready.client.get("/api/store").json()
    values = next(column["values"] for column in info["columns"] if column["name"] == "label")
    codes = np.frombuffer(ready.get("codes", column="label").content, "<u2")
    assert [values[code] for code in codes] == [row["label"] for row in ready.json("rows", count=30)["rows"]]
    assert ready.get("codes", column="content_hash").status_code == 400


def test_predictions_are_those_of_the_head(ready: Api, viewer: Viewer, store: Any) -> None:
    expected = viewer.predictions.head.predict(store, progress=False)  # type: ignore[union-attr]
    rows = ready.json("rows", count=30)["rows"]
    assert [row["prediction"] for row in rows] == expected.column(2).to_pylist()
    assert ready.client.get("/api/store").json()["head"]["label"] == "label"
    assert json.loads(ready.get("rows/0").text)["values"]["fitted_on"] in ("yes", "no")


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


def test_orders_of_a_head_with_probabilities(store: Any) -> None:
    head = embedpipe.fit(store, "lda", progress=False)
    viewer = Viewer(embedpipe.FeatureStore(store.path), Searcher(None, ReloadOptions(), ComputeOptions()), head=head)
    viewer.predictions.add_to(viewer.collection)  # type: ignore[union-attr]
    api = Api(create_app(viewer))
    confidence = [row["confidence"] for row in api.json("rows", order="uncertain", count=30)["rows"]]
    assert confidence == sorted(confidence)
    wrong = api.json("rows", order="wrong", count=30)["rows"]
    assert all(row["label"] != row["prediction"] for row in wrong)
    assert [row["confidence"] for row in wrong] == sorted((row["confidence"] for row in wrong), reverse=True)
    shares = api.json("rows/0")["probabilities"]
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert max(shares, key=lambda name: shares[name]) == api.json("rows", count=1)["rows"][0]["prediction"]
