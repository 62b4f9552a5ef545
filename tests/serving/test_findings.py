"""Findings on the page: their items, labels that are accepted, and items that are excluded and used again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page import Browser
from serving.conftest import Api, make_viewer, serving
from stored import clusters, make_store

import embedpipe
from embedpipe.errors import UsageError
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing.findings import FoundRows
from embedpipe.store.editing.labelling import count_by_hand

FINDINGS = """\
id,kind,score,related,label,proposed
owl/02.jpg,label error,0.81,,owl,cat
cat/03.jpg,label error,0.7,,cat,dog
cat/00.jpg,near-duplicate,0.97,owl/29.jpg,cat,cat
cat/06.jpg,duplicate,1,other.features:cat/06.jpg,cat,cat
gone.jpg,outlier,9,,,
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "findings.csv"
    path.write_text(FINDINGS)
    return path


@pytest.fixture
def editor(copied: Callable[[], Path], table: Path) -> tuple[Api, Path]:
    path = copied()
    return Api(create_app(make_viewer(path, edit=True, findings=table))), path


def excluded(path: Path) -> dict[str, str]:
    rows = embedpipe.FeatureStore(path).to_arrow(["id", "excluded"]).to_pylist()
    return {row["id"]: row["excluded"] for row in rows if row["excluded"] is not None}


def put(api: Api, what: str, **edit: Any) -> Any:
    return api.post(what, "PUT", json={"edits": [edit]})


def test_findings_come_by_kind_with_both_items(editor: tuple[Api, Path]) -> None:
    api, _ = editor
    kinds = api.client.get("/api/store").json()["findings"]
    assert [(each["kind"], each["count"]) for each in kinds] == [
        ("label error", 2),
        ("duplicate", 1),
        ("near-duplicate", 1),
    ]
    listed = api.json("findings", kind="label error", count=1)
    assert (listed["total"], len(listed["findings"])) == (2, 1)
    finding = listed["findings"][0]
    assert (finding["row"]["id"], finding["label"], finding["proposed"]) == ("owl/02.jpg", "owl", "cat")
    (pair,) = api.json("findings", kind="near-duplicate")["findings"]
    assert (pair["row"]["id"], pair["related"]["id"], pair["score"]) == ("cat/00.jpg", "owl/29.jpg", 0.97)
    (other,) = api.json("findings", kind="duplicate")["findings"]
    assert (other["related"], other["elsewhere"]) == (None, "other.features:cat/06.jpg")
    refused = api.get("findings", kind="leek")
    assert (refused.status_code, "no findings of the kind 'leek'" in refused.text) == (400, True)


def test_an_item_is_excluded_and_used_again(editor: tuple[Api, Path]) -> None:
    api, path = editor
    assert put(api, "excluded", row=0, value="near-duplicate", was=None).status_code == 200
    assert excluded(path) == {"cat/00.jpg": "near-duplicate"}
    assert api.json("rows", count=1)["rows"][0]["excluded"] == "near-duplicate"
    found = api.json("rows", near="row:1", count=30)["rows"]
    assert len(found) == 29
    assert "cat/00.jpg" not in {row["id"] for row in found}
    answer = put(api, "excluded", row=0, value="blurred", was=None)
    assert (answer.status_code, "excluded of 'cat/00.jpg' is 'near-duplicate' by now" in answer.text) == (409, True)
    assert put(api, "excluded", row=0, value=None, was="near-duplicate").status_code == 200
    assert (excluded(path), count_by_hand(embedpipe.FeatureStore(path).table)) == ({}, {})
    assert len(api.json("rows", near="row:2", count=30)["rows"]) == 30


