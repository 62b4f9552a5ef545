"""The embedding loop, from a source to a store; and the scikit-learn transformer on top of it.

Names are imported on first use: the options and the summary need no torch, the loop does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.embedding.options import RunOptions
    from embedpipe.embedding.run import embed
    from embedpipe.embedding.summary import EmbedSummary
    from embedpipe.embedding.transformer import EmbeddingTransformer
    from embedpipe.embedding.verification import VerifyReport, verify

_HOME = {
    "EmbedSummary": "summary",
    "EmbeddingTransformer": "transformer",
    "RunOptions": "options",
    "VerifyReport": "verification",
    "embed": "run",
    "verify": "verification",
}

__all__ = ["EmbedSummary", "EmbeddingTransformer", "RunOptions", "VerifyReport", "embed", "verify"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
