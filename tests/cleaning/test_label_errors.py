"""The doubt of labels: its range, its order, and that neighbours and heads both count."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.cleaning.judging.duplicates import equal_content, find_pairs
from embedpipe.cleaning.judging.label_errors import doubt_of_labels, find_label_errors, with_neighbours
from embedpipe.cleaning.judging.outliers import robust_z
from embedpipe.neighbours.duplicates import duplicate_pairs
from embedpipe.neighbours.graph import Graph
from embedpipe.neighbours.tuning import Recall


@given(st.integers(2, 30), st.integers(2, 6), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_joined_probabilities_are_probabilities(rows: int, classes: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    head = rng.dirichlet(np.ones(classes), rows)
    y = rng.integers(0, classes, rows)
    neighbours, cosines = rng.integers(-1, rows, (rows, k)), rng.uniform(-1, 1, (rows, k))
    joined = with_neighbours(head, y, neighbours, cosines)
    np.testing.assert_allclose(joined.sum(axis=1), 1)
    assert (joined > 0).all()
    doubt = doubt_of_labels(joined, y)
    assert ((doubt >= 0) & (doubt <= 1)).all()
    errors = find_label_errors(joined, y)
    assert (errors.proposed != y[errors.rows]).all()
    assert (errors.scores > 0).all()
    assert sum(count for *_, count in errors.confused) == len(errors.rows)


def test_neighbours_and_head_both_move_the_doubt() -> None:
    y = np.array([0, 0, 0, 1, 1])
    head = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.1, 0.9]])
    near = np.array([[1, 3], [0, 3], [3, 4], [4, 2], [3, 2]])
    cosines = np.full((5, 2), 0.9)
    doubt = doubt_of_labels(with_neighbours(head, y, near, cosines), y)
    assert doubt.argmax() == 2
    assert doubt[2] > doubt_of_labels(head, y)[2]


def test_an_error_that_others_make_is_doubted_more() -> None:
    """Rows of class 0 are often labelled 1: of two labels that are equally improbable, 1 is the more doubtful."""
    n_classes, y = 4, np.repeat([0, 1, 2, 3], 10)
    probabilities = np.full((40, n_classes), 0.02)
    probabilities[np.arange(40), y] = 0.94
    probabilities[10:15] = 0.94, 0.02, 0.02, 0.02
    probabilities[20] = 0.4, 0.2, 0.2, 0.2
    probabilities[15] = 0.4, 0.2, 0.2, 0.2
    doubt = doubt_of_labels(probabilities, y)
    assert doubt[15] > doubt[20] > 0.5
    # Without other errors both are the probability that is not the label's, weighted equally.
    alone = doubt_of_labels(probabilities[[*range(10), *range(15, 40)]], y[[*range(10), *range(15, 40)]])
    np.testing.assert_allclose(alone[[10, 15]], 0.8 / (0.8 + 0.2))


def test_neighbours_that_are_missing_or_unlike_have_no_vote() -> None:
    head, y = np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([0, 1])
    alone = with_neighbours(head, y, np.array([[-1], [-1]]), np.array([[0.9], [0.9]]))
    unlike = with_neighbours(head, y, np.array([[1], [0]]), np.array([[-0.5], [-0.5]]))
    np.testing.assert_allclose(alone, unlike)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_each_later_duplicate_is_named_once(contents: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = equal_content(pa.chunked_array([[f"{content:x}" for content in contents]]))
    rows = len(contents)
    k = min(3, rows - 1)
    neighbours = np.array([rng.permutation(np.delete(np.arange(rows), row))[:k] for row in range(rows)])
    cosines = -np.sort(-rng.uniform(0.8, 1, (rows, k)), axis=1)
    pairs = find_pairs(first, duplicate_pairs(Graph(cosines, neighbours, Recall(k, 1.0, 1.0, 0)), 0.95))
    assert len(set(pairs.rows.tolist())) == len(pairs.rows)
    assert (pairs.related < pairs.rows).all()
    assert set(np.flatnonzero(first != np.arange(rows))) == set(pairs.rows[pairs.exact])
    assert all(
        contents[row] == contents[other]
        for row, other in zip(pairs.rows[pairs.exact], pairs.related[pairs.exact], strict=True)
    )
    assert (pairs.scores >= 0.95).all()


def test_robust_z_is_not_moved_by_outliers() -> None:
    values = np.concatenate([np.random.default_rng(0).standard_normal(1000), [50.0] * 80])
    z = robust_z(values)
    assert (z[1000:] > 30).all()
    assert z[:1000].std() == pytest.approx(1, abs=0.25)
    assert robust_z(np.ones(5)).tolist() == [0.0] * 5
    assert robust_z(np.ones(2), np.empty(0)).tolist() == [0.0, 0.0]