def test_nothing_is_changed_without_edit(store: Any, table: Path) -> None:
    api = Api(create_app(make_viewer(store.path, findings=table)))
    assert len(api.json("findings", kind="label error")["findings"]) == 2
    assert put(api, "excluded", row=0, value="no", was=None).status_code == 403


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\na,b\n")
    with pytest.raises(UsageError, match=r"labels.csv' has no column 'kind'"):
        FoundRows(tmp_path / "labels.csv")
    (tmp_path / "words.csv").write_text("id,kind,score\na,outlier,high\n")
    with pytest.raises(UsageError, match=r"column 'score' of .*words.csv' must hold numbers"):
        FoundRows(tmp_path / "words.csv")


@pytest.mark.parametrize("file", ["found.csv", "found.xlsx", "found.jsonl"])
def test_findings_are_found_whose_ids_look_like_formulas(tmp_path: Path, file: str) -> None:
    path = tmp_path / "store"
    ids = [f"={i:02d}" for i in range(60)]
    hashes = [f"{i // 2:064x}" for i in range(60)]
    twins = np.repeat(clusters(30)[0], 2, axis=0)
    store = make_store(path, twins, id=ids, content_hash=hashes, label=["-5", "@b"] * 30)
    found = embedpipe.clean(store, progress=False)
    assert found.counts["label conflict"] == 30
    found.save(tmp_path / file)
    api = Api(create_app(make_viewer(path, findings=tmp_path / file)))
    counts = {each["kind"]: each["count"] for each in api.client.get("/api/store").json()["findings"]}
    assert counts == {kind: count for kind, count in found.counts.items() if count}
    conflict = api.json("findings", kind="label conflict", count=1)["findings"][0]
    assert (conflict["row"]["id"], conflict["related"]["id"], conflict["label"]) == ("=01", "=00", "@b")


def test_findings_of_another_store_are_refused(tmp_path: Path, store: Any) -> None:
    path = tmp_path / "found.csv"
    path.write_text("id,kind,score\ngone.jpg,outlier,9\n")
    with pytest.raises(UsageError, match=r"has none of the ids in .*found\.csv', such as 'gone\.jpg'"):
        embedpipe.view(store, findings=path)


@pytest.mark.long
def test_a_key_decides_on_the_page(browser: Browser, copied: Callable[[], Path], table: Path) -> None:
    path = copied()
    with serving(create_app(make_viewer(path, edit=True, findings=table))) as address:
        browser.visit(address)
        browser.until("document.querySelectorAll('.finding').length === 2")
        browser.press("a")
        browser.until("document.querySelector('#saved').textContent === 'saved'")
        browser.press("x")
        browser.until("document.querySelectorAll('.finding.done').length === 2")
        browser.until("document.querySelector('#saved').textContent === 'saved'")
        labels = dict(zip(*embedpipe.FeatureStore(path).to_arrow(["id", "label"]).to_pydict().values(), strict=True))
        assert labels["owl/02.jpg"] == "cat"
        assert excluded(path) == {"cat/03.jpg": "label error"}
        browser.press("u")
        browser.until("document.querySelectorAll('.finding.done').length === 1")
        browser.until("document.querySelector('#saved').textContent === 'saved'")
        assert excluded(path) == {}
        browser.ask("[...document.querySelectorAll('.kinds button')].at(-1).click()")
        browser.until("document.querySelectorAll('.finding figure').length === 2")  # one has lost its file
        browser.until("document.querySelector('.finding .missing')?.textContent === 'cannot be read'")
        browser.press("d")
        browser.until("document.querySelector('.finding .state').textContent === 'dismissed'")
        browser.press("u")  # and not what was changed before
        browser.until("document.querySelector('.finding .state').textContent === ''")
        labels = dict(zip(*embedpipe.FeatureStore(path).to_arrow(["id", "label"]).to_pydict().values(), strict=True))
        assert labels["owl/02.jpg"] == "cat"
        axe = pytest.importorskip("axe_core_python")
        browser.ask((Path(axe.__path__[0]) / "axe.min.js").read_text(encoding="utf-8"))
        found = browser.ask("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
        serious = [entry for entry in found if entry["impact"] in ("serious", "critical")]
        assert [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in serious] == []
