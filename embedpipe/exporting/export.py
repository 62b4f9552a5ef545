"""The verb ``export``: a head and its backbone as one graph, compared with the head before it is put in place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.importing import import_extra, import_without_telemetry
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.exporting.options import ExportOptions
from embedpipe.exporting.result import Export
from embedpipe.heads.head import Head, load_head
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ExportParameters

OPTIONS = (ExportOptions, ReloadOptions)


@takes_options(*OPTIONS)
def export(
    head: Head | str | Path,
    to: str | Path,
    *,
    store: FeatureStore | str | Path | None = None,
    progress: bool | None = None,
    **options: Unpack[ExportParameters],
) -> Export:
    """Write a head and its backbone as one graph into a folder that needs neither embedpipe nor torch.

    The graph goes from decoded pixels or tokens to probabilities. The folder holds ``model.onnx``, ``model.json``
    (classes, preprocessing), ``tokenizer.json`` of texts, a card, and ``predict.py``, which needs onnxruntime, numpy
    and pillow (or tokenizers) and gives the table of `Head.predict`. Before the folder is put in place, the model is
    compared with the head on rows that the head was not fitted on: labels must be the same, but where the two best are
    within 1e-4, and probabilities within 1e-4.

    Parameters
    ----------
    head : Head or path
        A linear head (logreg, ridge, lda, centroid, auto) or exact nearest neighbours, on the vectors of a network.
    to : str or path-like
        A new or empty folder, or that of an exported model, which is replaced.
    store : FeatureStore or path, optional
        The store with the rows to compare on, whose items are read again; by default the one that the head was fitted
        on.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Export
        The folder, sizes of its files, and the comparison.

    Raises
    ------
    UsageError
        If the head cannot be exported, ``to`` is something else, or the items of the store cannot be read.
    HeadError
        If the exported model gives something else than the head, or loses accuracy.
    BackboneError
        If torch cannot write the network as a graph.
    MissingExtraError
        If onnx or OpenVINO is not installed.

    Notes
    -----
    Networks are exported in float32, also if the vectors of the head were computed in another precision.

    Examples
    --------
    >>> exported = embedpipe.export("photos.head", "photos.model")  # doctest: +SKIP
    >>> exported.comparison.different_labels  # doctest: +SKIP
    0
    """
    from embedpipe.exporting.building import build  # needs torch
    from embedpipe.exporting.folder import check_target

    chosen, reload_options = build_options(OPTIONS, options)
    import_extra("onnx", "onnx")
    import_extra("onnxruntime", "onnx")
    if chosen.format == "openvino":
        import_without_telemetry("openvino")
    check_target(to)
    loaded = head if isinstance(head, Head) else load_head(os.fspath(head), trust=reload_options.trust)
    given: dict[str, Any] = {"store": store, "reload_options": reload_options, "show": Progress(progress)}
    return build(loaded, to, chosen, **given)
