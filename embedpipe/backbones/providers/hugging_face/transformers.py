"""``transformers/NAME``: every text or image encoder of Hugging Face's transformers, pooled by embedpipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe.backbones.network import ImageNetwork, TextNetwork, Weights
from embedpipe.backbones.providers.hugging_face.folder import find_folder, hash_configuration
from embedpipe.backbones.providers.hugging_face.library import quiet
from embedpipe.backbones.providers.hugging_face.loading import find_gaps, load_reports
from embedpipe.backbones.providers.hugging_face.modality import modalities_in
from embedpipe.backbones.providers.hugging_face.packages import PACKAGES
from embedpipe.backbones.providers.hugging_face.text_tower import describe_text
from embedpipe.backbones.providers.hugging_face.tokenizer import FastTokenizer
from embedpipe.backbones.providers.hugging_face.vision import describe_vision, require_files
from embedpipe.backbones.providers.hugging_face.vocabulary import count_embeddings, require_vocabulary
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.backbones.weights.download import with_revision
from embedpipe.backbones.weights.tensors import seeded
from embedpipe.errors import WeightsError

#: The limit of tokens if neither the tokenizer nor the network has one.
DEFAULT_TOKENS = 512

#: Do not contact the hub, and run no code from the folder.
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class TransformersProvider:
    """Provider of the text and image encoders of transformers, from a folder, the hub or an installed package.

    The model's configuration decides what it embeds. Of encoder-decoder models such as T5 the encoder is used.
    """

    reads_files = True
    takes_image_size = True

    def names(self) -> list[str]:
        """Return the models in installed packages."""
        return list(PACKAGES)

    def load(
        self, name: str, weights: Weights, offline: bool, image_size: int | None = None
    ) -> ImageNetwork | TextNetwork:
        """Load a model; see `Provider.load`. Features are its last hidden state, one vector per token."""
        library = import_extra("transformers", "text")
        folder, spec_name, origin = find_folder(name, name, weights, offline)
        modalities = modalities_in(str(folder), "default", offline)
        if "image" in modalities:
            vision = _load_vision(library, folder, origin, weights == "none", image_size)
            vision = dataclasses.replace(vision, name=spec_name, files=with_revision(folder, name))
            if "text" not in modalities or not hasattr(vision.module, "get_text_features"):
                return vision
            return dataclasses.replace(vision, text=_load_text(library, vision, folder))
        try:
            with quiet(), load_reports() as reports:
                tokenizer = library.AutoTokenizer.from_pretrained(folder, **_LOCAL)
                module = _build(library, folder, random=weights == "none")
        except Exception as error:
            raise WeightsError(f"transformers cannot load {origin}: {type(error).__name__}: {error}") from error
        gaps = find_gaps(module, reports, origin)
        rows = count_embeddings(module)
        require_vocabulary(tokenizer, rows, origin)
        limit = _limit(tokenizer, module)
        fast = FastTokenizer(tokenizer, limit, rows=rows)
        return TextNetwork(
            name=spec_name,
            module=module,
            preprocessing=TextPreprocessing(hash_configuration(folder), limit),
            tokenizer=fast,
            origin="random, seeded" if weights == "none" else origin,
            pretrained=weights != "none",
            features=_features,
            class_token=fast.class_token,
            libraries=("transformers", "tokenizers"),
            gaps=gaps,
            files=with_revision(folder, name),
        )


def _load_vision(library: Any, folder: Path, origin: str, random: bool, image_size: int | None) -> ImageNetwork:
    require_files(folder, random)
    try:
        with quiet(), load_reports() as reports:
            processor = library.AutoImageProcessor.from_pretrained(folder, **_LOCAL)
            module = _build(library, folder, random)
    except Exception as error:
        raise WeightsError(f"transformers cannot load {origin}: {type(error).__name__}: {error}") from error
    gaps = find_gaps(module, reports, origin)
    return dataclasses.replace(
        describe_vision(module.float(), processor, folder, origin, image_size),
        origin="random, seeded" if random else origin,
        pretrained=not random,
        gaps=gaps,
    )


def _load_text(library: Any, images: ImageNetwork, folder: Path) -> TextNetwork:
    try:
        with quiet():
            tokenizer = library.AutoTokenizer.from_pretrained(folder, **_LOCAL)
    except Exception as error:
        raise WeightsError(
            f"transformers cannot load the tokenizer of {images.origin}: {type(error).__name__}: {error}"
        ) from error
    return describe_text(images, tokenizer, folder)


def _build(library: Any, folder: Path, random: bool) -> Any:
    if random:
        with seeded():
            config = library.AutoConfig.from_pretrained(folder, **_LOCAL)
            model = library.AutoModel.from_config(config, trust_remote_code=False)
    else:
        model = library.AutoModel.from_pretrained(folder, **_LOCAL)
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _features(module: nn.Module, batch: dict[str, Tensor]) -> Any:
    return module(**batch).last_hidden_state


def _limit(tokenizer: Any, module: Any) -> int:
    """Return how many tokens a network reads: at most the number of its positions."""
    limits = [tokenizer.model_max_length]
    if positions := getattr(module.config, "max_position_embeddings", None):
        table = getattr(getattr(module, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)  # RoBERTa's positions start after the padding index
        limits.append(positions - (0 if padding is None else padding + 1))
    limit = min(limits)
    return int(limit) if 0 < limit < 1 << 20 else DEFAULT_TOKENS
