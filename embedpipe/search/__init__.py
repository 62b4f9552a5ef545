"""What in a store is like this? Exact nearest neighbours by cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.search.index import SimilarityIndex
    from embedpipe.search.options import SearchOptions
    from embedpipe.search.similar import find_similar

_HOME = {"SearchOptions": "options", "SimilarityIndex": "index", "find_similar": "similar"}

__all__ = ["SearchOptions", "SimilarityIndex", "find_similar"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
