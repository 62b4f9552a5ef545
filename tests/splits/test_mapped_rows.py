"""`MappedRows` reads what the joined arrays hold, and never all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpipe.neighbours import exact
from embedpipe.splits.inner import take_rows
from embedpipe.splits.mapped_rows import MappedRows

LEFT = np.random.default_rng(0).standard_normal((23, 3)).astype(np.float32)
RIGHT = np.random.default_rng(1).standard_normal((23, 2)).astype(np.float32)
BOTH = np.hstack([LEFT, RIGHT])

ROWS = st.lists(st.integers(0, 22), min_size=1, max_size=40).map(np.array)


@given(ROWS, st.data())
def test_rows_of_rows_are_those_of_the_joined_arrays(rows: np.ndarray, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1).map(np.array))
    part = data.draw(st.slices(len(rows)))
    X = take_rows(MappedRows([LEFT, RIGHT]), rows)
    assert (X.shape, len(X), X.nbytes) == ((len(rows), 5), len(rows), 20 * len(rows))
    np.testing.assert_array_equal(X[some], BOTH[rows][some])
    np.testing.assert_array_equal(X[part], BOTH[rows][part])
    np.testing.assert_array_equal(X.take(some)[part], BOTH[rows][some][part])


def test_mean_is_that_of_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "ROW_BLOCK", 4 * 5 * 4)
    X = MappedRows([LEFT, RIGHT])
    np.testing.assert_allclose(X.mean(axis=0), BOTH.mean(axis=0, dtype=np.float64), rtol=1e-12)


def test_all_rows_become_no_array() -> None:
    with pytest.raises(MemoryError, match="23 x 5 vectors are to be read block by block"):
        np.asarray(MappedRows([LEFT, RIGHT]))
