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
        describe_layers,
        list_backbones,
        load_backbone,
    )
    from embedpipe.decoding import Preprocessing
    from embedpipe.embedding import EmbeddingTransformer, EmbedSummary, RunOptions, VerifyReport, embed, verify
    from embedpipe.errors import EmbedpipeError, Failure
    from embedpipe.report.map import draw_map
    from embedpipe.sources import Listing, SourceOptions, open_source, read_uri
    from embedpipe.store import FeatureStore

__version__ = "0.1.0"

_HOME = {
    "Backbone": "backbones",
    "BackboneOptions": "backbones",
    "BackboneSpec": "backbones",
    "EmbedSummary": "embedding",
    "EmbeddingTransformer": "embedding",
    "EmbedpipeError": "errors",
    "Failure": "errors",
    "FeatureStore": "store",
    "LayerSpec": "backbones",
    "Listing": "sources",
    "Preprocessing": "decoding",
    "RunOptions": "embedding",
    "SourceOptions": "sources",
    "VerifyReport": "embedding",
    "describe_layers": "backbones",
    "draw_map": "report.map",
    "embed": "embedding",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "open_source": "sources",
    "read_uri": "sources",
    "verify": "embedding",
}

__all__ = [
    "Backbone",
    "BackboneOptions",
    "BackboneSpec",
    "EmbedSummary",
    "EmbeddingTransformer",
    "EmbedpipeError",
    "Failure",
    "FeatureStore",
    "LayerSpec",
    "Listing",
    "Preprocessing",
    "RunOptions",
    "SourceOptions",
    "VerifyReport",
    "__version__",
    "describe_layers",
    "draw_map",
    "embed",
    "list_backbones",
    "load_backbone",
    "open_source",
    "read_uri",
    "verify",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
