"""Whether a model of transformers embeds images or texts, by its ``config.json``; needs no torch if that is here."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from embedpipe.errors import WeightsError
from embedpipe.sources.options import Modality

#: Settings of networks that see images.
_OF_IMAGES = ("image_size", "num_channels")

#: A setting of networks that read texts too; a vocabulary alone may be that of BEiT's visual tokens.
_OF_TEXTS = "max_position_embeddings"


#: Types of models with an encoder for images and one for texts, whose vectors lie in one space.
_TWO_ENCODERS = ("clip", "metaclip_2", "siglip", "siglip2")

#: Files of which one holds the words of a tokenizer.
_VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt", "sentencepiece.bpe.model")


def modalities_in(name: str, weights: str, offline: bool) -> tuple[Modality, ...]:
    """Return what a model embeds: images and texts if it has an encoder for each, such as CLIP, and a tokenizer.

    Parameters
    ----------
    name : str
        A folder, or a hub repository.
    weights : str
        ``default``, ``none``, or a folder.
    offline : bool

    Raises
    ------
    WeightsError
        If there is no ``config.json``, or it is not valid.
    """
    file = _find_config(name, weights, offline)
    try:
        config: dict[str, Any] = json.loads(file.read_bytes())
        of_images = "vision_config" in config or (_OF_TEXTS not in config and any(key in config for key in _OF_IMAGES))
        of_both = of_images and config.get("model_type") in _TWO_ENCODERS
    except FileNotFoundError as error:
        raise WeightsError(f"the folder of a model must have config.json, but {str(file)!r} does not exist") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        from embedpipe.backbones.weights.checkpoint import refuse_pointer  # needs torch

        if file.is_file():
            refuse_pointer(file)
        raise WeightsError(f"{str(file)!r} is not valid JSON: {error}") from error
    if of_both and any((file.parent / vocabulary).is_file() for vocabulary in _VOCABULARIES):
        return ("image", "text")
    return ("image",) if of_images else ("text",)


def _find_config(name: str, weights: str, offline: bool) -> Path:
    folder = Path(name if weights in ("default", "none") else weights).expanduser()
    if weights not in ("default", "none") or folder.is_dir():
        return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(HFValidationError):
        repository, _, revision = name.partition("@")
        if isinstance(file := try_to_load_from_cache(repository, "config.json", revision=revision or None), str):
            return Path(file)
    from embedpipe.backbones.providers.hugging_face.folder import find_folder  # needs torch

    return find_folder(name, name, "default", offline)[0] / "config.json"
