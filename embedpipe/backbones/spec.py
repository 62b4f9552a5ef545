"""The spec of a backbone, which declares everything that decides a vector: its JSON form and its fingerprint.

This module imports no torch, so that stores and heads can be opened without it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import option
from embedpipe._utils.options import Precision
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import SpecMismatchError, StoreError
from embedpipe.sources.options import Modality

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedpipe.backbones.projection import Projection

#: The beginning of the note on backbones that have learned nothing.
RANDOM = "RANDOM weights"

#: ``mean`` is a synonym of ``avg``; a spec always has ``avg``.
Pooling = Literal["avg", "mean", "cls", "cls+mean", "max", "pooler", "sif", "flatten", "none"]

#: The name of the layer that means "the features before the classifier".
FEATURES = "features"

#: The provider of vectors that were made elsewhere and imported: there is no network.
VECTORS = "vectors"


@dataclass(frozen=True, slots=True)
class Reduction:
    """How the vectors of a layer are computed from those of another one, by a projection that was learned on a store.

    Parameters
    ----------
    layer : str
        The layer whose vectors are projected.
    dim : int
        The length of those.
    whiten : bool
        Whether every value has variance 1 over the rows that it was learned on.
    sha256 : str
        Hash of the projection's file.
    read : callable, optional
        Reads the projection. It is not part of the spec: a store or head gives it when it is opened.
    """

    layer: str
    dim: int
    whiten: bool
    sha256: str
    read: Callable[[], Projection] | None = field(default=None, compare=False, repr=False)

    @property
    def file(self) -> str:
        """The name of the projection's file."""
        return f"{self.sha256}.safetensors"

    def read_from(self, folder: str | None, dimensions: int) -> Reduction:
        """Return the same with ``read`` for a folder or URL; None: without."""
        from embedpipe.backbones.projection import read_projection

        location = f"{folder}/{self.file}"
        read = functools.partial(read_projection, location, self.sha256, self.dim, dimensions)
        return dataclasses.replace(self, read=None if folder is None else read)


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer, which is one column of the store.

    ``name`` is a module's dotted name, or ``"features"`` for the input of the network's classifier;
    ``pooling`` is how the layer's output becomes a vector of ``dim`` values. A layer with a ``reduction`` is computed
    from another one.
    """

    name: str
    pooling: Pooling
    dim: int
    reduction: Reduction | None = None

    @property
    def column(self) -> str:
        """The store's column: ``embedding`` for the features, ``embedding_<layer>`` for any other."""
        return "embedding" if self.name == FEATURES else "embedding_" + re.sub(r"\W", "_", self.name)

    @property
    def captured(self) -> LayerSpec:
        """The layer of the network: this one, or that from which it is reduced."""
        given = self.reduction
        return self if given is None else LayerSpec(given.layer, self.pooling, given.dim)


