"""FAISS behind one door: exact and approximate nearest neighbours, thread control, and its own file format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.neighbours.approximate import Cells, make_cells, near_rows
    from embedpipe.neighbours.exact import nearest_rows, normalised
    from embedpipe.neighbours.flat_file import read_flat, write_flat
    from embedpipe.neighbours.threads import faiss_alone

_HOME = {
    "Cells": "approximate",
    "faiss_alone": "threads",
    "make_cells": "approximate",
    "near_rows": "approximate",
    "nearest_rows": "exact",
    "normalised": "exact",
    "read_flat": "flat_file",
    "write_flat": "flat_file",
}

__all__ = ["Cells", "faiss_alone", "make_cells", "near_rows", "nearest_rows", "normalised", "read_flat", "write_flat"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
