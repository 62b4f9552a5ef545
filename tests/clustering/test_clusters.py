"""`clusters`: planted groups are found and described, written back as a column, and shown on a page."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from command import run
from hypothesis import given
from hypothesis import strategies as st
from stored import clusters as make_clusters
from stored import make_store
from tiny_vision import save_vision

import embedpipe
import embedpipe.clustering.communities as communities_module
from embedpipe._utils.progress import Progress
from embedpipe.clustering.clusters import clusters
from embedpipe.clustering.communities import cluster_rows
from embedpipe.clustering.words import nearest_words, words_of_texts
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.neighbours.exact import normalised

ROWS = 150


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> embedpipe.FeatureStore:
    """Three clear groups with labels, of which some are missing, and one excluded row."""
    X, y = make_clusters(ROWS, spread=0.3, dim=16)
    labels = [f"class {number}" if row % 5 else None for row, number in enumerate(y)]
    return make_store(tmp_path_factory.mktemp("clusters") / "store", X, label=labels)


def test_planted_groups_are_found(store: embedpipe.FeatureStore) -> None:
    found = clusters(store, progress=False)
    assert found.table["id"].to_pylist() == store.to_arrow(["id"])["id"].to_pylist()
    assert found.agreement == {"ari": pytest.approx(1), "nmi": pytest.approx(1)}
    groups = found.groups.to_pylist()
    assert [row["cluster"] for row in groups] == ["cluster 1", "cluster 2", "cluster 3"]
    assert [row["rows"] for row in groups] == [50, 50, 50]
    assert {row["label"] for row in groups} == {"class 0", "class 1", "class 2"}
    assert all(row["label_share"] == 1 and row["between"] == 0 for row in groups)
    assert pc.min(found.table["share"]).as_py() > 0.5
    members = dict(zip(found.table["id"].to_pylist(), found.table["cluster"].to_pylist(), strict=True))
    for row in groups:
        assert len(row["representatives"]) == 12
        assert {members[id] for id in row["representatives"]} == {row["cluster"]}


def test_representatives_are_nearest_to_the_mean(store: embedpipe.FeatureStore) -> None:
    X = store.to_numpy()
    Z = normalised(X - X.mean(axis=0))
    group = clusters(store, progress=False).groups.to_pylist()[0]
    rows = [int(id[4:]) for id in group["representatives"]]
    inside = np.arange(ROWS)[np.arange(ROWS) % 3 == rows[0] % 3]
    nearness = Z[inside] @ Z[inside].mean(axis=0)
    assert rows == inside[np.argsort(-nearness)][:12].tolist()


def test_result_depends_on_the_seed_only(store: embedpipe.FeatureStore) -> None:
    first, second = (clusters(store, seed=1, progress=False).table for _ in range(2))
    assert first.equals(second)


def test_more_rows_go_where_their_neighbours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = make_clusters(300, spread=0.3, dim=16)
    monkeypatch.setattr(communities_module, "MOST_ROWS", 120)
    number, shares = cluster_rows(normalised(X - X.mean(axis=0)), 1.0, 0, Progress(False))
    assert len({*zip(number.tolist(), y.tolist(), strict=True)}) == 3
    assert (shares > 0.5).all()
    assert (np.diff(np.bincount(number)) <= 0).all()


def test_rows_between_clusters_are_counted(tmp_path: Path) -> None:
    X, _ = make_clusters(120, classes=2, spread=0.3, dim=16)
    X[-6:] = (X[0::2].mean(axis=0) + X[1::2].mean(axis=0)) / 2 + 0.02 * np.random.default_rng(0).standard_normal(
        (6, 16)
    )
    found = clusters(make_store(tmp_path / "s", X), progress=False)
    assert found.agreement == {}
    assert found.groups["label"].null_count == len(found)
    number = found.table["share"].to_numpy()
    assert sum(found.groups["between"].to_pylist()) == (number < 0.5).sum()


def test_bad_input_is_refused(store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    for wrong in (0, math.inf, math.nan):
        with pytest.raises(UsageError, match=rf"resolution must be > 0 and at most 1e\+06, got {wrong}"):
            clusters(store, resolution=wrong)
    with pytest.raises(UsageError, match="at least 3 rows to be grouped, got 2"):
        clusters(make_store(tmp_path / "two", np.eye(2)))
    with pytest.raises(TrainingDataError, match="all 4 of"):
        clusters(make_store(tmp_path / "equal", np.ones((4, 3))))
    with pytest.raises(UsageError, match="no column 'kind'"):
        clusters(store, label="kind")


def test_words_are_those_of_one_cluster() -> None:
    rng = np.random.default_rng(0)
    own = ["prize", "cash", "claim"], ["dinner", "lunch", "eat"], ["sleep", "night", "bed"]
    number = np.repeat([0, 1, 2], 40)
    texts = [" ".join(["the", "a", "is", "to", *rng.choice(own[cluster], 2)]) for cluster in number]
    assert [{*words} for words in words_of_texts(texts, number, 0)] == [{*words} for words in own]
    pairs = list(zip(texts, number, strict=True))
    for common in ("que el", "que el el"), ("he", "she"):  # of another language, and a stop word in one cluster only
        given = [f"{text} {common[bool(cluster)]}" for text, cluster in pairs]
        assert [{*words} for words in words_of_texts(given, number, 0)] == [{*words} for words in own]
    assert words_of_texts(["12", "34"], np.array([0, 1]), 0) == [[], []]


def test_words_of_many_clusters_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"common {word}" for word in ("aa", "bb", "cc", "dd", "ee")]
    number = np.arange(5)
    whole = words_of_texts(texts, number, 0)
    assert whole == [["aa"], ["bb"], ["cc"], ["dd"], ["ee"]]
    monkeypatch.setattr("embedpipe.clustering.words.PART", 2)
    assert words_of_texts(texts, number, 0) == whole


@given(st.lists(st.integers(0, 2), min_size=3, max_size=30), st.integers(0, 99))
def test_words_come_from_the_texts_of_their_cluster(numbers: list[int], seed: int) -> None:
    number = np.unique(numbers, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(["aa", "bb", "cc", "dd"], 3)) for _ in numbers]
    for cluster, words in enumerate(words_of_texts(texts, number, 0)):
        inside = {
            word for text, member in zip(texts, number, strict=True) if member == cluster for word in text.split()
        }
        assert {*words} <= inside


def test_nearest_words_are_those_in_which_clusters_differ() -> None:
    common = np.array([0.9, 0, 0, 0])
    means = np.array([[0, 0.4, 0, 0], [0, 0, 0.4, 0]]) + common
    vectors = normalised(np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]))
    words = nearest_words(means, np.array([5, 5]), vectors, ["red", "blue", "photo"])
    assert [each[0] for each in words] == ["red", "blue"]
    assert all("photo" not in each for each in words)


def test_photos_take_words_that_the_backbone_embeds(
    tmp_path: Path, store: embedpipe.FeatureStore, photos: Path
) -> None:
    backbone = save_vision(tmp_path / "clip", "clip", words=True)
    stored = embedpipe.embed(photos, tmp_path / "s", backbone=backbone, device="cpu", engine="torch", progress=False)
    found = clusters(stored, words="cat,man,mat", weights=str(tmp_path / "clip"), progress=False)
    assert {word for row in found.groups.to_pylist() for word in row["words"]} <= {"cat", "man", "mat"}
    assert any(": " in name for name in found.groups["cluster"].to_pylist())
    with pytest.raises(UsageError, match="class names are texts"):
        clusters(store, words=("cat",), progress=False)


def test_command_writes_a_table_that_label_takes(store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    copy = make_store(tmp_path / "copy", store.to_numpy(), label=store.to_arrow(["label"])["label"].to_pylist())
    table, page = tmp_path / "clusters.csv", tmp_path / "clusters.html"
    output = run("clusters", copy.path, "--to", table, "--page", page).stdout
    assert "3 clusters of 150 rows" in output
    assert "between clusters: 0 rows" in output
    assert "agreement with the labels: NMI 1.00, ARI 1.00" in output
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["id", "cluster", "share"]
    run("label", copy.path, table, "--label", "cluster", "--into", "cluster")
    written = embedpipe.FeatureStore(copy.path).to_arrow(["cluster"])["cluster"].to_pylist()
    assert written == [row["cluster"] for row in rows]
    html = page.read_text(encoding="utf-8")
    assert html.count('<section id="cluster-') == 3
    assert "3 clusters of 150 rows" in html


def test_command_prints_json_and_refuses_other_files(store: embedpipe.FeatureStore) -> None:
    result = json.loads(run("clusters", store.path, "--json").stdout)
    assert [group["rows"] for group in result["clusters"]] == [50, 50, 50]
    assert result["rows"] == ROWS
    refused = run("clusters", store.path, "--to", "clusters.pdf")
    assert refused.exit_code == 2
    assert ".pdf" in refused.stderr


def test_excluded_rows_are_left_out(store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    import pyarrow as pa

    copy = make_store(tmp_path / "copy", store.to_numpy())
    copy.exclude(pa.table({"id": ["row-000"], "excluded": ["broken"]}))
    found = clusters(copy, progress=False)
    assert len(found.table) == ROWS - 1
    assert any("1 row" in note for note in found.notes)
