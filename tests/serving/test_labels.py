"""Labels that are set on the page: kept by the store and the next `embed`, and never lost between two editors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import TINY
from serving.conftest import Api, make_viewer
from stored import clusters, make_store

import embedpipe
from embedpipe.errors import ConcurrentWriteError
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing.labels import Edit
from embedpipe.sources import read_labels
from embedpipe.store.editing.labelling import count_by_hand, set_column


@pytest.fixture
def editor(copied: Callable[[], Path]) -> tuple[Api, Path]:
    path = copied()
    return Api(create_app(make_viewer(path, edit=True))), path


def put(api: Api, row: int, value: str | None, was: str | None) -> Any:
    return api.post("labels", "PUT", json={"edits": [{"row": row, "value": value, "was": was}]})


def test_a_label_is_in_the_store_and_survives_the_next_embed(editor: tuple[Api, Path], store: Any) -> None:
    api, path = editor
    assert put(api, 3, "dog", "cat").status_code == 200
    assert api.json("rows", start=3, count=1)["rows"][0]["label"] == "dog"
    assert embedpipe.FeatureStore(path).to_arrow(["label"])["label"][3].as_py() == "dog"
    embedpipe.embed(
        Path(store.to_arrow(["source_root"])["source_root"][0].as_py()), path, backbone=TINY, progress=False
    )
    assert embedpipe.FeatureStore(path).to_arrow(["label"])["label"][3].as_py() == "dog"
    assert api.client.get("/api/store").json()["key"] == api.key  # row numbers hold
    assert put(api, 3, "cat", "dog").status_code == 200
    assert embedpipe.FeatureStore(path).to_arrow(["label"])["label"][3].as_py() == "cat"


def test_a_label_is_shown_also_where_the_page_is_opened_while_it_is_sent(copied: Callable[[], Path]) -> None:
    path = copied()
    viewer = make_viewer(path, edit=True)
    seen, _ = viewer.at(viewer.collection.key)
    others = pa.table({"id": [viewer.collection.row(4)["id"]], "value": ["dog"]})
    set_column(embedpipe.FeatureStore(path).table, others, "id", "value", "label")
    assert viewer.refresh() is not seen
    viewer.set_values(seen, [Edit(3, "dog", "cat")])
    assert [viewer.collection.label("label", row) for row in (3, 4)] == ["dog", "dog"]


def test_what_is_undone_follows_its_source_again(editor: tuple[Api, Path]) -> None:
    api, path = editor
    put(api, 3, "dog", "cat")
    put(api, 4, None, "cat")
    assert count_by_hand(embedpipe.FeatureStore(path).table) == {"label": 2}
    put(api, 3, "cat", "dog")
    assert count_by_hand(embedpipe.FeatureStore(path).table) == {"label": 1}
    put(api, 4, "cat", None)
    assert count_by_hand(embedpipe.FeatureStore(path).table) == {}
    assert api.get("labels.csv").text.splitlines() == ['"id","label"']


def test_labels_can_be_taken_away_and_be_new(editor: tuple[Api, Path]) -> None:
    api, _ = editor
    assert put(api, 0, None, "cat").status_code == 200
    assert put(api, 1, "<b>fox</b>", "cat").status_code == 200
    counts = {each["value"]: each["count"] for each in api.json("counts")["label"]}
    assert counts == {"cat": 8, "dog": 10, "owl": 10, "<b>fox</b>": 1, None: 1}


def test_two_editors_do_not_overwrite_each_other(editor: tuple[Api, Path]) -> None:
    first, path = editor
    second = Api(create_app(make_viewer(path, edit=True)))
    assert put(first, 5, "dog", "cat").status_code == 200
    answer = put(second, 5, "owl", "cat")
    assert answer.status_code == 409
    assert "is 'dog' by now, and not 'cat'" in answer.json()["error"]
    assert second.json("rows", start=5, count=1)["rows"][0]["label"] == "dog"
    assert put(second, 5, "owl", "dog").status_code == 200
    assert put(second, 6, "owl", "cat").status_code == 200
    assert put(first, 7, "owl", "cat").status_code == 200
    labels = embedpipe.FeatureStore(path).to_arrow(["label"])["label"].to_pylist()
    assert labels[5:8] == ["owl", "owl", "owl"]


def test_of_several_labels_all_or_none_are_written(editor: tuple[Api, Path]) -> None:
    api, path = editor
    edits = [{"row": 0, "value": "owl", "was": "cat"}, {"row": 1, "value": "owl", "was": "owl"}]
    assert api.post("labels", "PUT", json={"edits": edits}).status_code == 409
    assert embedpipe.FeatureStore(path).to_arrow(["label"])["label"].to_pylist()[:2] == ["cat", "cat"]
    twice = [{"row": 0, "value": value, "was": "cat"} for value in ("owl", "dog")]
    assert api.post("labels", "PUT", json={"edits": twice}).status_code == 400


def test_corrected_labels_are_exported_without_formulas(editor: tuple[Api, Path]) -> None:
    api, _ = editor
    assert api.get("labels.csv").text.splitlines() == ['"id","label"']
    put(api, 2, "=cmd", "cat")
    assert api.get("labels.csv").text.splitlines()[1:] == ['"cat/06.jpg","\'=cmd"']


def test_without_edit_nothing_is_changed(api: Api) -> None:
    assert put(api, 0, "owl", "cat").status_code == 403


def test_a_value_that_is_another_than_expected_is_kept(copied: Callable[[], Path]) -> None:
    store = embedpipe.FeatureStore(copied())
    values = pa.table({"id": ["cat/00.jpg", "dog/01.jpg"], "value": ["a", "b"], "was": ["cat", "owl"]})
    with pytest.raises(ConcurrentWriteError, match=r"dog/01\.jpg' is 'dog' by now, and not 'owl'"):
        set_column(store.table, values, "id", "value", "label", "was")
    values = values.set_column(2, "was", pa.array(["cat", "dog"]))
    assert set_column(store.table, values, "id", "value", "label", "was").replaced == 2


def test_a_label_with_control_characters_can_be_corrected(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", clusters(3)[0], label=["a\x1b[31m", "b" * 5000, "c"])
    api = Api(create_app(make_viewer(store.path, edit=True)))
    for row in api.json("rows")["rows"]:
        assert put(api, row["row"], "d", row["label"]).status_code == 200
    assert store.refresh().to_arrow(["label"]).column(0).to_pylist() == ["d"] * 3


def test_exported_labels_of_ids_that_look_like_formulas_are_read_again(tmp_path: Path) -> None:
    ids = ["-1.jpg", "=a.jpg", "b.jpg"]
    store = make_store(tmp_path / "s", clusters(3)[0], id=ids, label=["a"] * 3)
    api = Api(create_app(make_viewer(store.path, edit=True)))
    for row, value in enumerate(["@x", "-1", None]):
        assert put(api, row, value, "a").status_code == 200
    (tmp_path / "labels.csv").write_bytes(api.get("labels.csv").content)
    labels, notes = read_labels(str(tmp_path / "labels.csv"), "id", "label")
    assert labels.to_pydict() == {"id": ids, "label": ["@x", "-1", None]}
    assert notes == ("labels.csv: the ' before what looks like a formula is taken away in 3 cells",)


def test_rows_are_selected_anew_after_an_edit_although_others_have_written(editor: tuple[Api, Path]) -> None:
    api, path = editor
    cats, version = {"classes": '{"label": ["cat"]}'}, api.client.get("/api/store").json()["at"]
    assert api.json("rows", at=version, **cats)["total"] == 10
    embedpipe.FeatureStore(path).label(pa.table({"id": ["owl/02.jpg"], "label": ["fox"]}))
    for left in (9, 8):
        version = put(api, left - 8, "dog", "cat").json()["at"]
        assert api.json("rows", at=version, **cats)["total"] == left


def test_labels_that_are_bytes_are_shown_and_set_as_hexadecimal_digits(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", clusters(3)[0], label=[b"\xff\x00", b"b", b"c"])
    api = Api(create_app(make_viewer(store.path, edit=True)))
    assert [row["label"] for row in api.json("rows")["rows"]] == ["ff00", "62", "63"]
    assert put(api, 1, "ff00", "62").status_code == put(api, 0, None, "ff00").status_code == 200
    refused = put(api, 2, "no digits", "63")
    assert (refused.status_code, "which holds binary" in refused.json()["error"]) == (400, True)
    assert store.refresh().to_arrow(["label"]).column(0).to_pylist() == [None, b"\xff\x00", b"c"]
