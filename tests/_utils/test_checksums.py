"""Checksums: known values, of arrays and files as of their bytes, and every flipped bit noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedpipe._utils.checksums import BLOCK, HashedFile, block_checksums, checksum, file_checksum, row_checksums


def test_checksum_is_xxh3_with_128_bits() -> None:
    assert checksum(b"") == "99aa06d3014798d86001c324468d497f"  # of the algorithm's own tests
    X = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert checksum(X) == checksum(X.tobytes()) == checksum(memoryview(X))
    with pytest.raises((ValueError, BufferError)):
        checksum(X.T)


def test_every_flipped_bit_changes_the_checksum() -> None:
    data = bytearray(range(64))
    sums = {checksum(data)}
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        sums.add(checksum(data))
        data[bit // 8] ^= 1 << bit % 8
    assert len(sums) == 1 + 8 * len(data)


def test_blocks_and_files_have_the_checksums_of_their_bytes(tmp_path: Path) -> None:
    X = np.random.default_rng(0).random((BLOCK // 8 + 5, 2), np.float32)
    data = X.tobytes()
    assert block_checksums(X) == [checksum(data[:BLOCK]), checksum(data[BLOCK:])]
    assert block_checksums(np.empty((0, 4), np.float32)) == block_checksums(b"") == []
    (tmp_path / "file").write_bytes(data)
    assert file_checksum(tmp_path / "file") == checksum(data)


def test_file_is_hashed_as_it_is_written(tmp_path: Path) -> None:
    with HashedFile(tmp_path / "a") as file:
        for data in (b"ab", memoryview(np.arange(5)), b""):
            file.write(data)
    assert (file.size, file.closed) == (42, True)
    assert file.checksum == checksum((tmp_path / "a").read_bytes()) == file_checksum(tmp_path / "a")
    with pytest.raises(FileExistsError):
        HashedFile(tmp_path / "a")


def test_rows_have_their_own_checksums() -> None:
    X = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert row_checksums(X) == [checksum(row) for row in X]