@dataclass(frozen=True, slots=True)
class TextPreprocessing:
    """How a text becomes tokens.

    Parameters
    ----------
    config_sha256 : str
        Hash of everything beside the weights that decides the vectors: the configuration files of the model and
        tokenizer, or the words of a vector file in their order.
    max_tokens : int, optional
        How many tokens the network reads at a time, including special tokens; None if there is no limit.
    chunk : bool
        Whether a longer text is split into pieces whose vectors are averaged, weighted by their numbers of tokens. If
        not, only its beginning is read.
    prompt : str
        Text that is put before every text.
    """

    config_sha256: str
    max_tokens: int | None = None
    chunk: bool = False
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The declaration of everything that decides a vector's values.

    Engine, device, batch size and library versions are not part of it. They are provenance, which is recorded beside
    the spec; parity checks hold them to ``precision``.

    Parameters
    ----------
    provider, name : str
        For example ``timm`` and ``resnet50.a1_in1k``.
    weights_sha256 : str
        Hash of the tensors by name (see `embedpipe.backbones.weights.tensors.hash_tensors`), so that a ``.pth`` and
        its ``.safetensors`` have the same hash.
    pretrained : bool
        False for randomly initialised weights.
    layers : tuple of LayerSpec
        The captured layers, in the order of the store's columns.
    preprocessing : Preprocessing, TextPreprocessing or None
        How images become pixels, or texts tokens; None for imported vectors, of which this is not known.
    precision : str
        Arithmetic of the network; vectors are always float32.
    modality : str
        ``image`` or ``text``: what the backbone embeds.
    config_sha256 : str
        Hash of the configuration file of an image network that its name does not decide; empty for others. That of a
        text network is in its preprocessing.
    dimensions : int, optional
        To how many values the features are cut; None: they are whole.
    image_size : int, optional
        The side of the images in pixels, if it is not the one with which the network was published.

    Examples
    --------
    >>> import embedpipe
    >>> spec = embedpipe.load_backbone("timm/test_resnet", weights="none", device="cpu").spec
    >>> [(layer.name, layer.pooling, layer.dim) for layer in spec.layers]
    [('features', 'none', 96)]
    >>> embedpipe.BackboneSpec.from_json(spec.to_json()) == spec
    True
    """

    provider: str
    name: str
    weights_sha256: str
    pretrained: bool
    layers: tuple[LayerSpec, ...]
    preprocessing: Preprocessing | TextPreprocessing | None
    precision: Precision = "fp32"
    modality: Modality = "image"
    config_sha256: str = ""
    dimensions: int | None = None
    image_size: int | None = None

    @classmethod
    def of_vectors(cls, name: str, dim: int, modality: Modality) -> BackboneSpec:
        """Return the spec of vectors that were made elsewhere, by what the user calls ``name``."""
        return cls(VECTORS, name, "", True, (LayerSpec(FEATURES, "none", dim),), None, modality=modality)

    @property
    def is_imported(self) -> bool:
        """Whether the vectors were imported, so that no network can be loaded."""
        return self.provider == VECTORS

    @property
    def title(self) -> str:
        """The name in tables for people, with a short commit, and ``(random weights)`` where nothing was learned."""
        name = re.sub(r"(@[0-9a-f]{7})[0-9a-f]{33}$", r"\1", self.name)
        return f"{self.provider}/{name}" + ("" if self.pretrained else " (random weights)")

    def __repr__(self) -> str:
        layers = "+".join(layer.name for layer in self.layers)
        backbone, fingerprint = f"{self.provider}/{self.name}", self.fingerprint()[:16]
        return (
            f"BackboneSpec({backbone!r}, layer={layers!r}, precision={self.precision!r}, fingerprint={fingerprint!r})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers."""
        data = dataclasses.asdict(self.with_projections(None))
        for layer in data["layers"]:
            if layer["reduction"]:
                del layer["reduction"]["read"]
        return data

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BackboneSpec:
        """Read the JSON of `to_json`. Raises StoreError if this version cannot read it."""
        try:
            data = parse_json(text)
            data["layers"] = tuple(_read_layer(layer) for layer in data["layers"])
            recipe = {"image": read_recipe, "text": _read_text_recipe}[data.get("modality", "image")]
            if data["provider"] != VECTORS or data["preprocessing"] is not None:
                data["preprocessing"] = recipe(data["preprocessing"])
            for layer in data["layers"]:
                for each in (layer, layer.captured):
                    if not isinstance(each.name, str) or not isinstance(each.dim, int) or not 0 < each.dim < 1 << 28:
                        raise ValueError(f"{each} is not a layer")
            if not isinstance(data.get("dimensions"), int | None):
                raise ValueError("dimensions is not a number")
            return cls(**data)
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"not a backbone spec that this version of embedpipe can read ({error}): {text[:200]!r}. "
                "Upgrade embedpipe, or embed again into a new store"
            ) from error

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def require(self, other: BackboneSpec, problem: str, mine: str, theirs: str, advice: str) -> None:
        """Raise SpecMismatchError unless ``other`` is equal to this spec.

        The message has the problem, both fingerprints, the differing fields and the advice. ``mine`` and ``theirs`` say
        where each spec is: ``in the store``, ``loaded``.
        """
        if differing := self.diff(other):
            # Of another network everything differs, and reduced layers follow from those that are captured.
            differing = self.captured.diff(other.captured) or differing
            backbone = {name: values for name, values in differing.items() if name in ("provider", "name")}
            differing = backbone or differing
            fingerprints = ("fingerprint", (self.fingerprint()[:16], other.fingerprint()[:16]))
            lines = [f"  {name}: {a!r} {mine}, {b!r} {theirs}" for name, (a, b) in [fingerprints, *differing.items()]]
            raise SpecMismatchError("\n".join([f"{problem}:", *lines, advice]))

    def only(self, *names: str) -> BackboneSpec:
        """Return the spec with these layers only, in this order; unknown names are left out."""
        layers = {layer.name: layer for layer in self.layers}
        return dataclasses.replace(self, layers=tuple(layers[name] for name in names if name in layers))

    @property
    def captured(self) -> BackboneSpec:
        """The spec of what the network gives: reduced layers are replaced by those from which they are computed."""
        return dataclasses.replace(self, layers=tuple(dict.fromkeys(layer.captured for layer in self.layers)))

    def vectors(self, captured: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
        """Return the vectors of all layers by column, float32 (n, dim), from those of the layers of the network.

        Raises StoreError if the projection of a reduced layer cannot be read.
        """
        vectors = {}
        for layer in self.layers:
            X = captured[layer.captured.column]
            vectors[layer.column] = layer.reduction.read()(X) if layer.reduction and layer.reduction.read else X
        return vectors

    def with_projections(self, folder: str | None) -> BackboneSpec:
        """Return the spec with what reads the projections of its reduced layers from a folder or URL; None: without."""
        layers = (
            dataclasses.replace(each, reduction=each.reduction.read_from(folder, each.dim)) if each.reduction else each
            for each in self.layers
        )
        return dataclasses.replace(self, layers=tuple(layers))

    def diff(self, other: BackboneSpec) -> dict[str, tuple[Any, Any]]:
        """Return the differing fields by dotted name, each with the values of this spec and of the other."""
        mine, theirs = _flatten(self.to_dict()), _flatten(other.to_dict())
        keys = sorted(mine.keys() | theirs.keys())
        return {k: (mine.get(k), theirs.get(k)) for k in keys if mine.get(k) != theirs.get(k)}


def random_notes(specs: Iterable[BackboneSpec]) -> list[str]:
    """Return a note if backbones have random weights, to be said wherever their vectors are used."""
    names = dict.fromkeys(f"{spec.provider}/{spec.name}" for spec in specs if not spec.pretrained)
    random = f"{RANDOM} ({option('weights', 'none')}), which have learned nothing"
    return [f"{random}: {', '.join(names)}"] if names else []


def read_recipe(values: Mapping[str, Any]) -> Preprocessing:
    """Return the recipe of a JSON object. Raises TypeError or ValueError if the object is not a recipe."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Preprocessing(**fields)


def _read_text_recipe(values: Mapping[str, Any]) -> TextPreprocessing:
    return TextPreprocessing(**values)


def _read_layer(values: Mapping[str, Any]) -> LayerSpec:
    reduction = values.get("reduction")
    if reduction is not None:
        if not re.fullmatch("[0-9a-f]{64}", reduction["sha256"]):  # a part of the name of a file
            raise ValueError("the hash of a projection must have 64 hexadecimal digits")
        reduction = Reduction(**{**reduction, "read": None})
    return LayerSpec(**{**values, "reduction": reduction})


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = [(f"{prefix}.{k}" if prefix else k, v) for k, v in value.items()]
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        pairs = [(f"{prefix}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    return {k: v for name, item in pairs for k, v in _flatten(item, name).items()}
