"""Common corruptions of photographs at five severities, to measure what a shift of the test data costs.

Kinds and constants are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations", ICLR 2019: eleven of the fifteen of ImageNet-C, and ``saturate`` of its four held-out ones, as their
code has them (hendrycks/robustness, ``ImageNet-C/create_c/make_imagenet_c.py``), without OpenCV and ImageMagick.

The reference takes square images of 224 pixels. The kernels of ``defocus_blur`` and ``motion_blur`` are lengths of that
scale: they are resampled by ``min(h, w) / 224``, so that a large and a small copy of a photograph come out alike.
``zoom_blur``, ``fog`` and ``pixelate`` follow the image's size by themselves. Noise and JPEG's blocks are matters of
single pixels, and so weaker where a large image is reduced later: corrupt what the network sees. ImageNet-C's files
were saved as JPEG of quality 85 afterwards; here nothing follows.
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

from embedpipe.errors import UsageError, nearest

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
#: From pixels (h, w, 3) and a severity to levels, which need not be whole nor within 0 to 255.
Corruption = Callable[[Pixels, int, np.random.Generator], npt.NDArray[np.float64 | np.uint8]]

#: The shorter side, in pixels, of the images that the published constants are for.
REFERENCE_SIDE = 224


def corrupt(pixels: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Return a corrupted copy of an image, the same whenever the four arguments are.

    Parameters
    ----------
    pixels : uint8 array (h, w, 3)
        RGB. Not changed.
    name : str
        One of `CORRUPTIONS`.
    severity : int
        1 (slight) to 5 (heavy), as published. For ``saturate``, 1 and 2 take colour away and 3 to 5 add it; ``fog`` is
        ordered on average, as its clouds are drawn.
    seed : int
        Of all that is drawn, at least 0. Give each image its own, or all get the same noise. Several severities of one
        seed share their draws.

    Returns
    -------
    uint8 array (h, w, 3)
        Fractions of a level are cut off, as in the published data; ``motion_blur`` rounds, as ImageMagick does there.

    Raises
    ------
    UsageError
        If there is no such corruption, the severity is not 1 to 5, the seed is negative, or the pixels are not uint8
        (h, w, 3) or none.
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"no corruption {name!r}{nearest(name, CORRUPTIONS)}: there are {', '.join(CORRUPTIONS)}")
    if not isinstance(severity, int | np.integer) or not 1 <= severity <= 5:
        raise UsageError(f"severity={severity!r} is not a whole number from 1 to 5")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"seed={seed!r} is not a whole number of at least 0")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(f"pixels are {pixels.dtype} of shape {pixels.shape}: give uint8 of shape (h, w, 3), RGB")
    levels = CORRUPTIONS[name](pixels, int(severity), np.random.default_rng(int(seed)))
    # A whole level stays one, whichever way the last bits went.
    corrupted: Pixels = np.clip(levels + 1e-6, 0, 255).astype(np.uint8, order="C")
    return corrupted


def _gaussian_noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return pixels + rng.normal(scale=255 * deviation, size=pixels.shape)


def _shot_noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    photons = (60, 25, 12, 5, 3)[severity - 1]  # of a white pixel
    return rng.poisson(pixels * (photons / 255)) * np.float64(255 / photons)


def _impulse_noise(pixels: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]  # of the values, half of them to black, half to white
    drawn = rng.random(pixels.shape)
    noisy = np.where(drawn < share, np.uint8(255), pixels)
    noisy[drawn < share / 2] = 0
    return noisy


def _defocus_blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    reach, taps_reach = (8, 1) if radius <= 8 else (radius, 2)
    along = np.arange(-reach, reach + 1)
    disk = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()  # before its rim is softened, as published: that adds 1 % of light at severities 4 and 5
    taps = np.exp(-(np.arange(-taps_reach, taps_reach + 1) ** 2) / (2 * softness**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis, mode="mirror")
    return _filtered(pixels, disk, "reflect")


def _motion_blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    """ImageMagick's: half a bell, from each pixel on along a line whose angle is drawn from -45 to 45 degrees."""
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angle = math.radians(rng.uniform(-45, 45))
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (math.sin(angle), math.cos(angle)))
    line = np.zeros((4 * radius + 1, 4 * radius + 1))
    np.add.at(line, (2 * radius + down, 2 * radius + right), weights / weights.sum())
    return _filtered(pixels, line, "edge") + 0.5


def _zoom_blur(pixels: Pixels, severity: int, rng: np.random.Generator) -> Floats:
    """Return the mean of the image and of its middle enlarged to its size, by several factors."""
    # As the reference writes them: rounding lets some of these ranges include their ends.
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


#: By name, in the order of the paper (noise, blur, weather, digital), then the held-out one.
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
    """Correlate with a square kernel made for the reference's size; `border` is a mode of ``numpy.pad``."""
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
    """Return a kernel of another scale: each cell's weight is spread over the area that it then covers."""
    reach = len(kernel) // 2
    edges = scale * (np.arange(-reach, reach + 2) - 0.5)
    new_reach = math.ceil(edges[-1] - 0.5)
    new_edges = np.arange(-new_reach, new_reach + 2) - 0.5
    overlap = np.minimum(new_edges[1:, None], edges[1:]) - np.maximum(new_edges[:-1, None], edges[:-1])
    shares = np.maximum(overlap, 0) / scale
    resampled: Floats = shares @ kernel @ shares.T
    return resampled


def _enlarging(size: int, factor: float) -> sparse.csr_array:
    """Return what takes a column of pixels to its middle, enlarged linearly to the same size: (size, size)."""
    kept = math.ceil(size / factor)
    enlarged = round(kept * factor)  # the size, or one more, which is cut off at the end
    positions = np.arange(size) * ((kept - 1) / max(1, enlarged - 1))
    lower = np.minimum(positions.astype(int), max(0, kept - 2))
    upper = np.minimum(lower + 1, kept - 1)
    weights = positions - lower
    columns = np.stack([lower, upper], axis=1) + (size - kept) // 2
    values = np.stack([1 - weights, weights], axis=1)
    return sparse.csr_array((values.ravel(), columns.ravel(), np.arange(0, 2 * size + 1, 2)), shape=(size, size))


def _plasma(side: int, decay: float, rng: np.random.Generator) -> Floats:
    """Return clouds by diamonds and squares, 0 to 1 and periodic: (side, side), `side` a power of two."""
    heights = np.zeros((side, side))
    step, roughness = side, 100.0

    def around(total: Floats) -> Floats:
        return total / 4 + roughness * rng.uniform(-roughness, roughness, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        heights[half::step, half::step] = around(pairs + np.roll(pairs, -1, 1))
        centres = heights[half::step, half::step]
        heights[::step, half::step] = around(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        heights[half::step, ::step] = around(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, roughness = half, roughness / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _in_hsv(pixels: Pixels, *, factor: float = 1, added: float = 0, value: float = 0) -> Floats:
    """Change saturation to ``factor * saturation + added`` and brightness by `value`, hues as they are."""
    planes = pixels.transpose(2, 0, 1)
    highest = planes.max(axis=0).astype(np.float64)
    spread = highest - planes.min(axis=0)
    saturation = np.clip(spread / np.maximum(highest, 1) * factor + added, 0, 1)
    # A hue is how far each channel lies below the highest, in spreads. Greys have none: the convention is red.
    below = np.where(spread > 0, (highest - planes) / np.maximum(spread, 1), np.array([0, 1, 1])[:, None, None])
    changed: Floats = np.minimum(highest + 255 * value, 255) * (1 - saturation * below)
    return changed.transpose(1, 2, 0)
