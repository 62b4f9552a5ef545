"""The embedding loop, from a source to a store; and the scikit-learn transformer on top of it.

Names are imported on first use: the options and the summary need no torch, the loop does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.embedding.drift import Drift, LayerDrift
    from embedpipe.embedding.head_drift import HeadDrift
    from embedpipe.embedding.options import ComputeOptions, RunOptions
    from embedpipe.embedding.run import embed
    from embedpipe.embedding.streaming import stream_vectors
    from embedpipe.embedding.summary import EmbedSummary
    from embedpipe.embedding.transformer import EmbeddingTransformer
    from embedpipe.embedding.verification import VerifyReport, verify

_HOME = {
    "ComputeOptions": "options",
    "Drift": "drift",
    "EmbedSummary": "summary",
    "EmbeddingTransformer": "transformer",
    "HeadDrift": "head_drift",
    "LayerDrift": "drift",
    "RunOptions": "options",
    "VerifyReport": "verification",
    "embed": "run",
    "stream_vectors": "streaming",
    "verify": "verification",
}

__all__ = [
    "ComputeOptions",
    "Drift",
    "EmbedSummary",
    "EmbeddingTransformer",
    "HeadDrift",
    "LayerDrift",
    "RunOptions",
    "VerifyReport",
    "embed",
    "stream_vectors",
    "verify",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
