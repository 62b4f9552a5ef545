"""Search: equal to NumPy, ties included; by image, id and vector; bad queries are refused."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stored import clusters, make_spec, make_store

from embedpipe import FeatureStore, SimilarityIndex, embed, import_vectors, search
from embedpipe.errors import BackboneError, SourceError, UsageError


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 80), distinct=st.integers(1, 12), k=st.integers(1, 100))
def test_search_equals_numpy_with_ties(seed: int, rows: int, distinct: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((distinct, 6)).astype(np.float32)[rng.integers(0, distinct, rows)]
    X *= 2.0 ** rng.integers(-3, 4, (rows, 1))  # exact, so that copies of other lengths are ties too
    queries = np.concatenate([X[:2], rng.standard_normal((2, 6)).astype(np.float32)])
    with tempfile.TemporaryDirectory() as folder:
        answers = search(make_store(Path(folder) / "s", X), queries, k=k).to_pylist()
    unit = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    for i, query in enumerate(queries.astype(np.float64)):
        cosines = np.round(unit @ (query / np.linalg.norm(query)), 6)
        expected = sorted(range(rows), key=lambda row: (-cosines[row], row))[:k]
        mine = [row for row in answers if row["query"] == f"vector {i}"]
        assert [row["rank"] for row in mine] == list(range(1, min(k, rows) + 1))
        assert [row["id"] for row in mine] == [f"row-{row:03d}" for row in expected]
        np.testing.assert_allclose([row["score"] for row in mine], cosines[expected], atol=2e-6)


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> FeatureStore:
    return embed(photos, tmp_path / "store", backbone=TINY)


def test_id_finds_other_rows_with_their_columns(store: FeatureStore) -> None:
    store.label(pa.table({"id": store.ids(), "number": range(12)}), label="number", into="number")
    answers = search(store.refresh(), "dog/0004.jpg", k=3)
    assert len(answers) == 3
    assert answers.table["rank"].to_pylist() == [1, 2, 3]
    assert "dog/0004.jpg" not in answers.table["id"].to_pylist()
    rows = {row["id"]: row for row in store.to_arrow(["id", "label", "number"]).to_pylist()}
    for row in answers.to_pylist():
        assert (row["query"], row["query_label"]) == ("dog/0004.jpg", "dog")
        assert (row["label"], row["number"]) == (rows[row["id"]]["label"], rows[row["id"]]["number"])
    X = store.to_numpy()
    place = {id: i for i, id in enumerate(store.ids())}
    for row in answers.to_pylist():
        a, b = X[place["dog/0004.jpg"]], X[place[row["id"]]]
        assert row["score"] == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-5)


@pytest.mark.parametrize("distinct", [False, True])
def test_k_may_be_any_number(tmp_path: Path, distinct: bool) -> None:
    store = make_store(tmp_path / "s", clusters(12)[0])
    assert search(store, "row-000", k=10**12, distinct=distinct).table.num_rows == 11


def test_k_above_the_number_of_rows_gives_all(store: FeatureStore) -> None:
    assert search(store, "dog/0004.jpg", k=100).table.num_rows == 11
    assert search(store, store.to_numpy()[0], k=100).table.num_rows == 12


def test_image_finds_itself_and_a_folder_is_many_queries(store: FeatureStore, photos: Path, tmp_path: Path) -> None:
    write_photo(tmp_path / "new/a.jpg", seed=0)
    write_photo(tmp_path / "new/b.jpg", seed=7)
    (tmp_path / "new/c.jpg").write_bytes(b"no image")
    index = SimilarityIndex.load(store)
    answers = search(index, tmp_path / "new", k=2, trust=True).to_pylist()
    first = {row["query"]: row["id"] for row in answers if row["rank"] == 1}
    assert first == {"a.jpg": "cat/0000.jpg", "b.jpg": "dog/0007.jpg"}
    assert [row["query_uri"] for row in answers[:1]] == [str(tmp_path / "new/a.jpg")]
    failed = [row for row in answers if row["error"]]
    assert [(row["query"], row["rank"], row["id"], row["score"]) for row in failed] == [("c.jpg", None, None, None)]
    assert len(answers) == 5
    image = Image.open(photos / "owl/0002.jpg")
    assert search(index, image, k=1, trust=True).table["id"].to_pylist() == ["owl/0002.jpg"]
    mixed = search(index, ["cat/0003.jpg", image, str(tmp_path / "new/a.jpg")], k=1, trust=True)
    assert mixed.table["query"].to_pylist() == ["cat/0003.jpg", "00000000", "a.jpg"]


def test_vectors_from_files_and_arrays_are_queries(store: FeatureStore, tmp_path: Path) -> None:
    X, ids = store.to_numpy(), store.ids()
    np.save(tmp_path / "two.npy", X[[3, 5]] * 7)
    answers = search(store, tmp_path / "two.npy", k=1)
    assert answers.table["query"].to_pylist() == ["two.npy 0", "two.npy 1"]
    assert answers.table["id"].to_pylist() == [ids[3], ids[5]]
    assert search(store, X[3].tolist(), k=1).table["id"].to_pylist() == [ids[3]]
    assert search(store, X[3].astype(np.float64), k=1).table["score"].to_pylist() == pytest.approx([1.0])


def test_layer_is_chosen_where_there_are_several(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "two", backbone=TINY, layer=("features", "conv1"))
    with pytest.raises(UsageError, match="holds several layers: give one of features, conv1"):
        search(store, "cat/0000.jpg")
    answers = search(store, Image.open(photos / "cat/0000.jpg"), layer="conv1", k=1, trust=True)
    assert answers.table["id"].to_pylist() == ["cat/0000.jpg"]
    assert answers.table["score"].to_pylist() == pytest.approx([1.0])
    index = SimilarityIndex.load(store, "conv1")
    assert search(index, "cat/0000.jpg", layer="conv1").layer == search(index, "cat/0000.jpg").layer == "conv1"
    with pytest.raises(UsageError, match="layer='features' must be that of the index, which compares by 'conv1'"):
        search(index, "cat/0000.jpg", layer="features")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.zeros(8), "vector must be finite and not all zeros: it is all zeros"),
        (np.full(8, np.nan), "it has NaN or infinite values"),
        (np.array([1.0] * 7 + [np.inf]), "it has NaN or infinite values"),
        (np.ones(7), r"vector must have shape \(8,\) or \(n, 8\), as layer .features. of .* has, got \(7,\)"),
        (np.ones((2, 2, 8)), r"got \(2, 2, 8\)"),
        (np.array([np.ones(8), np.zeros(8)]), r"it is all zeros \(row 1\)"),
        ([], "query must not be an empty list"),
        ("", "query must not be an empty string"),
        (np.ones(8, complex), "array of real numbers, got complex128"),
        (np.empty((0, 8)), r"got \(0, 8\)"),
        ("row-0004", "has no id 'row-0004', and there is no file or folder 'row-0004'; did you mean 'row-004'"),
        ("nowhere.npy", "cannot read vectors from 'nowhere.npy': there is no such file"),
        ("a" * 5000, "there is no file or folder"),
        ("\ud83d", "must be valid Unicode"),
    ],
)
def test_bad_queries_are_refused(tmp_path: Path, query: object, message: str) -> None:
    store = make_store(tmp_path / "s", clusters(12)[0])
    with pytest.raises(UsageError, match=message):
        search(store, query)


def test_npy_file_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object))
    store = make_store(tmp_path / "s", clusters(12)[0])
    with pytest.raises(UsageError, match=r"cannot read vectors from .*bad.npy.: it holds Python objects"):
        search(store, tmp_path / "bad.npy")


@pytest.mark.parametrize("kind", ["text", "empty", "npz", "folder", "pipe"])
def test_other_files_are_no_vectors_and_no_one_is_told_to_unpickle_them(tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "bad.npy"
    if kind == "folder":
        bad.mkdir()
    elif kind == "pipe":
        os.mkfifo(bad)
    elif kind == "npz":
        np.savez(tmp_path / "z.npz", np.ones((2, 8)))
        (tmp_path / "z.npz").rename(bad)
    else:
        bad.write_text("hello" * (kind == "text"))
    reason = {"folder": "a folder, not a file", "pipe": "a named pipe, not a file"}.get(kind, "it is no .npy file")
    store = make_store(tmp_path / "s", clusters(12)[0])
    for read in (lambda: search(store, bad), lambda: import_vectors(bad, tmp_path / "new.features", ids=["a", "b"])):
        with pytest.raises((UsageError, SourceError), match=f"cannot read vectors from .*: {reason}"):
            read()


@pytest.mark.parametrize("header", ["((", "'''x", "{'descr': '<f4'", "\n  x\n y", "{'shape': (10**30,)}"])
def test_npy_file_with_a_damaged_header_is_refused(tmp_path: Path, header: str) -> None:
    body = header.encode()
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
    with pytest.raises(UsageError, match=r"cannot read vectors from .*bad.npy"):
        search(make_store(tmp_path / "s", clusters(12)[0]), tmp_path / "bad.npy")


def test_bad_k_empty_store_and_untrusted_backbone_are_refused(tmp_path: Path, photos: Path) -> None:
    store = make_store(tmp_path / "s", clusters(12)[0])
    for k in (0, -1, 1.5):
        with pytest.raises(UsageError, match=f"k must be an integer.*, got {k}"):
            search(store, "row-001", k=k)
    with pytest.raises(UsageError, match="holds no rows"):
        SimilarityIndex.load(FeatureStore.create(tmp_path / "empty", make_spec(4)))
    tiny = embed(photos, tmp_path / "tiny", backbone=TINY)
    with pytest.raises(BackboneError, match="names Python code to run"):
        search(tiny, str(photos / "cat/0000.jpg"))


def test_stored_row_of_zeros_has_cosine_0(tmp_path: Path) -> None:
    X, _ = clusters(12)
    X[5] = 0
    answers = search(make_store(tmp_path / "s", X), X[0], k=12).to_pylist()
    assert {row["id"]: row["score"] for row in answers}["row-005"] == 0


def test_query_labels_of_different_types_become_text(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "s", backbone=TINY)
    store.label(pa.table({"id": store.ids(), "n": range(12)}), label="n", into="n")
    numbered = pa.table({"id": ["x"], "image": [str(photos / "cat/0000.jpg")], "label": [7]})
    other = embed(numbered, tmp_path / "t", backbone=TINY)
    answers = search(other, ["x", str(photos)], k=1, trust=True)
    assert {row["query_label"] for row in answers.to_pylist()} <= {"7", "cat", "dog", "owl", None}


def test_stored_image_given_by_path_is_not_its_own_neighbour(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "s", backbone=TINY)
    by_place = search(store, photos / "cat/0000.jpg", k=3, trust=True)
    by_id = search(store, "cat/0000.jpg", k=3)
    assert by_place.table["id"].to_pylist() == by_id.table["id"].to_pylist()
    assert "cat/0000.jpg" not in by_id.table["id"].to_pylist()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 60), k=st.integers(1, 20), share=st.floats(0, 1))
def test_search_within_rows_equals_search_of_a_store_of_these(seed: int, rows: int, k: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 4)).astype(np.float32)
    mask = rng.random(rows) < share
    with tempfile.TemporaryDirectory() as folder:
        index = SimilarityIndex.load(make_store(Path(folder) / "s", X))
        scores, answers = index.search(X[:3], k, rows=mask)
        everything, order = index.search(X[:3], rows)
        assert scores.shape == answers.shape == (min(3, rows), min(k, mask.sum()))
        for row in range(len(answers)):
            chosen = mask[order[row]]
            assert answers[row].tolist() == order[row][chosen][:k].tolist()
            assert scores[row].tolist() == everything[row][chosen][:k].tolist()
        positions = rng.permutation(np.flatnonzero(mask)).tolist()
        np.testing.assert_array_equal(index.search(X[:3], k, rows=positions)[1], answers)


def test_rows_outside_of_the_store_are_refused(tmp_path: Path) -> None:
    index = SimilarityIndex.load(make_store(tmp_path / "s", clusters(12)[0]))
    for rows in ([12], [-1], [0.5], np.ones(11, bool)):
        with pytest.raises(UsageError, match="rows must be a mask of 12 booleans or positions in"):
            index.search(index.vectors[0], rows=rows)


def test_where_finds_all_that_pass_though_few_do(tmp_path: Path) -> None:
    X, y = clusters(3000)
    store = make_store(tmp_path / "s", X, number=range(3000), label=[f"class {i}" for i in y])
    index = SimilarityIndex.load(store)
    answers = search(index, X[[7, 1500]], k=2, where="number BETWEEN 2000 AND 2002")
    assert answers.searched == 3
    assert str(answers.how) == "exact"
    unit = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    for i, row in enumerate((7, 1500)):
        mine = [pair for pair in answers.to_pylist() if pair["query"] == f"vector {i}"]
        cosines = unit[2000:2003] @ unit[row]
        assert [pair["number"] for pair in mine] == [2000 + place for place in np.argsort(-cosines)[:2]]
        assert [pair["score"] for pair in mine] == pytest.approx(sorted(cosines)[:0:-1], abs=1e-6)
    # The query itself does not pass, and all others do.
    assert search(index, "row-007", k=9, where="number != 7").table["id"].to_pylist() == (
        search(index, "row-007", k=9).table["id"].to_pylist()
    )


def test_where_that_no_row_passes_finds_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "s", clusters(12)[0], split=["train"] * 12)
    answers = search(store, "row-003", where="split = 'test'", progress=True)
    assert (len(answers), answers.searched) == (0, 0)
    assert "no row of" in capsys.readouterr().err
