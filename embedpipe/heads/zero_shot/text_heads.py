"""The heads ``zero-shot`` and ``text-prior``: vectors of class names by the text encoder of a store's backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import BackboneError, Failure, UsageError
from embedpipe.estimators.text_prior.text_prior import TextPriorClassifier
from embedpipe.estimators.text_prior.zero_shot import ZeroShotClassifier
from embedpipe.heads.zero_shot.prompts import prompts_of
from embedpipe.neighbours.exact import normalised
from embedpipe.sources.options import Modality

#: Name -> estimator.
TEXT_HEADS = {"zero-shot": ZeroShotClassifier, "text-prior": TextPriorClassifier}
#: Temperatures without labels: the lower bound of CLIP's (Radford et al., 2.5), and the one that sentence-transformers
#: are trained with.
TEMPERATURES: dict[Modality, float] = {"image": 0.01, "text": 0.05}


def is_text_head(head: Any) -> bool:
    """Return whether a head is one of class names."""
    return isinstance(head, str) and head in TEXT_HEADS


def refuse_names(classes: Sequence[str], templates: Sequence[str]) -> None:
    """Raise UsageError if there are classes or templates, which no head takes."""
    for name, value in (("classes", classes), ("templates", templates)):
        if value:
            raise UsageError(
                f"{option(name, ','.join(value))} is for the heads {' and '.join(TEXT_HEADS)}: leave it out, or choose "
                "one of them"
            )


def make_text_head(head: str, vectors: npt.NDArray[np.float32], classes: Sequence[Any], modality: Modality) -> Any:
    """Return the unfitted estimator of a head of class names.

    Parameters
    ----------
    head : str
        A name of `TEXT_HEADS`.
    vectors : float32 array (n_classes, dim)
    classes : sequence (n_classes,)
        In the same order.
    modality : str
        Of the vectors that it will be fitted on.
    """
    return TEXT_HEADS[head](vectors, list(classes), temperature=TEMPERATURES[modality])


def embed_classes(
    spec: BackboneSpec, words: Sequence[str], templates: Sequence[str], reload_options: ReloadOptions, show: Progress
) -> npt.NDArray[np.float32]:
    """Return a vector for each class: the mean of the unit vectors of its sentences.

    Parameters
    ----------
    spec : BackboneSpec
        With the layers that are used.
    words : sequence of str
        Of each class.
    templates : sequence of str
        Empty: those of `TEMPLATES`.
    reload_options : ReloadOptions
    show : Progress

    Returns
    -------
    float32 array (n_classes, dim)

    Raises
    ------
    UsageError, BackboneError
        If the backbone embeds no texts into the space of the vectors, or cannot be loaded.
    """
    # Need torch, and readers of every kind of source, which other heads do not.
    from embedpipe.backbones import reload_backbone
    from embedpipe.embedding import ComputeOptions, stream_vectors
    from embedpipe.sources.opening import open_source

    if spec.is_imported:
        raise UsageError(
            f"class names need a backbone that embeds texts, and these vectors were imported: choose another "
            f"{option('head')}"
        )
    prompts = prompts_of(words, templates, spec.modality)
    try:
        backbone = reload_backbone(spec, reload_options, None, "the store", "text")
    except UsageError as error:
        raise UsageError(f"class names are texts, and {error}") from error
    listing = open_source([text for sentences in prompts for text in sentences], modality="text")
    vectors = np.zeros((len(listing), sum(layer.dim for layer in spec.layers)), np.float32)
    for message in stream_vectors(listing, backbone, ComputeOptions(), show):
        if isinstance(message, Failure):
            raise BackboneError(f"the name of a class cannot be embedded: {message.why}")
        vectors[message.rows] = np.hstack([message.vectors[layer.column] for layer in spec.layers])
    return normalised(normalised(vectors).reshape(len(prompts), -1, vectors.shape[1]).mean(axis=1))
