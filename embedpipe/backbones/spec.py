"""What defines a vector: the declared spec of a backbone, its JSON form and its fingerprint.

This module imports no torch, so that stores and heads can be opened without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from embedpipe._utils.precision import Precision
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import SpecMismatchError, StoreError
from embedpipe.sources.options import Modality

#: ``mean`` is what people say of texts: a spec has ``avg``.
Pooling = Literal["avg", "mean", "cls", "max", "sif", "flatten", "none"]

#: The name of the layer that means "the features before the classifier".
FEATURES = "features"


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One captured layer: a column of the store.

    ``name`` is a module's dotted name, or ``"features"`` for what the network feeds its classifier;
    ``pooling`` is how that output becomes a vector of ``dim`` values.
    """

    name: str
    pooling: Pooling
    dim: int

    @property
    def column(self) -> str:
        """The store's column: ``embedding`` for the features, ``embedding_<layer>`` for any other."""
        return "embedding" if self.name == FEATURES else "embedding_" + re.sub(r"\W", "_", self.name)


@dataclass(frozen=True, slots=True)
class TextPreprocessing:
    """How a text becomes the tokens that a backbone was trained on.

    Parameters
    ----------
    config_sha256 : str
        Over all that decides the vectors and is no weight: the model's and the tokenizer's files, or the words of a
        vector file in their order.
    max_tokens : int, optional
        How many tokens the network reads at a time, special ones included; None for any number.
    chunk : bool
        Whether a longer text is read in pieces whose vectors are averaged, weighted by their tokens. If
        not, only its beginning is read.
    prompt : str
        What is put before every text.
    """

    config_sha256: str
    max_tokens: int | None = None
    chunk: bool = False
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Everything declared that decides a vector's values.

    Engine, device, batch size and library versions are not here: they are provenance, recorded beside the
    spec and held to ``precision`` by parity checks.

    Parameters
    ----------
    provider, name : str
        ``timm`` and ``resnet50.a1_in1k``, say.
    weights_sha256 : str
        Over the tensors by name (see `embedpipe.backbones.weights.tensors.hash_tensors`), so that a ``.pth`` and
        its ``.safetensors`` are the same weights.
    pretrained : bool
        False for randomly initialised weights.
    layers : tuple of LayerSpec
        What is captured, in the order of the store's columns.
    preprocessing : Preprocessing or TextPreprocessing
        Which pixels, or tokens, the network sees.
    precision : str
        Of the arithmetic in the network; vectors are float32 whatever it is.
    modality : str
        ``image`` or ``text``: what it embeds.
    """

    provider: str
    name: str
    weights_sha256: str
    pretrained: bool
    layers: tuple[LayerSpec, ...]
    preprocessing: Preprocessing | TextPreprocessing
    precision: Precision = "fp32"
    modality: Modality = "image"

    def __repr__(self) -> str:
        layers = "+".join(layer.name for layer in self.layers)
        backbone, fingerprint = f"{self.provider}/{self.name}", self.fingerprint()[:16]
        return (
            f"BackboneSpec({backbone!r}, layer={layers!r}, precision={self.precision!r}, fingerprint={fingerprint!r})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers."""
        values = dataclasses.asdict(self)
        if values["preprocessing"].get("decode") == "full":  # as before there was a choice: fingerprints last
            del values["preprocessing"]["decode"]
        return values

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BackboneSpec:
        """Read what `to_json` wrote. Raises StoreError if it is not a spec this version knows."""
        try:
            data = json.loads(text)
            data["layers"] = tuple(LayerSpec(**layer) for layer in data["layers"])
            recipe = {"image": read_recipe, "text": _read_text_recipe}[data.get("modality", "image")]
            data["preprocessing"] = recipe(data["preprocessing"])
            for layer in data["layers"]:
                if not isinstance(layer.name, str) or not isinstance(layer.dim, int) or not 0 < layer.dim < 1 << 28:
                    raise ValueError(f"{layer} is no layer")
            return cls(**data)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StoreError(
                f"not a backbone spec that this version of embedpipe reads ({error}): {text[:200]!r}; "
                "upgrade embedpipe, or embed again into a new store"
            ) from error

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def require(self, other: BackboneSpec, problem: str, mine: str, theirs: str, advice: str) -> None:
        """Raise SpecMismatchError unless ``other`` is the same: the problem, both fingerprints, what differs, advice.

        ``mine`` and ``theirs`` say where each spec is: ``in the store``, ``given``.
        """
        if differing := self.diff(other):
            fingerprints = ("fingerprint", (self.fingerprint()[:16], other.fingerprint()[:16]))
            lines = [f"  {name}: {a!r} {mine}, {b!r} {theirs}" for name, (a, b) in [fingerprints, *differing.items()]]
            raise SpecMismatchError("\n".join([f"{problem}:", *lines, advice]))

    def only(self, *names: str) -> BackboneSpec:
        """Return the spec of some layers alone, in the order named; unknown names are left out."""
        layers = {layer.name: layer for layer in self.layers}
        return dataclasses.replace(self, layers=tuple(layers[name] for name in names if name in layers))

    def diff(self, other: BackboneSpec) -> dict[str, tuple[Any, Any]]:
        """Return the differing fields, dotted, each with this spec's value and the other's."""
        mine, theirs = _flatten(self.to_dict()), _flatten(other.to_dict())
        keys = sorted(mine.keys() | theirs.keys())
        return {k: (mine.get(k), theirs.get(k)) for k in keys if mine.get(k) != theirs.get(k)}


def read_recipe(values: Mapping[str, Any]) -> Preprocessing:
    """Return the recipe that JSON's lists and strings describe. Raises TypeError or ValueError if they don't."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Preprocessing(**fields)


def _read_text_recipe(values: Mapping[str, Any]) -> TextPreprocessing:
    return TextPreprocessing(**values)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = [(f"{prefix}.{k}" if prefix else k, v) for k, v in value.items()]
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        pairs = [(f"{prefix}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    return {k: v for name, item in pairs for k, v in _flatten(item, name).items()}
