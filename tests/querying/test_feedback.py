"""More like these, less like those; near-identical answers once; of several queries, the good ones are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import clusters, make_store

from embedpipe import FeatureStore, SimilarityIndex, search
from embedpipe.errors import UsageError
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.querying.distinct import first_distinct, mean_row


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    X, y = clusters(60)
    return make_store(tmp_path_factory.mktemp("feedback") / "s", X, label=[f"class {i}" for i in y])


def unit(X: Any) -> Any:
    X = np.asarray(X, np.float64)
    return X / np.linalg.norm(X, axis=-1, keepdims=True).clip(1e-300)


def test_likes_and_unlikes_are_rocchio(store: FeatureStore) -> None:
    U = unit(store.to_numpy())
    answers = search(store, like=["row-000", "row-003"], unlike="row-001", k=60).to_pylist()
    moved = unit(U[[0, 3]].mean(axis=0) - 0.5 * U[1])
    order = [row for row in np.argsort(-(U @ moved)) if row not in (0, 3, 1)]
    assert [row["id"] for row in answers] == [f"row-{row:03d}" for row in order]
    assert [row["score"] for row in answers] == pytest.approx((U @ moved)[order], abs=1e-6)
    assert {(row["query"], row["query_label"]) for row in answers} == {
        ("like row-000, like row-003, unlike row-001", "class 0")
    }


def test_each_query_is_moved(store: FeatureStore) -> None:
    U = unit(store.to_numpy())
    answers = search(store, ["row-000", U[7] * 5], like=U[20], unlike=["row-001", "row-002"], k=3).to_pylist()
    for at, (row, left_out) in enumerate([(0, (0, 1, 2)), (7, (1, 2))]):
        scores = U @ unit(U[row] + U[20] - 0.5 * U[[1, 2]].mean(axis=0))
        order = [place for place in np.argsort(-scores) if place not in left_out][:3]
        assert [answer["id"] for answer in answers[3 * at : 3 * at + 3]] == [f"row-{place:03d}" for place in order]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "search needs a query, or like: give an id"),
        ({"unlike": "row-001"}, "unlike must come with a query, or with like"),
        ({"like": []}, "like must not be an empty list"),
        ({"like": ["row-001", "row-0x1"]}, "like and unlike must be readable; 'row-0x1': .* has no id 'row-0x1'"),
        ({"query": "row-001", "like": -np.ones(8), "unlike": []}, "unlike must not be an empty list"),
    ],
)
def test_bad_feedback_is_refused(store: FeatureStore, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search(store, **arguments)


def test_vectors_that_cancel_out_are_refused(store: FeatureStore) -> None:
    with pytest.raises(UsageError, match="row-001, like vector 0: the vectors cancel out"):
        search(store, "row-001", like=-store.to_numpy()[1])


def test_of_several_queries_the_good_ones_are_answered(store: FeatureStore) -> None:
    asked = ["row-001", "row-0x4", np.ones(3), "a striped cat", "row-002"]
    answers = search(store, asked, k=1)
    assert answers.table["query"].to_pylist() == ["row-001", "row-0x4", "vector", "a striped cat", "row-002"]
    assert [row["id"] is None for row in answers] == [False, True, True, True, False]
    reasons = dict(answers.failed)
    assert reasons["row-0x4"].count("has no id 'row-0x4'") == 1
    assert "must have shape (8,)" in reasons["vector"]
    assert "has no id 'a striped cat', " in reasons["a striped cat"]
    assert "cannot be searched by words" in reasons["a striped cat"]
    with pytest.raises(UsageError, match="has no id 'row-0x4'"):
        search(store, ["row-0x4", "row-0x5"])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 60), distinct=st.integers(1, 9), k=st.integers(1, 12))
def test_kept_vectors_differ_and_counts_are_those_of_the_loop(seed: int, rows: int, distinct: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((distinct, 5)).astype(np.float32)[rng.integers(0, distinct, rows)]
    X += 0.05 * rng.standard_normal(X.shape).astype(np.float32)
    centre = mean_row(X)
    Z = unit(X - centre)
    kept: list[int] = []
    counts: list[int] = []
    complete = False
    for row in range(rows):
        near = [i for i, other in enumerate(kept) if Z[row] @ Z[other] >= 0.95]
        if near:
            counts[near[0]] += 1
        elif len(kept) == k:
            complete = True
            break
        else:
            kept.append(row)
            counts.append(0)
    result = first_distinct(X, centre, k)
    assert (result.kept.tolist(), result.near.tolist(), result.complete) == (kept, counts, complete)


def test_near_identical_answers_are_shown_once_with_their_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scenes = rng.standard_normal((30, 16))
    X = np.concatenate([scenes, scenes[:3].repeat(40, axis=0) + 0.01 * rng.standard_normal((120, 16))])
    store = make_store(tmp_path / "s", X, part=["scene"] * 30 + ["copy"] * 120)
    groups = near_duplicate_groups(store.to_numpy())
    index = SimilarityIndex.load(store)
    answers = search(index, X[[0, 7]], k=6, distinct=True).to_pylist()
    for name in ("vector 0", "vector 1"):
        mine = [row for row in answers if row["query"] == name]
        assert [row["rank"] for row in mine] == [1, 2, 3, 4, 5, 6]
        assert len({groups[int(row["id"][4:])] for row in mine}) == 6
        assert [row["score"] for row in mine] == sorted((row["score"] for row in mine), reverse=True)
        plain = search(index, X[0 if name == "vector 0" else 7], k=150).table["id"].to_pylist()
        assert mine[0]["id"] == plain[0]
    assert answers[0]["near_duplicates"] == 40
    assert answers[6]["near_duplicates"] == 0
    every = search(index, X[0], k=150, distinct=True)
    assert len(every) == 30
    assert sum(every.table["near_duplicates"].to_pylist()) == 120
    few = search(index, X[0], k=3, distinct=True, where="part = 'copy'").table
    assert few["near_duplicates"].to_pylist() == [39, 39, 39]


def test_query_that_fails_has_a_row_among_distinct_answers(store: FeatureStore) -> None:
    answers = search(store, ["row-0x4", "row-001"], k=2, distinct=True)
    assert answers.table["near_duplicates"].null_count == 1
    assert answers.table["rank"].to_pylist() == [None, 1, 2]
