"""Common corruptions of photographs at five severities, to measure robustness to shifted test data.

Corruptions and constants are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019: eleven of the fifteen of ImageNet-C, and ``saturate`` of its four held-out
ones. They follow the published code (hendrycks/robustness, ``ImageNet-C/create_c/make_imagenet_c.py``) without OpenCV
and ImageMagick.

The reference takes square images of 224 pixels. The kernels of ``defocus_blur`` and ``motion_blur`` are lengths at that
scale: they are resampled by ``min(h, w) / 224``, so that a large and a small copy of a photograph look alike.
``zoom_blur``, ``fog`` and ``pixelate`` scale with the image. Noise and JPEG blocks have the scale of single pixels, and
become weaker if a large image is reduced later: corrupt images at the input size of the network. ImageNet-C saves its
images as JPEG of quality 85 afterwards; this module does not.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft, ndimage, sparse

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, suggest

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
#: From pixels (h, w, 3) and a severity to levels, which may be fractional and outside 0 to 255.
Corruption = Callable[[Pixels, int, np.random.Generator], npt.NDArray[np.float64 | np.uint8]]

#: Shorter side, in pixels, of the images for which the constants were published.
REFERENCE_SIDE = 224


def corrupt(pixels: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Return a corrupted copy of an image. The same four arguments always give the same result.

    Parameters
    ----------
    pixels : uint8 array (h, w, 3)
        RGB; is not modified.
    name : str
        One of `CORRUPTIONS`.
    severity : int
        1 (slight) to 5 (heavy), as published. For ``saturate``, 1 and 2 reduce saturation and 3 to 5 increase it. The
        severities of ``fog`` are ordered on average only, because its clouds are random.
    seed : int
        Seed of the random numbers, >= 0. Give each image its own seed, or all get the same noise. The severities of one
        seed share their random numbers.

    Returns
    -------
    uint8 array (h, w, 3)
        Fractions of a level are truncated, as in the published data; ``motion_blur`` rounds, as ImageMagick does there.

    Raises
    ------
    UsageError
        If the corruption is unknown, the severity is not 1 to 5, the seed is negative, or the pixels are not a
        non-empty uint8 array (h, w, 3).

    Examples
    --------
    >>> import numpy as np
    >>> grey = np.full((32, 32, 3), 128, np.uint8)
    >>> corrupt(grey, "brightness", severity=1, seed=0)[0, 0].tolist()
    [153, 153, 153]
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"unknown corruption {name!r}{suggest(name, CORRUPTIONS)}")
    if not isinstance(severity, int | np.integer) or not 1 <= severity <= 5:
        raise UsageError(f"severity must be an integer from 1 to 5, got {severity!r}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"{option('seed')} must be an integer >= 0, got {seed!r}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(f"pixels must be a uint8 RGB array (h, w, 3), got {pixels.dtype} of shape {pixels.shape}")
    levels = CORRUPTIONS[name](pixels, int(severity), np.random.default_rng(int(seed)))
    # Add a little, so that rounding errors do not truncate an integer level to the one below.
    corrupted: Pixels = np.clip(levels + 1e-6, 0, 255).astype(np.uint8, order="C")
    return corrupted


def _gaussian_noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return pixels + rng.normal(scale=255 * deviation, size=pixels.shape)


def _shot_noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    photons = (60, 25, 12, 5, 3)[severity - 1]  # photons of a white pixel
    return rng.poisson(pixels * (photons / 255)) * np.float64(255 / photons)


def _impulse_noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]  # of the values; half of them become black, half white
    uniform = rng.random(pixels.shape)
    noisy = np.where(uniform < share, np.uint8(255), pixels)
    noisy[uniform < share / 2] = 0
    return noisy


def _defocus_blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    reach, taps_reach = (8, 1) if radius <= 8 else (radius, 2)
    along = np.arange(-reach, reach + 1)
    disk = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()  # before the rim is softened, as published, which adds 1 % of light at severities 4 and 5
    taps = np.exp(-(np.arange(-taps_reach, taps_reach + 1) ** 2) / (2 * softness**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis, mode="mirror")
    return _filtered(pixels, disk, "reflect")


def _motion_blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    """Blur as ImageMagick: half a Gaussian along a line from each pixel, at a random angle from -45 to 45 degrees."""
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angle = math.radians(rng.uniform(-45, 45))
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (math.sin(angle), math.cos(angle)))
    line = np.zeros((4 * radius + 1, 4 * radius + 1))
    np.add.at(line, (2 * radius + down, 2 * radius + right), weights / weights.sum())
    return _filtered(pixels, line, "edge") + 0.5


def _zoom_blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    """Return the mean of the image and of its centre, enlarged by several factors to its size."""
    # As in the reference: rounding errors make some of these ranges include their end.
    stop, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    factors = np.arange(1, stop, step)
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, -1).astype(np.float64)
    total = np.zeros((width, height * 3))
    for factor in factors:
        columns = (_enlarging(height, factor) @ rows).reshape(pixels.shape).swapaxes(0, 1).reshape(width, -1)
        total += _enlarging(width, factor) @ columns
    total += pixels.swapaxes(0, 1).reshape(width, -1)
    return total.reshape(width, height, 3).swapaxes(0, 1) / (len(factors) + 1)


def _fog(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    density, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    height, width, _ = pixels.shape
    side = max(2, 2 ** math.ceil(math.log2(max(height, width))))
    haze = 255 * density * _plasma(side, decay, rng)[:height, :width, None]
    brightest = float(pixels.max())
    return (pixels + haze) * (brightest / (brightest + 255 * density))


def _brightness(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    return _in_hsv(pixels, value=(0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1])


def _contrast(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    means: Floats = pixels.mean(axis=(0, 1))
    return (pixels - means) * kept + means


def _pixelate(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    image = Image.fromarray(pixels)
    small = image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))), Image.Resampling.BOX)
    return np.array(small.resize(image.size, Image.Resampling.BOX))


def _jpeg_compression(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    payload = io.BytesIO()
    Image.fromarray(pixels).save(payload, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    with Image.open(payload) as image:
        return np.array(image)


def _saturate(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    factor, added = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    return _in_hsv(pixels, factor=factor, added=added)


#: Corruptions by name, in the order of the paper (noise, blur, weather, digital), then the held-out one.
CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": _gaussian_noise,
        "shot_noise": _shot_noise,
        "impulse_noise": _impulse_noise,
        "defocus_blur": _defocus_blur,
        "motion_blur": _motion_blur,
        "zoom_blur": _zoom_blur,
        "fog": _fog,
        "brightness": _brightness,
        "contrast": _contrast,
        "pixelate": _pixelate,
        "jpeg_compression": _jpeg_compression,
        "saturate": _saturate,
    }
)


def _filtered(pixels: Pixels, kernel: Floats, border: Literal["edge", "reflect"]) -> Floats:
    """Correlate with a square kernel of the reference size; ``border`` is a mode of ``numpy.pad``."""
    kernel = _resampled(kernel, min(pixels.shape[:2]) / REFERENCE_SIDE)
    reach = len(kernel) // 2
    (top, bottom), (left, right) = (np.flatnonzero(kernel.any(axis=axis))[[0, -1]] - reach for axis in (1, 0))
    kernel = kernel[reach + top : reach + bottom + 1, reach + left : reach + right + 1]
    padded = np.pad(pixels, ((-top, bottom), (-left, right), (0, 0)), mode=border).transpose(2, 0, 1)
    shape = [fft.next_fast_len(length, real=True) for length in padded.shape[1:]]
    product = fft.rfft2(padded.astype(np.float64, order="C"), shape) * fft.rfft2(kernel[::-1, ::-1], shape)
    filtered: Floats = fft.irfft2(product, shape)[:, bottom - top :, right - left :]
    return filtered[:, : pixels.shape[0], : pixels.shape[1]].transpose(1, 2, 0)


def _resampled(kernel: Floats, scale: float) -> Floats:
    """Return a kernel at another scale: the weight of each cell is spread over the area that it covers then."""
    reach = len(kernel) // 2
    edges = scale * (np.arange(-reach, reach + 2) - 0.5)
    new_reach = math.ceil(edges[-1] - 0.5)
    new_edges = np.arange(-new_reach, new_reach + 2) - 0.5
    overlap = np.minimum(new_edges[1:, None], edges[1:]) - np.maximum(new_edges[:-1, None], edges[:-1])
    shares = np.maximum(overlap, 0) / scale
    resampled: Floats = shares @ kernel @ shares.T
    return resampled


def _enlarging(size: int, factor: float) -> sparse.csr_array:
    """Return the matrix, (size, size), that enlarges the centre of a column of pixels linearly to the same size."""
    kept = math.ceil(size / factor)
    enlarged = round(kept * factor)  # size or size + 1; the last one is cut off
    positions = np.arange(size) * ((kept - 1) / max(1, enlarged - 1))
    lower = np.minimum(positions.astype(int), max(0, kept - 2))
    upper = np.minimum(lower + 1, kept - 1)
    weights = positions - lower
    columns = np.stack([lower, upper], axis=1) + (size - kept) // 2
    values = np.stack([1 - weights, weights], axis=1)
    return sparse.csr_array((values.ravel(), columns.ravel(), np.arange(0, 2 * size + 1, 2)), shape=(size, size))


def _plasma(side: int, decay: float, rng: np.random.Generator) -> Floats:
    """Return periodic clouds in [0, 1] by the diamond-square algorithm: (side, side), ``side`` a power of two."""
    heights = np.zeros((side, side))
    step, roughness = side, 100.0

    def displaced(total: Floats) -> Floats:
        return total / 4 + roughness * rng.uniform(-roughness, roughness, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        heights[half::step, half::step] = displaced(pairs + np.roll(pairs, -1, 1))
        centres = heights[half::step, half::step]
        heights[::step, half::step] = displaced(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        heights[half::step, ::step] = displaced(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, roughness = half, roughness / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _in_hsv(pixels: Pixels, *, factor: float = 1, added: float = 0, value: float = 0) -> Floats:
    """Change saturation to ``factor * saturation + added`` and brightness by ``value``; keep the hue."""
    planes = pixels.transpose(2, 0, 1)
    highest = planes.max(axis=0).astype(np.float64)
    spread = highest - planes.min(axis=0)
    saturation = np.clip(spread / np.maximum(highest, 1) * factor + added, 0, 1)
    # The hue is the distance of each channel below the highest, in units of the spread. Grey counts as red.
    below = np.where(spread > 0, (highest - planes) / np.maximum(spread, 1), np.array([0, 1, 1])[:, None, None])
    changed: Floats = np.minimum(highest + 255 * value, 255) * (1 - saturation * below)
    return changed.transpose(1, 2, 0)
