"""A network in 8-bit integers by NNCF's post-training quantisation, as far as its vectors stay where they were.

Method: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018. Three things were found to decide how far vectors move (benchmarks/RESULTS.md):

- Activations have one range a layer, not one a channel: ranges of channels are those of the calibration pictures, and
  others are cut off.
- A range holds every value that was seen; NNCF's own choice is the mean of the pictures' extremes.
- Depthwise convolutions stay in floating point where their rounding shows.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch

from embedpipe._utils.device import cores
from embedpipe._utils.importing import import_without_telemetry
from embedpipe._utils.precision import Precision
from embedpipe.backbones.engines.calibration import Pictures, crop_photographs
from embedpipe.backbones.engines.engine import Outputs, TorchEngine
from embedpipe.backbones.engines.exporting import quiet
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.errors import BackboneError

#: Pictures that set the ranges of the layers, and other ones on which the vectors are compared.
CALIBRATION, CHECKS = 96, 96

#: How far vectors may move, see `movement`: up to there heads were as good as on the exact vectors.
FARTHEST = 0.25

#: The same when a network that was kept is read again: on fewer pictures, so with some room.
FEW_CHECKS, FARTHEST_OF_FEW = 16, 0.4

#: Kinds of operations that stay in floating point, tried one after the other: each is slower and more exact.
_KEPT: tuple[tuple[str, ...], ...] = ((), ("GroupConvolution",))


def quantise(model: Any, image: tuple[int, ...]) -> Any:
    """Return a network whose convolutions and matrix products are of 8-bit integers.

    Parameters
    ----------
    model : openvino.Model
        Takes uint8 (n, h, w, 3).
    image : tuple of int
        The shape of an image, (h, w, 3).

    Returns
    -------
    openvino.Model

    Raises
    ------
    BackboneError
        If the vectors would move too far.
    MissingExtraError
        If NNCF is not installed.
    """
    model = model.clone()
    model.reshape([-1, *image])
    fit, check = crop_photographs(image, CALIBRATION, "fit"), crop_photographs(image, CHECKS, "check")
    exact = _run(model, check, "fp32")
    for kept in _KEPT:
        quantised = _quantise(model, fit, kept)
        moved = movement(exact, _run(quantised, check, "int8"))
        if moved <= FARTHEST:
            return quantised
    raise BackboneError(
        f"int8 is not offered for this network: its vectors would move by {100 * moved:.0f} % of what tells pictures "
        f"apart, and {100 * FARTHEST:.0f} % is the limit; take bf16"
    )


def is_quantised_form(model: Any, embedder: Embedder, image: tuple[int, ...]) -> bool:
    """Say whether a quantised network that was kept is still that of an embedder, by its vectors."""
    check = crop_photographs(image, FEW_CHECKS, "check")
    exact = TorchEngine(embedder, "fp32", torch.device("cpu"), cores()).run([(torch.from_numpy(check),)])[0]
    try:
        return movement(exact, _run(model, check, "int8")) <= FARTHEST_OF_FEW
    except (RuntimeError, ValueError):  # other layers
        return False


def movement(exact: Outputs, moved: Outputs) -> float:
    """Return how far vectors have moved, as a share of what tells pictures apart; of the layer that moved most.

    Parameters
    ----------
    exact, moved : list of ndarray
        float32 (n, dim) of each layer, of the same pictures.

    Returns
    -------
    float
        The root mean square distance of an item's two vectors, relative to that of the exact ones from their mean.
    """
    shares = []
    for before, after in zip(exact, moved, strict=True):
        vectors = before.astype(np.float64)
        spread = np.square(vectors - vectors.mean(axis=0)).sum()
        shares.append(np.sqrt(np.square(after - vectors).sum() / max(spread, np.finfo(np.float64).tiny)))
    return float(np.max(shares))


def _run(model: Any, pictures: Pictures, precision: Precision) -> Outputs:
    engine = OpenVinoEngine(model, precision, cores(), pictures.shape[1:])
    return engine.run([(torch.from_numpy(pictures),)])[0]


def _quantise(model: Any, pictures: Pictures, kept: tuple[str, ...]) -> Any:
    nncf = import_without_telemetry("nncf")
    advanced, ranges = nncf.quantization.advanced_parameters, nncf.quantization.range_estimator
    parameters = nncf.AdvancedQuantizationParameters(
        # Half the range of the weights would keep processors without VNNI from overflowing; on those, the vectors move
        # too far, and int8 is refused.
        overflow_fix=advanced.OverflowFix.DISABLE,
        activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
    )
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([pictures[at : at + 1] for at in range(len(pictures))]),
            subset_size=len(pictures),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=list(kept), validate=False),
            advanced_parameters=parameters,
        )
