"""The embedding loop, from a source to a store; and the scikit-learn transformer on top of it."""

from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.run import embed
from embedpipe.embedding.summary import EmbedSummary

__all__ = ["EmbedSummary", "RunOptions", "embed"]
