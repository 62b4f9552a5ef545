"""Quantisation of a network to 8-bit integers by NNCF, refused if the vectors move too far.

Method: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018. Three choices decide how far vectors move (benchmarks/RESULTS.md):

- Activations have one range per layer, not per channel. The ranges of channels fit the calibration images only and
  clip other images.
- A range covers all values of the calibration images. NNCF's default is the mean of the images' extremes.
- Depthwise convolutions stay in floating point if the vectors move too far otherwise.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch

from embedpipe._utils.device import cores
from embedpipe._utils.importing import import_without_telemetry
from embedpipe._utils.option_names import option
from embedpipe._utils.options import Precision
from embedpipe.backbones.engines.calibration import Images, crop_photographs
from embedpipe.backbones.engines.engine import Outputs, TorchEngine
from embedpipe.backbones.engines.exporting import quiet
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.errors import BackboneError

#: Numbers of images that set the ranges of the layers, and of other images on which the vectors are compared.
CALIBRATION, CHECKS = 96, 96

#: The largest accepted `movement`: up to this value heads were as accurate as on the exact vectors.
LARGEST_MOVEMENT = 0.25

#: The same for a network from the cache, which is checked on fewer images and therefore with a margin.
FEW_CHECKS, LARGEST_MOVEMENT_OF_FEW = 16, 0.4

#: Types of operations that stay in floating point, tried in this order: from the fastest to the most exact.
_IN_FLOATING_POINT: tuple[tuple[str, ...], ...] = ((), ("GroupConvolution",))


def quantise(model: Any, image: tuple[int, ...]) -> Any:
    """Return a copy of a network whose convolutions and matrix products use 8-bit integers.

    Parameters
    ----------
    model : openvino.Model
        Its input is uint8 (n, h, w, 3).
    image : tuple of int
        The shape of an image, (h, w, 3).

    Returns
    -------
    openvino.Model

    Raises
    ------
    BackboneError
        If the vectors move too far.
    MissingExtraError
        If NNCF is not installed.
    """
    model = model.clone()
    model.reshape([-1, *image])
    fit, check = crop_photographs(image, CALIBRATION, "fit"), crop_photographs(image, CHECKS, "check")
    exact = _run(model, check, "fp32")
    for kept in _IN_FLOATING_POINT:
        quantised = _quantise(model, fit, kept)
        moved = movement(exact, _run(quantised, check, "int8"))
        if moved <= LARGEST_MOVEMENT:
            return quantised
    raise BackboneError(
        f"{option('precision', 'int8')} is not available for this network: its vectors would move by "
        f"{100 * moved:.0f} % of their "
        f"spread, more than the limit of {100 * LARGEST_MOVEMENT:.0f} %. Use bf16"
    )


def is_quantised_form(model: Any, embedder: Embedder, image: tuple[int, ...]) -> bool:
    """Return whether a network from the cache is the quantised form of an embedder, by its vectors."""
    check = crop_photographs(image, FEW_CHECKS, "check")
    exact = TorchEngine(embedder, "fp32", torch.device("cpu"), cores()).run([(torch.from_numpy(check),)])[0]
    try:
        return movement(exact, _run(model, check, "int8")) <= LARGEST_MOVEMENT_OF_FEW
    except (RuntimeError, ValueError):  # it has other layers
        return False


def movement(exact: Outputs, moved: Outputs) -> float:
    """Return how far vectors moved relative to their spread, for the layer that moved most.

    Parameters
    ----------
    exact, moved : list of ndarray
        Vectors of the same images, float32 (n, dim) for each layer.

    Returns
    -------
    float
        The root mean square distance of an item's two vectors, divided by that of the exact vectors from their mean.
    """
    shares = []
    for before, after in zip(exact, moved, strict=True):
        vectors = before.astype(np.float64)
        spread = np.square(vectors - vectors.mean(axis=0)).sum()
        shares.append(np.sqrt(np.square(after - vectors).sum() / max(spread, np.finfo(np.float64).tiny)))
    return float(np.max(shares))


def _run(model: Any, images: Images, precision: Precision) -> Outputs:
    engine = OpenVinoEngine(model, precision, cores(), images.shape[1:])
    return engine.run([(torch.from_numpy(images),)])[0]


def _quantise(model: Any, images: Images, kept: tuple[str, ...]) -> Any:
    nncf = import_without_telemetry("nncf")
    advanced, ranges = nncf.quantization.advanced_parameters, nncf.quantization.range_estimator
    parameters = nncf.AdvancedQuantizationParameters(
        # Halving the range of the weights would prevent overflows on processors without VNNI. Without it, the vectors
        # move too far there, and int8 is refused.
        overflow_fix=advanced.OverflowFix.DISABLE,
        activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
    )
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # NNCF draws progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([images[i : i + 1] for i in range(len(images))]),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=list(kept), validate=False),
            advanced_parameters=parameters,
        )
