"""The file of cells: FAISS reads what it wrote, and nothing that was changed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from embedpipe.neighbours import NearRows, Tuning, make_cells, normalised
from embedpipe.neighbours.cells import BITS, add_rows, empty_cells
from embedpipe.neighbours.cells_file import read_cells, write_cells
from embedpipe.neighbours.exact import METRICS, Metric
from embedpipe.neighbours.tuning import NO_GATE


def written(path: Path, rows: int, metric: Metric = "cosine", bits: int = 8, dim: int = 20) -> int:
    """Write the cells of random rows, and return their number."""
    cells = make_cells(np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32), metric, bits)
    write_cells(cells, path)
    return int(cells.nlist)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("mapped", [True, False])
def test_cells_are_read_as_they_were_written(tmp_path: Path, metric: Metric, bits: int, mapped: bool) -> None:
    for rows in (1, 40, 900):
        count = written(tmp_path / "c.faiss", rows, metric, bits)
        read = read_cells(tmp_path / "c.faiss", count, 20, rows, metric, bits, mapped=mapped)
        assert (read.ntotal, read.nlist) == (rows, count)


def test_cells_of_version_0_2_0_are_read_and_take_rows(tmp_path: Path) -> None:
    rows = normalised(np.random.default_rng(0).standard_normal((300, 16)))
    write_cells(empty_cells(rows[:20], "cosine", "QT_8bit", rows), tmp_path / "c.faiss")
    read = read_cells(tmp_path / "c.faiss", 20, 16, 0, "cosine", mapped=False)
    add_rows(read, rows, None, np.arange(300), "cosine")
    near = NearRows(rows, "cosine", read, Tuning((1,), (20,), 4, NO_GATE))
    assert near.search(rows[:5], 1)[1].ravel().tolist() == [0, 1, 2, 3, 4]


def test_other_kinds_and_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.faiss"
    count = written(path, 900)
    others: list[tuple[int, int, int, Metric, int]] = [
        (count - 1, 20, 900, "cosine", 8),
        (count, 200, 900, "cosine", 8),
        (count, 20, 901, "cosine", 8),
        (count, 20, 900, "euclidean", 8),
        (count, 20, 900, "cosine", 6),
        (1 << 50, 20, 900, "cosine", 8),
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"c.faiss holds no .* cells of"):
            read_cells(path, *other)


def test_changed_headers_and_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.faiss"
    count = written(path, 900)
    whole = path.read_bytes()
    lists = whole.rindex(b"ilar")
    headers = [*range(8), *range(16, 45), *range(53, 98), *range(lists - 9, lists + 32 + 8 * count)]
    for at in headers[::5]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="holds no"):
            read_cells(path, count, 20, 900, "cosine")
    for size in (1 << 50, 1 << 63, (1 << 64) - 1):
        path.write_bytes(whole[: lists + 32] + struct.pack("<Q", size) + whole[lists + 40 :])
        with pytest.raises(ValueError, match="its lists have other sizes"):
            read_cells(path, count, 20, 900, "cosine")
    for cut in (0, 50, lists + 3, lists + 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="holds no"):
            read_cells(path, count, 20, 900, "cosine")
