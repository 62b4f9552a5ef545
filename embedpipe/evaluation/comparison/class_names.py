"""Estimators of the heads of class names, for the classes and layers of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.rows import Layer
from embedpipe.heads.zero_shot.prompts import class_words
from embedpipe.heads.zero_shot.text_heads import embed_classes, make_text_head


def text_head_maker(
    classes: npt.NDArray[Any], given: Sequence[str], templates: Sequence[str], reload: ReloadOptions, show: Progress
) -> Callable[[str, Layer], Any]:
    """Return a function that makes the estimator of a head of class names for a layer.

    Its classes are the positions in ``classes``, as for every candidate. Names are embedded once for each layer.

    Parameters
    ----------
    classes : array (n_classes,)
        The labels of the rows.
    given, templates : sequence of str
        The options ``classes`` and ``templates``.
    """

    @cache
    def vectors(layer: Layer) -> npt.NDArray[np.float32]:
        if classes.dtype.kind != "U":
            raise UsageError("heads of class names need labels that are words: write them as text (`embedpipe label`)")
        words = class_words(given, classes.tolist())
        if unlabelled := words.keys() - {*classes.tolist()}:
            raise UsageError(
                f"{option('classes')} must be classes that are measured, and no row has {', '.join(sorted(unlabelled))}"
            )
        spec = layer.store.spec.only(*layer.names)
        return embed_classes(spec, [words[name] for name in classes.tolist()], templates, reload, show)

    return lambda head, layer: make_text_head(head, vectors(layer), range(len(classes)), layer.store.spec.modality)
