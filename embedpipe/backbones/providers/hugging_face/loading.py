"""What transformers finds in a model's weights: tensors that are missing, of another shape, or not used.

By itself the library fills such tensors with random values, other ones in each process, and only logs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from embedpipe._utils.importing import import_extra
from embedpipe.backbones.network import Gaps
from embedpipe.errors import WeightsError

#: Buffers that older versions saved and newer ones compute.
_COMPUTED = ("position_ids", "inv_freq", "masked_bias", "attn.bias", "attention.bias")

#: Model types whose networks are the same.
_SAME_NETWORK = ({"roberta", "xlm-roberta", "camembert"}, {"bert", "ernie"})

#: Names of tensors that a message shows.
_SHOWN = 3


@dataclass(frozen=True)
class LoadReport:
    """The differences between a module of transformers and the weights that were loaded into it, by tensor name."""

    module: Any
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def gaps_in(self, own: Mapping[str, Any]) -> set[str]:
        """Return which tensors of a module the weights lack; it contains the loaded module, or a part of it."""
        tensors = self.module.state_dict(keep_vars=True)
        lacking = (*self.missing, *(name for name, _, _ in self.mismatched))
        gaps = {id(tensors[name]) for name in lacking if name in tensors}
        return {name for name, tensor in own.items() if id(tensor) in gaps}

    def describe(self, own: Mapping[str, Any]) -> str:
        """Return the differences that concern a module with these tensors, one kind on a line."""
        tensors = self.module.state_dict(keep_vars=True)
        inside = {id(tensor) for tensor in own.values()}
        missing = [name for name in self.missing if name in tensors and id(tensors[name]) in inside]
        shapes = [f"{name} {shape} instead of {built}" for name, shape, built in self.mismatched]
        parts = (("missing", missing), ("of another shape", shapes), ("not in the network", self.unexpected))
        lines = [f"  {len(names)} {what}: {_some(names)}" for what, names in parts if names]
        if self.unexpected and all(name.startswith("module.") for name in self.unexpected):
            lines.append("  data-parallel training adds 'module.' to the names: save model.module instead of model")
        return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


@contextlib.contextmanager
def load_reports() -> Iterator[list[LoadReport]]:
    """Collect a report of each module that transformers loads inside the block, also within other libraries."""
    base = import_extra("transformers", "text").PreTrainedModel
    original: Callable[..., Any] = base.from_pretrained.__func__
    reports: list[LoadReport] = []

    def from_pretrained(cls: Any, *args: Any, **options: Any) -> Any:
        module, info = original(cls, *args, **{**options, "output_loading_info": True, "ignore_mismatched_sizes": True})
        mismatched = sorted((name, tuple(a), tuple(b)) for name, a, b in info["mismatched_keys"])
        missing, unexpected = (tuple(sorted(info[key])) for key in ("missing_keys", "unexpected_keys"))
        reports.append(LoadReport(module, missing, unexpected, tuple(mismatched)))
        return module

    base.from_pretrained = classmethod(from_pretrained)
    try:
        yield reports
    finally:
        base.from_pretrained = classmethod(original)


def find_gaps(module: nn.Module, reports: Sequence[LoadReport], origin: str) -> Gaps:
    """Fill the tensors of a module that the weights lack with NaN, and return their names.

    Parameters
    ----------
    module : torch.nn.Module
        The network, which contains the loaded modules or parts of them.
    reports : sequence of LoadReport
    origin : str
        The origin of the weights, for messages.

    Raises
    ------
    WeightsError
        If the weights have tensors for a part of the network that its configuration leaves out, or the configuration
        names two architectures.
    """
    own = module.state_dict(keep_vars=True)
    names: set[str] = set()
    for report in reports:
        _check_architecture(report, origin)
        _check_types(report, origin)
        if left_out := [name for name in report.unexpected if _is_inside(report.module, name)]:
            raise WeightsError(
                f"the weights of {origin} have {len(left_out)} tensors that the network of config.json has no place "
                f"for, such as {_some(left_out)}: use the config.json with which the weights were saved, or merge "
                "adapters into the model"
            )
        names |= report.gaps_in(own)
    with torch.no_grad():
        for name in names:
            if own[name].is_floating_point():
                own[name].fill_(torch.nan)
    return Gaps(frozenset(names), "\n".join(text for report in reports if (text := report.describe(own))))


def _is_inside(module: nn.Module, name: str) -> bool:
    """Return whether a tensor belongs to a part of the network, and not to a head that embedding needs not."""
    if name.endswith(_COMPUTED):
        return False
    first, _, rest = name.partition(".")
    if first == getattr(module, "base_model_prefix", "") and not hasattr(module, first):
        first = rest.partition(".")[0]
    return isinstance(getattr(module, first, None), nn.Module)


def _check_types(report: LoadReport, origin: str) -> None:
    """Refuse 8-bit integers without a configuration of their scales: the library takes them for the weights."""
    config = report.module.config
    if getattr(config, "quantization_config", None) is not None:
        return
    for file in sorted(Path(config.name_or_path).glob("*model*")):
        for name, dtype in _types(file).items():
            if dtype in (torch.int8, torch.uint8):
                raise WeightsError(
                    f"the weights of {origin} must be floating-point numbers, but {name!r} holds {dtype}: save the "
                    "model before it is quantised"
                )


def _types(file: Path) -> dict[str, torch.dtype]:
    """Return the types of the tensors of a weights file, without reading their values."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            integers = {"I8": torch.int8, "U8": torch.uint8}
            types = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
            return {name: integers.get(dtype, torch.float32) for name, dtype in types.items()}
    if file.suffix == ".bin":
        state = torch.load(file, map_location="meta", weights_only=True)
        return {name: tensor.dtype for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    return {}


def _check_architecture(report: LoadReport, origin: str) -> None:
    library = import_extra("transformers", "text")
    config = report.module.config
    for name in config.architectures or ():
        other = getattr(getattr(library, str(name), None), "config_class", None)
        types = {config.model_type, getattr(other, "model_type", config.model_type)}
        if len(types) > 1 and not any(types <= same for same in _SAME_NETWORK):
            raise WeightsError(
                f"config.json of {origin} must name one architecture, got model_type {config.model_type!r} and "
                f"architectures {name!r}: use the config.json with which the weights were saved"
            )
