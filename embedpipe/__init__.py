"""embedpipe: embed a dataset once with a frozen pretrained backbone, then train, search and compare on the store.

Names are imported on first use, so that ``import embedpipe`` is fast and pulls in no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.backbones import (
        Backbone,
        BackboneOptions,
        BackboneSpec,
        LayerSpec,
        ReloadOptions,
        describe_layers,
        list_backbones,
        load_backbone,
    )
    from embedpipe.decoding import Preprocessing
    from embedpipe.embedding import (
        ComputeOptions,
        EmbeddingTransformer,
        EmbedSummary,
        RunOptions,
        VerifyReport,
        embed,
        verify,
    )
    from embedpipe.errors import EmbedpipeError, Failure
    from embedpipe.heads import (
        CommonComponentRemover,
        FaissKNNClassifier,
        FaissKNNRegressor,
        FitOptions,
        FitReport,
        Head,
        fit,
        load_estimator,
        load_head,
    )
    from embedpipe.report.confusion import draw_confusion
    from embedpipe.report.map import draw_map
    from embedpipe.report.neighbours import draw_neighbours
    from embedpipe.search import SearchOptions, SimilarityIndex, find_similar
    from embedpipe.sources import Listing, SourceOptions, open_source, read_uri
    from embedpipe.store import FeatureStore

__version__ = "0.1.0"

_HOME = {
    "Backbone": "backbones",
    "BackboneOptions": "backbones",
    "BackboneSpec": "backbones",
    "CommonComponentRemover": "heads",
    "ComputeOptions": "embedding",
    "EmbedSummary": "embedding",
    "EmbeddingTransformer": "embedding",
    "EmbedpipeError": "errors",
    "Failure": "errors",
    "FaissKNNClassifier": "heads",
    "FaissKNNRegressor": "heads",
    "FeatureStore": "store",
    "FitOptions": "heads",
    "FitReport": "heads",
    "Head": "heads",
    "LayerSpec": "backbones",
    "Listing": "sources",
    "Preprocessing": "decoding",
    "ReloadOptions": "backbones",
    "RunOptions": "embedding",
    "SearchOptions": "search",
    "SimilarityIndex": "search",
    "SourceOptions": "sources",
    "VerifyReport": "embedding",
    "describe_layers": "backbones",
    "draw_confusion": "report.confusion",
    "draw_map": "report.map",
    "draw_neighbours": "report.neighbours",
    "embed": "embedding",
    "find_similar": "search",
    "fit": "heads",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "load_estimator": "heads",
    "load_head": "heads",
    "open_source": "sources",
    "read_uri": "sources",
    "verify": "embedding",
}

__all__ = [
    "Backbone",
    "BackboneOptions",
    "BackboneSpec",
    "CommonComponentRemover",
    "ComputeOptions",
    "EmbedSummary",
    "EmbeddingTransformer",
    "EmbedpipeError",
    "Failure",
    "FaissKNNClassifier",
    "FaissKNNRegressor",
    "FeatureStore",
    "FitOptions",
    "FitReport",
    "Head",
    "LayerSpec",
    "Listing",
    "Preprocessing",
    "ReloadOptions",
    "RunOptions",
    "SearchOptions",
    "SimilarityIndex",
    "SourceOptions",
    "VerifyReport",
    "__version__",
    "describe_layers",
    "draw_confusion",
    "draw_map",
    "draw_neighbours",
    "embed",
    "find_similar",
    "fit",
    "list_backbones",
    "load_backbone",
    "load_estimator",
    "load_head",
    "open_source",
    "read_uri",
    "verify",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
