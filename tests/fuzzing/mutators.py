"""Random changes of small files: bits, numbers, blocks, cuts, repeats, and pieces of the format."""

from __future__ import annotations

import random
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence

#: No input becomes longer.
LONGEST = 400_000

#: Numbers at which sizes, counts and indices go wrong.
NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Return bytes after one to four random changes.

    Parameters
    ----------
    others : sequence of bytes
        Files to take pieces from.
    tokens : sequence of bytes
        Pieces of the format to insert.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(_CHANGES)(data, rng, others, tokens)[:LONGEST]
    return data


Change = Callable[[bytes, random.Random, Sequence[bytes], Sequence[bytes]], bytes]


def _place(data: bytes, rng: random.Random) -> int:
    """Headers are hit as often as all the rest."""
    return rng.randrange(min(len(data), 64) if rng.random() < 0.5 else len(data)) if data else 0


def _bit(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    if not data:
        return b"\0"
    at = _place(data, rng)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _byte(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([rng.choice((0, 255, 127, 128, rng.randrange(256)))]) + data[at + 1 :]


def _number(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Write a number of 2, 4 or 8 bytes over what is there."""
    at, size = _place(data, rng), rng.choice((2, 4, 8))
    value = rng.choice(NUMBERS) % 2 ** (8 * size)
    return data[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _digits(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Replace a number that is written in digits."""
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[:200_000]))
    if not numbers:
        return _byte(data, rng, others, tokens)
    match = rng.choice(numbers)
    new = rng.choice(
        (b"-1", b"1e999", b"NaN", b"null", b"0.1", b'"1"', b"00", b"[]", b"{}", *(b"%d" % n for n in NUMBERS))
    )
    return data[: match.start()] + new + data[match.end() :]


def _cut(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _hole(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 16, 300, 5000)) :]


def _zeros(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at, size = _place(data, rng), rng.choice((4, 64, 1024))
    return data[:at] + bytes([rng.choice((0, 255))]) * size + data[at + size :]


def _insert(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 16, 300))) + data[at:]


def _token(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Insert pieces of the format, often very many."""
    if not tokens:
        return _insert(data, rng, others, tokens)
    at, token = _place(data, rng), rng.choice(tokens)
    return data[:at] + token * rng.choice((1, 1, 2, 50, 3000, 60_000)) + data[at:]


def _repeat(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Repeat a piece of the file, often very often: what takes quadratic time shows."""
    at = _place(data, rng)
    size, times = rng.choice(((1, 200_000), (3, 60_000), (16, 2000), (512, 3), (512, 200), (5000, 4)))
    return data[:at] + data[at : at + size] * times + data[at + size :]


def _splice(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _swap_lines(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return _splice(data, rng, others, tokens)
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(3)
    if way == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif way == 1:
        lines.insert(first, lines[second])
    else:
        del lines[first]
    return b"".join(lines)


_CHANGES: tuple[Change, ...] = (
    _bit, _bit, _byte, _number, _number, _digits, _cut, _hole, _zeros, _insert, _token, _repeat, _splice, _swap_lines
)  # fmt: skip


def with_png_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have right checksums, so that changes get past them."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        if at + 12 + size > len(data):
            break
        body = data[at + 4 : at + 8 + size]
        parts.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + size
    return b"".join(parts) + data[at:]


def with_tar_checksums(data: bytes) -> bytes:
    """Return a tar whose headers have right checksums."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for number, block in enumerate(blocks):
        if len(block) == 512 and block[257:262] == b"ustar":
            total = tarfile.calc_chksums(block)[0]  # type: ignore[attr-defined]
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)
