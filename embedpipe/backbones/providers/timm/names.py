"""From the name of a timm network to its architecture: timm's own, a hub repository's, or that of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedpipe._utils.importing import compiler_deferred
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.backbones.network import StoredWeights, Weights
from embedpipe.backbones.weights.checkpoint import FOLDER_FILES, read_checkpoint, refuse_pointer
from embedpipe.backbones.weights.download import fetch_files, pinned, with_revision
from embedpipe.errors import UnknownBackboneError, WeightsError, nearest

with compiler_deferred():
    import timm
    from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, split_model_name_tag

#: timm's prefixes of a hub repository, ``ORG/NAME`` or ``ORG/NAME@REVISION``, and of a folder.
HUB, LOCAL = "hf-hub:", "local-dir:"

#: The file that names the architecture, as timm's ``save_for_hf`` writes it.
CONFIG = "config.json"

#: What else of the file decides the network; the rest is preprocessing, names of classes, and remarks.
_DECISIVE = ("global_pool", "input_size", "fixed_input_size")


@dataclass(frozen=True)
class NamedModel:
    """The network of a name.

    Parameters
    ----------
    name : str
        For the spec: with the commit of a hub repository, and without the place of a folder.
    source : str
        What ``timm.create_model`` takes.
    config : PretrainedCfg, optional
        timm's own configuration of the architecture.
    folder : Path, optional
        The folder with ``config.json``.
    config_sha256 : str
        Hash of what decides the network beside its name.
    settings : mapping
        The configuration in the folder.
    files : tuple of Path
        The files that were read.
    """

    name: str
    source: str
    config: PretrainedCfg | None
    folder: Path | None = None
    config_sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @property
    def image_size(self) -> int:
        """The side of the images with which it was published; 0 if they are not square."""
        size = self._published("input_size") or (3, 224, 224)
        return int(size[-1]) if size[-1] == size[-2] else 0

    @property
    def is_built_for_a_size(self) -> bool:
        """Whether timm builds it for one size of images, such as that of its position embeddings."""
        return bool(self._published("fixed_input_size")) or "img_size" in (self.settings.get("model_args") or {})

    def _published(self, key: str) -> Any:
        inner = self.settings.get("pretrained_cfg", self.settings)
        return inner.get(key) or getattr(self.config, key, None)

    def read_weights(self) -> StoredWeights:
        """Return the weights in the folder."""
        assert self.folder is not None
        return read_checkpoint(self.folder).weights


def is_elsewhere(name: str) -> bool:
    """Whether a name is that of a hub repository or of a folder."""
    return name.startswith((HUB, LOCAL))


def find_model(name: str, weights: Weights, offline: bool) -> NamedModel:
    """Return the network of a name, and fetch what it needs from the hub.

    Raises
    ------
    UnknownBackboneError
        If timm has no network of that name.
    WeightsError
        If a file is missing, cannot be downloaded, or is not a configuration of timm.
    """
    if not is_elsewhere(name):
        require_model(name)
        config = get_pretrained_cfg(name)
        name = f"{config.architecture}.{config.tag}" if config is not None and config.tag else name
        folder = weights.folder if isinstance(weights, StoredWeights) else None
        settings = _read_configuration(folder)[0] if folder else {}
        return NamedModel(name, f"{LOCAL}{folder}" if folder else name, config, settings=settings)
    is_hub, place = name.startswith(HUB), name.partition(":")[2]
    files: tuple[Path, ...] = ()
    if isinstance(weights, StoredWeights) and weights.folder is not None:
        folder, files = weights.folder, weights.files
    elif is_hub:
        folder = fetch_files(place, [[CONFIG], FOLDER_FILES] if weights == "default" else [[CONFIG]], offline)
        files = with_revision(folder / CONFIG, place)
    else:
        folder = Path(place).expanduser()
    settings, sha256 = _read_configuration(folder)
    architecture = settings["architecture"]
    return NamedModel(
        name=f"{HUB}{pinned(place, folder)}" if is_hub else f"{LOCAL}{architecture}",
        source=f"{LOCAL}{folder}",
        config=get_pretrained_cfg(architecture),
        folder=folder,
        config_sha256=sha256,
        settings=settings,
        files=files or (folder / CONFIG,),
    )


def require_model(name: str) -> None:
    """Raise UnknownBackboneError unless timm has this architecture, with that tag if there is one."""
    architecture, tag = split_model_name_tag(name)
    if not is_model(architecture):
        names = [*timm.list_models(), *timm.list_pretrained()]
        raise UnknownBackboneError(
            f"timm {timm.__version__} has no model {name!r}{nearest(name, names) or '.'} `embedpipe backbones timm/` "
            "lists them. A hub repository is timm/hf-hub:ORG/NAME, a folder timm/local-dir:FOLDER"
        )
    try:
        get_pretrained_cfg(name)
    except RuntimeError as error:
        tagged = [other for other in timm.list_pretrained() if other.startswith(f"{architecture}.")]
        raise UnknownBackboneError(
            f"timm's {architecture!r} has no weights tagged {tag!r}. Available: {', '.join(tagged) or 'none'}"
        ) from error


def _read_configuration(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the configuration of a folder, and the hash of what decides the network."""
    file = folder / CONFIG
    if not file.is_file():
        raise WeightsError(
            f"a model of timm must have its configuration, but {str(file)!r} does not exist: timm's save_for_hf writes "
            "it beside the weights"
        )
    refuse_pointer(file)
    try:
        content: dict[str, Any] = parse_json(file.read_text(encoding="utf-8"))
        architecture = content["architecture"]
        inner: dict[str, Any] = content.get("pretrained_cfg", content)
        decisive = {key: inner.get(key) for key in _DECISIVE}
        channels = (inner.get("input_size") or (3,))[0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        advice = (
            f". It is one of transformers: use transformers/{folder}" if b'"model_type"' in file.read_bytes() else ""
        )
        raise WeightsError(f"{str(file)!r} must be a timm configuration with 'architecture'{advice}") from error
    if not isinstance(architecture, str) or not is_model(architecture):
        raise UnknownBackboneError(
            f"{str(file)!r} names {architecture!r}, which timm {timm.__version__} does not have: a newer one may"
        )
    if channels != 3:
        raise WeightsError(f"{str(file)!r} must be of a network for images of 3 channels, got {channels}")
    decisive |= {"architecture": architecture, "model_args": content.get("model_args") or {}}
    return content, hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
