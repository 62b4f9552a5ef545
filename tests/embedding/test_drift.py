"""`measure_drift`: cosines, neighbours, and heads of known accuracy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from stored import clusters, make_spec

from embedpipe.embedding.verification.drift import drifts, measure_drift, neighbours_kept, reference_of, with_precision
from embedpipe.embedding.verification.head_drift import Labelled


def labelled(values: list[object]) -> Labelled:
    labels = Labelled.of(pa.chunked_array([pa.array(values)]), "label")
    assert isinstance(labels, Labelled)
    return labels


def test_drifts_of_known_angles() -> None:
    a = np.array([[3, 0], [1, 0], [0, 0], [0, 0], [1, 0], [1, 1]], np.float32)
    b = np.array([[5, 0], [0, 2], [0, 0], [1, 0], [np.nan, 0], [-2, -2]], np.float32)
    assert drifts(a, b) == pytest.approx([0, 1, 0, 1, 2, 2])
    angle = 1e-6  # far below what 1 - cosine resolves by subtraction in float32
    turned = np.array([[np.cos(angle), np.sin(angle)]])
    assert drifts(np.array([[1.0, 0.0]]), turned) == pytest.approx([angle**2 / 2], rel=1e-6)


def test_neighbours_kept_on_a_circle() -> None:
    def circle(degrees: list[float]) -> np.ndarray:
        turns = np.radians(degrees)
        return np.stack([np.cos(turns), np.sin(turns)], axis=1)

    before = circle([0, 1, 3, 20, 21.5])
    assert neighbours_kept(before, before * 3, 2) == (1.0, 1.0)
    # The second row moves to the other end, so only the fourth row keeps its nearest, the fifth.
    after = circle([0, 22.5, 3, 20, 21.5])
    assert neighbours_kept(before, after, 1) == (1 / 5, 1 / 5)
    assert neighbours_kept(before, after, 4)[0] == 1.0


def test_copies_of_a_row_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((7, 33)), 6, axis=0)
    assert neighbours_kept(X, X.astype(np.float32), 3) == (1.0, 1.0)


def test_equal_vectors_have_no_drift() -> None:
    X, y = clusters(60)
    drift = measure_drift(make_spec(8), {"embedding": X}, {"embedding": X.copy()}, labelled(y.tolist()))
    (layer,) = drift.layers
    assert (layer.median, layer.p95, layer.largest, layer.neighbours_kept, layer.nearest_kept) == (0, 0, 0, 1, 1)
    assert layer.head is not None
    assert layer.head.difference == 0
    assert layer.head.low < 0 < layer.head.high
    assert (layer.head.classes, layer.head.rows, drift.no_head) == (3, 60, None)


def test_head_on_noise_loses_its_accuracy() -> None:
    X, y = clusters(90, spread=0.05)
    noise = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    drift = measure_drift(make_spec(8), {"embedding": X}, {"embedding": noise}, labelled(y.tolist()))
    head = drift.layers[0].head
    assert head is not None
    assert (head.metric, head.reference) == ("accuracy", 1.0)
    assert 0.1 < head.cheaper < 0.6  # one third by chance
    assert head.difference == pytest.approx(head.cheaper - 1)
    assert head.low < head.difference < head.high < 0


def test_numbers_are_compared_by_r2() -> None:
    X = np.random.default_rng(0).standard_normal((120, 6)).astype(np.float32)
    y = (X @ np.arange(1, 7)).astype(float) + 0.5
    worse = X.copy()
    worse[:, 5] = 0  # 36 of the 91 parts of the variance
    drift = measure_drift(make_spec(6), {"embedding": X}, {"embedding": worse}, labelled(y.tolist()))
    head = drift.layers[0].head
    assert head is not None
    assert (head.metric, head.classes) == ("r2", 0)
    assert head.reference > 0.99
    assert head.cheaper == pytest.approx(55 / 91, abs=0.15)
    assert head.low < head.difference < head.high < 0


def test_missing_labels_and_rare_classes_are_left_out() -> None:
    X, _ = clusters(40)
    y = ["a", "b"] * 15 + [None] * 6 + ["rare"] * 4
    drift = measure_drift(make_spec(8), {"embedding": X}, {"embedding": X}, labelled(y))
    head = drift.layers[0].head
    assert head is not None
    assert (head.rows, head.classes) == (30, 2)
    assert sorted(head.left_out.values()) == [4, 6]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([f"class {i // 2}" for i in range(40)], "got 0 of 20"),
        (["one"] * 40, "got 1 of 1"),
        ([None] * 39 + ["one"], "got 0 of 1"),
        ([0.5, 1.25] + [None] * 38, "got 2"),
    ],
)
def test_reason_is_given_if_heads_cannot_be_compared(values: list[object], reason: str) -> None:
    X, _ = clusters(40)
    drift = measure_drift(make_spec(8), {"embedding": X}, {"embedding": X}, labelled(values))
    assert drift.no_head is not None
    assert reason in drift.no_head
    assert drift.layers[0].head is None


def test_column_of_lists_has_no_labels() -> None:
    reason = Labelled.of(pa.chunked_array([pa.array([[1], [2]])]), "boxes")
    assert isinstance(reason, str)
    assert "'boxes' holds list<item: int64> values" in reason


def test_items_with_infinite_values_are_counted() -> None:
    X, y = clusters(30)
    half = X.copy()
    half[3, 2] = np.inf
    drift = measure_drift(make_spec(8), {"embedding": X}, {"embedding": half}, labelled(y.tolist()))
    assert (drift.rows, drift.not_finite, drift.layers[0].largest) == (29, 1, 0)


def test_single_item_has_no_neighbours() -> None:
    X, _ = clusters(1)
    drift = measure_drift(make_spec(8), {"embedding": X}, {"embedding": X}, "no labels")
    assert (drift.layers[0].k, drift.layers[0].neighbours_kept, drift.no_head) == (0, None, "no labels")


def test_with_precision_changes_a_spec() -> None:
    spec = make_spec(8)
    cheap = with_precision(spec, "bf16", "scaled")
    assert (cheap.precision, cheap.preprocessing.decode) == ("bf16", "scaled")
    assert reference_of(cheap) == spec
    assert with_precision(cheap, None, None) == cheap
