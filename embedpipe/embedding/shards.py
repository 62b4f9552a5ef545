"""A share of a source's items: several processes, each on a GPU of its own, embed one source into one store."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.errors import UsageError


class Shard(NamedTuple):
    """Items whose id falls to one of ``total`` processes, ``number`` of them, counted from 1.

    It goes by the id alone, so processes agree on it however the source and the store change meanwhile.
    """

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read ``2/4``; None is all there is. Raises UsageError for anything else."""
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"shard={text!r} is no share: give I/N, such as 1/4 to 4/4 for four processes")
        return cls(int(found[1]), int(found[2]))

    def marks(self, ids: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
        """Mark the ids that are of this shard."""
        mine = (zlib.crc32(id.encode()) % self.total == self.number - 1 for id in ids.to_pylist())
        return np.fromiter(mine, bool, len(ids))
