"""`shift`: the size and power of its test, what moved, and the accuracy to expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import pdist, squareform
from stored import clusters, make_store

import embedpipe
from embedpipe.cleaning.clean import clean
from embedpipe.cleaning.shifts.shift import shift
from embedpipe.embedding.layers.reduce import reduce
from embedpipe.errors import UsageError
from embedpipe.statistics import mmd_test


def test_statistic_is_the_unbiased_estimate() -> None:
    X, Y = np.random.default_rng(0).standard_normal((2, 30, 4)).astype(np.float32)
    Y = Y[:20] + 0.5
    squares = squareform(pdist(np.concatenate([X, Y]).astype(np.float64), "sqeuclidean"))
    some = np.random.default_rng(3).permutation(50)
    width = np.median(squares[np.ix_(some, some)][np.triu_indices(50, 1)])
    K = np.exp(-squares / width)
    np.fill_diagonal(K, 0)
    expected = K[:30, :30].sum() / (30 * 29) + K[30:, 30:].sum() / (20 * 19) - 2 * K[:30, 30:].mean()
    assert mmd_test(X, Y, 10, seed=3)[0] == pytest.approx(expected, rel=1e-4)


def test_statistic_does_not_depend_on_the_origin() -> None:
    X, Y = np.random.default_rng(0).standard_normal((2, 30, 4))
    assert mmd_test(X + 1e4, Y + 1e4, 10)[0] == pytest.approx(mmd_test(X, Y, 10)[0], rel=1e-4)


def test_p_values_of_equal_samples_are_uniform() -> None:
    rng = np.random.default_rng(0)
    p_values = [mmd_test(*rng.standard_normal((2, 20, 3)), 99, seed)[1] for seed in range(200)]
    below = np.mean([p <= 0.2 for p in p_values])
    assert 0.2 - 0.09 < below < 0.2 + 0.09  # three standard errors
    assert min(p_values) >= 1 / 100


def test_samples_need_two_rows() -> None:
    with pytest.raises(ValueError, match="at least 2 rows, got 1 and 5"):
        mmd_test(np.zeros((1, 2)), np.zeros((5, 2)))


def test_two_rows_are_too_few_and_excluded_ones_are_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "two", clusters(4, dim=4)[0])
    ids = store.ids()
    store.exclude(pa.table({"id": ids, "excluded": ["blurred"] * (len(ids) - 2) + [""] * 2}))
    with pytest.raises(UsageError, match=r"must have at least 3 rows, got 2; left out of .*: .* marked as excluded"):
        shift(store, store)


def make_sides(folder: Path, move: float, **columns: Any) -> tuple[embedpipe.FeatureStore, embedpipe.FeatureStore]:
    X, y = clusters(200, spread=0.8, dim=16)
    Z, z = clusters(120, spread=0.8, dim=16, seed=1)
    Z[:60] += move * np.random.default_rng(2).standard_normal(16).astype(np.float32)
    labels = ([f"class {number}" for number in side] for side in (y, z))
    old, new = (
        make_store(folder / name, vectors, label=label)
        for name, vectors, label in zip(("old", "new"), (X, Z), labels, strict=True)
    )
    return old, new


def test_equal_sides_are_not_shifted_and_the_accuracy_stays(tmp_path: Path) -> None:
    result = shift(*make_sides(tmp_path, 0.0), progress=False)
    assert (result.shifted, result.rows) == (False, (200, 120))
    assert 0.35 < result.auc < 0.65
    assert result.old_accuracy is not None
    assert result.expected_accuracy == pytest.approx(result.new_accuracy, abs=0.12)
    assert result.classes is not None
    assert result.classes["old"].to_pylist() == pytest.approx([67 / 200, 67 / 200, 66 / 200])
    assert "no shift" in repr(result)


def test_labels_are_compared_whatever_their_type(tmp_path: Path) -> None:
    X, y = clusters(90, spread=0.3)
    old = make_store(tmp_path / "old", X, label=[float(number) for number in y])
    new = make_store(tmp_path / "new", X, label=y.tolist())
    result = shift(old, new, progress=False)
    assert result.new_accuracy == 1
    assert result.classes is not None
    assert result.classes["label"].to_pylist() == ["0", "1", "2"]


def test_moved_rows_come_first(tmp_path: Path) -> None:
    result = shift(*make_sides(tmp_path, 3.0), progress=False)
    assert result.shifted
    assert result.p_value <= 0.01
    assert result.auc > 0.65
    first = {int(id.removeprefix("row-")) for id in result.moved["id"].to_pylist()[:40]}
    assert sum(row < 60 for row in first) >= 38
    assert result.expected_accuracy is not None
    assert result.to_dict()["moved"][0]["id"] == result.moved["id"][0].as_py()
    assert "<table" in result._repr_html_()


def test_splits_of_one_store_are_compared(tmp_path: Path) -> None:
    X, _ = clusters(80)
    split = ["train"] * 50 + ["test"] * 30
    store = make_store(tmp_path / "store", X, split=split)
    result = shift(store, progress=False)
    assert result.rows == (50, 30)
    assert any("no accuracy is forecast" in note for note in result.notes)
    with pytest.raises(UsageError, match=r"splits must be splits of .*'test', 'train'.*got 'other'"):
        shift(store, splits=("train", "other"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \(0, 1\), got 1.5"),
        ({"splits": ("train",)}, "splits must be two splits, got 1: train"),
        ({"permutations": 10}, "permutations must be >= 20 for alpha=0.05, got 10"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    old, _ = make_sides(tmp_path, 0.0)
    with pytest.raises(UsageError, match=message):
        shift(old, **options)


def test_other_backbone_and_missing_splits_are_refused(tmp_path: Path) -> None:
    X, _ = clusters(20)
    store, other = make_store(tmp_path / "a", X), make_store(tmp_path / "b", X, "other")
    with pytest.raises(UsageError, match="stores must have the same backbone"):
        shift(store, other)
    with pytest.raises(UsageError, match="has no column split"):
        shift(store)


def test_a_layer_that_one_store_has_more_does_not_matter(tmp_path: Path) -> None:
    X, _ = clusters(40)
    store, reduced = make_store(tmp_path / "a", X), make_store(tmp_path / "b", X)
    reduce(reduced, dimensions=3)
    assert shift(store, reduced).rows == (40, 40)
    assert not shift(reduced, store, layer="features").shifted
    assert not clean(reduced, against=store, layer="features", progress=False).counts["outlier"]
    with pytest.raises(UsageError, match=r"a' has no 'features.pca3'"):
        shift(reduced, store, layer="features.pca3")


def test_equal_vectors_forecast_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.ones((12, 4)), label=["a", "b"] * 6)
    result = shift(store, store)
    assert (result.shifted, result.expected_accuracy) == (False, None)
    assert "no accuracy is forecast: the vectors of the old rows are all equal" in result.notes


def test_long_vectors_do_not_overflow(tmp_path: Path) -> None:
    X, _ = clusters(40)
    store = make_store(tmp_path / "store", 1e37 * X)
    assert not shift(store, store).shifted


def test_told_apart_below_chance_is_no_shift(tmp_path: Path) -> None:
    X, _ = clusters(12)
    store = make_store(tmp_path / "store", X)
    result = shift(store, store)  # each row is new in one fold and old in the others
    assert (result.auc, result.shifted) == (0.5, False)
    assert any("no better than by chance (an AUC of 0." in note for note in result.notes)


def test_moved_rows_come_with_label_and_place_and_a_page(tmp_path: Path) -> None:
    old, new = make_sides(tmp_path, 3.0)
    result = shift(old, new)
    assert result.moved.column_names == ["id", "new", "label", "uri"]
    X, _ = clusters(8, dim=16)
    placed = make_store(tmp_path / "placed", X, uri=[f"{row}.jpg" for row in range(8)], text=["<b>a</b>"] * 8)
    result = shift(old, placed)
    assert result.moved.column_names == ["id", "new", "text", "uri"]
    assert result.save(tmp_path / "shift.html") == []
    page = (tmp_path / "shift.html").read_text()
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert "8 new rows beside 200 old ones" in page
    assert result.save(tmp_path / "moved.csv") == []


def test_one_split_is_compared_with_another_store(tmp_path: Path) -> None:
    X, _ = clusters(40)
    old = make_store(tmp_path / "old", X, split=["train"] * 30 + ["test"] * 10)
    new = make_store(tmp_path / "new", X[:12])
    assert shift(old, new, splits=("train",)).rows == (30, 12)
    assert shift(old).rows == (30, 10)
    with pytest.raises(UsageError, match="splits must be one split, that of the old rows, beside another store"):
        shift(old, new, splits=("train", "test"))


def test_small_classes_are_not_judged_and_no_option_is_named(tmp_path: Path) -> None:
    X, y = clusters(63)
    labels = [f"class {number}" for number in y[:60]] + ["rare"] * 3
    store = make_store(tmp_path / "store", X, label=labels)
    for notes in (shift(store, store).notes, clean(store, near_duplicates=0.99999).notes):
        (note,) = [note for note in notes if "not judged" in note]
        assert note.startswith("not judged: 3 rows of 'rare', which have fewer than 5 rows")
        assert "--" not in note
