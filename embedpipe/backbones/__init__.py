"""Frozen pretrained networks: which there are, how one is loaded, and what comes out of it.

Names are imported on first use: the spec and the options need no torch, the rest does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone, Item
    from embedpipe.backbones.device import choose_device
    from embedpipe.backbones.load import describe_layers, load_backbone, options_of, reload_backbone, resolve
    from embedpipe.backbones.network import ImageNetwork, Provider, TextNetwork, Tokenizer, Tokens, input_of
    from embedpipe.backbones.options import BackboneOptions, ReloadOptions
    from embedpipe.backbones.registry import list_backbones
    from embedpipe.backbones.spec import BackboneSpec, LayerSpec, TextPreprocessing
    from embedpipe.backbones.stages import Stage

_HOME = {
    "Backbone": "backbone",
    "BackboneOptions": "options",
    "BackboneSpec": "spec",
    "Item": "backbone",
    "LayerSpec": "spec",
    "ImageNetwork": "network",
    "Provider": "network",
    "ReloadOptions": "options",
    "Stage": "stages",
    "TextNetwork": "network",
    "TextPreprocessing": "spec",
    "Tokenizer": "network",
    "Tokens": "network",
    "choose_device": "device",
    "describe_layers": "load",
    "input_of": "network",
    "list_backbones": "registry",
    "load_backbone": "load",
    "options_of": "load",
    "reload_backbone": "load",
    "resolve": "load",
}

__all__ = [
    "Backbone",
    "BackboneOptions",
    "BackboneSpec",
    "ImageNetwork",
    "Item",
    "LayerSpec",
    "Provider",
    "ReloadOptions",
    "Stage",
    "TextNetwork",
    "TextPreprocessing",
    "Tokenizer",
    "Tokens",
    "choose_device",
    "describe_layers",
    "input_of",
    "list_backbones",
    "load_backbone",
    "options_of",
    "reload_backbone",
    "resolve",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
