"""What a notebook and the interpreter show of a store, a run and a verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stored import make_store

from embedpipe.embedding import EmbedSummary, VerifyReport
from embedpipe.embedding.verification.verify import Check
from embedpipe.errors import UsageError
from embedpipe.store import FeatureStore


def test_repr_of_a_store_is_one_line_with_path_rows_and_version(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", np.ones((3, 2)), label=["a", "b", "a"])
    assert repr(store) == f"FeatureStore({store.path!r}, rows=3, backbone='timm/made_up', version={store.version})"


def test_html_repr_of_a_store_shows_layers_labels_and_failures(tmp_path: Path) -> None:
    html = make_store(
        tmp_path / "s", np.ones((3, 2)), label=["a", "b", "a"], split=["train", "test", None]
    )._repr_html_()
    for cell in (">3</td>", "(2)</td>", ">a: 2, b: 1</td>", "(none): 1", "<th>failures</th>"):
        assert cell in html


def test_html_repr_of_a_store_escapes_labels_and_stays_small(tmp_path: Path) -> None:
    labels = [f"<script>{i}</script>" for i in range(500)]
    html = make_store(tmp_path / "<b>s", np.ones((500, 2)), label=labels)._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html
    assert "and 490 more" in html
    assert len(html) < 3000


def test_html_repr_of_an_empty_store_shows_no_rows(tmp_path: Path) -> None:
    spec = make_store(tmp_path / "s", np.ones((1, 2))).spec
    html = FeatureStore.create(tmp_path / "empty", spec)._repr_html_()
    assert ">0</td>" in html
    assert ">none</td>" in html


def test_repr_of_a_summary_is_one_line_of_counts() -> None:
    summary = EmbedSummary(seen=1200, embedded=1000, reused=190, failed=10, seconds=3.21, store="s", version=4)
    expected = "EmbedSummary(seen=1,200, embedded=1,000, reused=190, failed=10, seconds=3.2, store='s', version=4)"
    assert repr(summary) == expected


def test_repr_of_a_verification_names_each_check() -> None:
    report = VerifyReport("s", 4, 12, checks=[Check("files", True, "2 files"), Check("ids", False, "1 id comes twice")])
    assert repr(report) == "VerifyReport('s', version=4, rows=12, ok=False, files=ok, ids=FAILED)"


def test_head_gives_the_first_rows_and_columns_their_names(tmp_path: Path) -> None:
    X = np.arange(12.0).reshape(6, 2)
    store = make_store(tmp_path / "s", X, label=list("abcdef"))
    frame = store.head()
    assert list(frame.columns[:3]) == ["id", "label", "embedding"]
    assert {*frame.columns} == {*store.columns}
    assert {"id", "label", "embedding"} < set(store.columns)
    assert frame["label"].tolist() == list("abcde")
    assert np.array_equal(np.stack(frame["embedding"]), X[:5])
    assert len(store.head(2)) == 2
    assert len(store.head(0)) == 0
    assert len(store.head(100)) == 6
    with pytest.raises(UsageError, match="n must be >= 0, got -1"):
        store.head(-1)
