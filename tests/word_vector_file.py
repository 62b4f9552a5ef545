"""A small file of word vectors, in which words of one topic lie together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TOPICS = {
    "animals": ["cat", "dog", "owl", "mouse", "fish", "horse"],
    "money": ["bank", "cash", "coin", "loan", "prize", "win"],
    "weather": ["rain", "snow", "wind", "storm", "cloud", "sun"],
}


def write_vectors(path: Path, dim: int = 8) -> Path:
    """Write GloVe text: a word and its values on every line."""
    rng = np.random.default_rng(0)
    lines = []
    for words in TOPICS.values():
        centre = rng.standard_normal(dim)
        for word in words:
            values = centre + 0.2 * rng.standard_normal(dim)
            lines.append(" ".join([word, *(f"{value:.5f}" for value in values)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
