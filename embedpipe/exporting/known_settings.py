"""What the settings of an exported folder may be: what `write_settings` writes, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from embedpipe.backbones.spec import read_recipe
from embedpipe.exporting.graph_checks import WEIGHTS

#: Files of a model by format: the graph, and its weights if they are not in it.
MODELS = {"onnx": ("model.onnx", WEIGHTS), "openvino": ("model.xml", "model.bin")}
#: Most pixels of the crop that a network takes.
MOST_PIXELS = 4096 * 4096
#: Tensors of texts.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def require_known(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError for settings that no export writes."""
    _require(settings["format"] in MODELS, "the format is unknown")
    _require(settings["model"] == MODELS[settings["format"]][0], "it names another model")
    _require(isinstance(settings["files"], dict) and settings["model"] in settings["files"], "the model is missing")
    _require(settings["task"] in ("classification", "regression", "multilabel"), "the task is unknown")
    _require(settings["output"] in ("probabilities", "scores", "numbers"), "the outputs are unknown")
    for name in ("head", "label", "column", "separator", "precision"):
        _require(isinstance(settings[name], str), f"{name} is not a text")
    limit = settings["reject_above"]
    _require(limit is None or (_is(limit, float) and not math.isnan(limit)), "reject_above is not a number")
    _require_classes(settings)
    if settings["modality"] == "image":
        crop = read_recipe(settings["preprocessing"]).crop
        _require(all(_is(side, int) for side in crop) and math.prod(crop) <= MOST_PIXELS, "the crop is too large")
    else:
        _require(settings["modality"] == "text", "the modality is unknown")
        _require("tokenizer.json" in settings["files"], "the tokenizer is missing")
        _require_tokens(settings["tokens"])


def _require_classes(settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless classes are sorted values of one type, as many as outputs."""
    classes, outputs = settings["classes"], settings["outputs"]
    if settings["task"] == "regression":
        _require(classes is None and outputs == 1, "the classes do not fit the task")
        return
    _require(isinstance(classes, list), "the classes are no list")
    kinds = {type(value) for value in classes}
    _require(len(kinds) == 1 and kinds <= {str, int, float, bool}, "the classes are not of one type")
    _require(classes == sorted(set(classes)), "the classes are not sorted, or one is there twice")
    one_score = settings["task"] == "classification" and settings["output"] == "scores" and len(classes) == 2
    _require(_is(outputs, int) and outputs == (1 if one_score else len(classes)), "the outputs do not fit the classes")


def _require_tokens(declared: Mapping[str, Any]) -> None:
    _require(isinstance(declared["prompt"], str) and isinstance(declared["lower"], bool), "the tokens are unknown")
    for name in ("window", "rows"):
        _require(declared[name] is None or (_is(declared[name], int) and declared[name] > 0), f"{name} is not a number")
    for name in ("pad", "type_pad"):
        _require(_is(declared[name], int) and 0 <= declared[name] < 2**31, f"{name} is not a number")
    _require({*declared["inputs"]} <= {*INPUTS}, "the inputs are unknown")


def _is(value: Any, kind: type) -> bool:
    """Return whether a value is a number of a kind; floats may be written as integers, and bools are no numbers."""
    return isinstance(value, (kind, int)) and not isinstance(value, bool)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)
