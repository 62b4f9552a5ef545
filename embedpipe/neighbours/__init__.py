"""FAISS behind one door: exact nearest neighbours, thread control, and its own file format."""

from embedpipe.neighbours.exact import nearest_rows, normalised
from embedpipe.neighbours.flat_file import read_flat, write_flat
from embedpipe.neighbours.threads import faiss_alone

__all__ = ["faiss_alone", "nearest_rows", "normalised", "read_flat", "write_flat"]
