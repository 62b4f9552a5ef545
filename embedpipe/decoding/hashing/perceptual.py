"""Perceptual hashes: 256 bits that re-encoding and resizing hardly change, and from which those of the mirror follow.

The hash is that of PDQ (Facebook, 2019, after pHash of Zauner, 2010): the lowest 16 x 16 frequencies of a grey picture
of 64 x 64 pixels. Here a bit is the sign of its coefficient, not whether it is above the median. Mirroring changes the
signs of the odd horizontal frequencies and nothing else, so the hash of the mirror image is an exclusive or.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedpipe.decoding.picture import Picture

#: 256 bits as unsigned 64-bit numbers, (n, 4).
Bits = npt.NDArray[np.uint64]

#: Sides of the grey picture, and of the square of frequencies from 1; frequency 0 is the brightness.
SIDE, FREQUENCIES = 64, 16
BITS = FREQUENCIES**2

#: After so many rounds the best product of signs hardly changes; so many hashes are looked at together.
ROUNDS, BLOCK = 4, 16_384

#: Luma of ITU-R BT.601, as Pillow's mode L.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
#: The discrete cosine transform (DCT-II).
_COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(1, FREQUENCIES + 1), np.arange(SIDE) + 0.5)).astype(np.float32)
#: Coefficients of a picture of one colour are rounding errors below this.
_ROUNDING = 1.0
#: The bits of odd horizontal frequencies, whose cosines change their sign from left to right.
_MIRROR: Bits = np.packbits(np.tile(np.arange(1, FREQUENCIES + 1) % 2, FREQUENCIES)).view(np.uint64)


def perceptual_hash(picture: Picture) -> str:
    """Return the hash of a picture, whole and upright, as 64 hexadecimal digits.

    Parameters
    ----------
    picture : Picture
        From `decode_pixels`. Its colour profile is not applied.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.decoding.hashing.perceptual import PerceptualHashes, hash_distances, mirrored, perceptual_hash
    >>> from embedpipe.decoding.picture import Picture
    >>> pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    >>> pictures = [Picture(each.copy(), (60, 80)) for each in (pixels, pixels[:, ::-1])]
    >>> first, second = PerceptualHashes.read([perceptual_hash(picture) for picture in pictures]).bits
    >>> int(hash_distances(first, second)) > 100, int(hash_distances(mirrored(first), second)) < 4
    (True, True)
    """
    import torch

    # This kernel averages over all pixels without copying them first: a third of the time of Pillow's.
    pixels = torch.from_numpy(picture.pixels)[None].permute(0, 3, 1, 2)
    shrink = torch.ops.aten._upsample_bilinear2d_aa.default
    small = shrink(pixels, (SIDE, SIDE), False, None, None)[0].permute(1, 2, 0).numpy()
    grey = picture.upright(small) @ _LUMA
    return np.packbits(_COSINES @ grey @ _COSINES.T > _ROUNDING).tobytes().hex()


@dataclass(frozen=True, eq=False)
class PerceptualHashes:
    """The perceptual hashes of rows.

    Attributes
    ----------
    bits : uint64 array (n_rows, 4)
    known : bool array (n_rows,)
        False for rows without a hash: texts, and pictures of imported vectors.
    """

    bits: Bits
    known: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, hashes: Sequence[str | None]) -> Self:
        """Return the hashes that `perceptual_hash` gave."""
        digits = "".join(each or "0" * (BITS // 4) for each in hashes)
        bits = np.frombuffer(bytes.fromhex(digits), np.uint64).reshape(-1, BITS // 64)
        return cls(bits, np.array([each is not None for each in hashes], bool))

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Whether a row has a hash with a bit set, bool (n_rows,).

        Pictures of one colour have none, nor have stripes from side to side, such as flags, of any colours.
        """
        usable: npt.NDArray[np.bool_] = self.known & self.bits.any(axis=1)
        return usable

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, rows: Any) -> PerceptualHashes:
        """Return those of some rows."""
        return PerceptualHashes(self.bits[rows], self.known[rows])

    def followed_by(self, others: PerceptualHashes) -> PerceptualHashes:
        """Return these hashes and those of other rows after them."""
        bits, known = np.concatenate([self.bits, others.bits]), np.concatenate([self.known, others.known])
        return PerceptualHashes(bits, known)


def mirrored(bits: Bits) -> Bits:
    """Return the hashes of the same pictures with left and right exchanged."""
    return bits ^ _MIRROR


def telling_bits(bits: Bits) -> npt.NDArray[np.int64]:
    """Return how many bits of hashes the best product of a sign for each row and each column does not give, (n,).

    About 80 of 256, as of random bits. Of a small thing at the edge of a plain ground all frequencies have such signs,
    which depend on its place only: so has each picture with something there, and 10 to 25 bits tell them apart.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.decoding.hashing.perceptual import telling_bits
    >>> stripes = np.array([0xAAAA_5555_AAAA_5555] * 4, np.uint64)
    >>> content = np.random.default_rng(0).integers(0, 2**64, 4, np.uint64)
    >>> telling_bits(np.array([stripes, content])).tolist()
    [0, 82]
    """
    parts = [_telling_bits(bits[start : start + BLOCK]) for start in range(0, len(bits), BLOCK)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _telling_bits(bits: Bits) -> npt.NDArray[np.int64]:
    shape = (-1, FREQUENCIES, FREQUENCIES)
    signs = 2 * np.unpackbits(bits.view(np.uint8), axis=-1).reshape(shape).astype(np.float32) - 1
    # The row that agrees most with the others, or with their opposites, is near the best one.
    alike = np.abs(signs @ signs.transpose(0, 2, 1)).sum(axis=2).argmax(axis=1)
    columns = signs[np.arange(len(signs)), alike]
    for _ in range(ROUNDS):
        rows = np.where(np.einsum("nij,nj->ni", signs, columns) >= 0, 1, -1)
        columns = np.where(np.einsum("nij,ni->nj", signs, rows) >= 0, 1, -1)
    agreement = np.abs(np.einsum("nij,nj->ni", signs, columns)).sum(axis=1)
    telling: npt.NDArray[np.int64] = ((BITS - agreement) // 2).astype(np.int64)
    return telling


def hash_distances(first: Bits, second: Bits) -> npt.NDArray[np.int64]:
    """Return the number of bits, 0 to 256, in which hashes differ; about 128 for pictures of different things."""
    distances: npt.NDArray[np.int64] = np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.int64)
    return distances
