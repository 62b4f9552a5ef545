"""Corruptions of photographs, against plain renderings of what was published (hendrycks/robustness, ImageNet-C)."""

from __future__ import annotations

import colorsys
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.corruptions import CORRUPTIONS, corrupt

Pixels = npt.NDArray[np.uint8]
SEVERITIES = range(1, 6)
NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
#: These do not use random numbers.
DETERMINISTIC = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "saturate")


def photograph(name: str, side: int) -> Pixels:
    from skimage import data

    image = Image.fromarray(getattr(data, name)())
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def coffee() -> Pixels:
    return photograph("coffee", 224)


@pytest.fixture(scope="module")
def colours() -> Pixels:
    """48 x 48 colours, among them black, white, greys and colours with two equal channels."""
    drawn = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    drawn[:4] = drawn[:4, :, :1]
    drawn[4:8, :, 1] = drawn[4:8, :, 2]
    drawn[8, 0], drawn[8, 1] = 0, 255
    return drawn


def assert_truncated(corrupted: Pixels, levels: npt.NDArray[np.float64], tolerance: float = 1e-4) -> None:
    """Compare pixels with truncated exact levels; either neighbour is accepted within ``tolerance``."""
    levels = np.clip(levels, 0, 255)
    lowest, highest = np.floor(np.maximum(levels - tolerance, 0)), np.floor(np.minimum(levels + tolerance, 255))
    assert ((lowest <= corrupted) & (corrupted <= highest)).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturate_change_hsv_values(colours: Pixels, severity: int) -> None:
    added = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    factor, offset = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    brighter, saturated = np.empty(colours.shape), np.empty(colours.shape)
    for at in np.ndindex(colours.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(colours[at] / 255).tolist())
        brighter[at] = colorsys.hsv_to_rgb(hue, saturation, min(1, value + added))
        saturated[at] = colorsys.hsv_to_rgb(hue, min(1, saturation * factor + offset), value)
    assert_truncated(corrupt(colours, "brightness", severity, 0), brighter * 255)
    assert_truncated(corrupt(colours, "saturate", severity, 0), saturated * 255)


@pytest.mark.parametrize(("severity", "kept"), [(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1), (5, 0.05)])
def test_contrast_moves_values_towards_the_channel_mean(colours: Pixels, severity: int, kept: float) -> None:
    exact = np.empty(colours.shape)
    for channel in range(3):
        values = colours[:, :, channel].tolist()
        mean = math.fsum(map(math.fsum, values)) / colours[:, :, channel].size
        exact[:, :, channel] = [[(value - mean) * kept + mean for value in row] for row in values]
    assert_truncated(corrupt(colours, "contrast", severity, 0), exact)


@pytest.mark.parametrize(
    ("severity", "share", "quality"), [(1, 0.6, 25), (2, 0.5, 18), (3, 0.4, 15), (4, 0.3, 10), (5, 0.25, 7)]
)
def test_pixelate_and_jpeg_equal_pillow(coffee: Pixels, severity: int, share: float, quality: int) -> None:
    image = Image.fromarray(coffee)
    side = int(224 * share)
    expected = image.resize((side, side), Image.Resampling.BOX).resize((224, 224), Image.Resampling.BOX)
    np.testing.assert_array_equal(corrupt(coffee, "pixelate", severity, 0), np.array(expected))
    payload = io.BytesIO()
    image.save(payload, "JPEG", quality=quality)
    np.testing.assert_array_equal(corrupt(coffee, "jpeg_compression", severity, 0), np.array(Image.open(payload)))


@pytest.mark.parametrize(
    ("severity", "radius", "softness"), [(1, 3, 0.1), (2, 4, 0.5), (3, 6, 0.5), (4, 8, 0.5), (5, 10, 0.5)]
)
def test_defocus_blur_equals_a_disk_kernel_with_soft_rim(
    coffee: Pixels, severity: int, radius: int, softness: float
) -> None:
    reach, taps_reach = (8, 1) if radius <= 8 else (radius, 2)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2) / np.count_nonzero(rows**2 + columns**2 <= radius**2)
    bell = [math.exp(-(step**2) / (2 * softness**2)) for step in range(-taps_reach, taps_reach + 1)]
    kernel = ndimage.correlate(disk, np.outer(bell, bell) / sum(bell) ** 2, mode="mirror")
    exact = np.stack([ndimage.correlate(coffee[..., i].astype(float), kernel, mode="mirror") for i in range(3)], axis=2)
    assert_truncated(corrupt(coffee, "defocus_blur", severity, 0), exact)


@pytest.mark.parametrize(
    ("severity", "radius", "deviation"), [(1, 10, 3), (2, 15, 5), (3, 15, 8), (4, 15, 12), (5, 20, 15)]
)
def test_motion_blur_equals_imagemagick(coffee: Pixels, severity: int, radius: int, deviation: int) -> None:
    angle = math.radians(np.random.default_rng(7).uniform(-45, 45))
    weights = [math.exp(-(step**2) / (2 * deviation**2)) for step in range(2 * radius + 1)]
    exact = np.zeros(coffee.shape)
    for step, weight in enumerate(weights):
        down = np.clip(np.arange(224) + math.ceil(step * math.sin(angle) - 0.5), 0, 223)
        right = np.clip(np.arange(224) + math.ceil(step * math.cos(angle) - 0.5), 0, 223)
        exact += weight / sum(weights) * coffee[down[:, None], right]
    assert_truncated(corrupt(coffee, "motion_blur", severity, 7), exact + 0.5)


@pytest.mark.parametrize(
    ("severity", "stop", "step"), [(1, 1.11, 0.01), (2, 1.16, 0.01), (3, 1.21, 0.02), (4, 1.26, 0.02), (5, 1.31, 0.03)]
)
def test_zoom_blur_equals_the_mean_of_enlarged_centres(coffee: Pixels, severity: int, stop: float, step: float) -> None:
    layers = [coffee.astype(float)]
    for factor in np.arange(1, stop, step):
        kept = math.ceil(224 / factor)
        top = (224 - kept) // 2
        enlarged = ndimage.zoom(layers[0][top : top + kept, top : top + kept], (factor, factor, 1), order=1)
        trimmed = (len(enlarged) - 224) // 2
        layers.append(enlarged[trimmed : trimmed + 224, trimmed : trimmed + 224])
    assert_truncated(corrupt(coffee, "zoom_blur", severity, 0), np.mean(layers, axis=0))


@pytest.mark.parametrize(
    ("severity", "density", "decay"), [(1, 1.5, 2), (2, 2, 2), (3, 2.5, 1.7), (4, 2.5, 1.5), (5, 3, 1.4)]
)
def test_fog_equals_the_published_mixture_with_clouds(severity: int, density: float, decay: float) -> None:
    # One point at a time: centres of squares, of their upper edges, of their left edges; then half the step.
    rng = np.random.default_rng(3)
    clouds = np.zeros((64, 64))
    step, roughness = 64, 100.0
    while step >= 2:
        half = step // 2
        for down, right, neighbours in (
            (half, half, [(-half, -half), (-half, half), (half, -half), (half, half)]),
            (0, half, [(-half, 0), (half, 0), (0, -half), (0, half)]),
            (half, 0, [(-half, 0), (half, 0), (0, -half), (0, half)]),
        ):
            for row in range(down, 64, step):
                for column in range(right, 64, step):
                    mean = sum(clouds[(row + y) % 64, (column + x) % 64] for y, x in neighbours) / 4
                    clouds[row, column] = mean + roughness * rng.uniform(-roughness, roughness)
        step, roughness = half, roughness / decay
    clouds = (clouds - clouds.min()) / (clouds.max() - clouds.min())
    pixels = photograph("chelsea", 60)
    brightest = pixels.max() / 255
    exact = (pixels / 255 + density * clouds[:60, :60, None]) * brightest / (brightest + density) * 255
    assert_truncated(corrupt(pixels, "fog", severity, 3), exact)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_strength(severity: int) -> None:
    grey = np.full((224, 224, 3), 128, dtype=np.uint8)
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1] * 255
    gaussian = corrupt(grey, "gaussian_noise", severity, 1)
    # Interquartile range of a normal distribution, and its tails below 0, which are clipped.
    low, high = np.percentile(gaussian, [25, 75])
    assert high - low == pytest.approx(2 * 0.67449 * deviation, rel=0.03, abs=1)
    assert np.mean(gaussian == 0) == pytest.approx(math.erfc((128 - 1) / deviation / math.sqrt(2)) / 2, abs=0.003)

    photons = (60, 25, 12, 5, 3)[severity - 1]
    dark = np.full((224, 224, 3), 51, dtype=np.uint8)
    counts = np.rint(corrupt(dark, "shot_noise", severity, 1) / 255 * photons)
    np.testing.assert_array_equal(corrupt(dark, "shot_noise", severity, 1), np.floor(counts * (255 / photons) + 1e-6))
    expected = photons / 5
    for count in range(3):
        poisson = math.exp(-expected) * expected**count / math.factorial(count)
        assert np.mean(counts == count) == pytest.approx(poisson, abs=0.005)

    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    impulses = corrupt(grey, "impulse_noise", severity, 1)
    assert np.mean(impulses == 0) == pytest.approx(share / 2, abs=0.003)
    assert np.mean(impulses == 255) == pytest.approx(share / 2, abs=0.003)
    assert np.isin(impulses, (0, 128, 255)).all()


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_independent_between_channels_and_pixels(name: str) -> None:
    noise = corrupt(np.full((100, 100, 3), 128, dtype=np.uint8), name, 3, 0).astype(float)
    assert abs(np.corrcoef(noise.reshape(-1, 3).T)[np.triu_indices(3, 1)]).max() < 0.05
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("photo", ["chelsea", "coffee", "astronaut"])
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "saturate"])
@pytest.mark.parametrize("side", [64, 224])
def test_error_grows_with_severity(photo: str, name: str, side: int) -> None:
    pixels = photograph(photo, side)
    seeds = range(20) if name == "fog" else [5]  # its severities 3 and 4 differ in the roughness of random clouds
    errors = [
        np.mean([(corrupt(pixels, name, severity, seed).astype(float) - pixels) ** 2 for seed in seeds])
        for severity in SEVERITIES
    ]
    assert errors[0] > 0
    assert errors == sorted(set(errors))


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_blurs_scale_with_the_image(name: str, severity: int) -> None:
    large = photograph("astronaut", 448)
    small = np.array(Image.fromarray(large).resize((224, 224), Image.Resampling.BOX))
    reduced = np.array(
        Image.fromarray(corrupt(large, name, severity, 2)).resize((224, 224), Image.Resampling.BOX), dtype=float
    )
    blurred = corrupt(small, name, severity, 2).astype(float)
    change = np.sqrt(np.mean((blurred - small) ** 2))
    assert np.sqrt(np.mean((reduced - blurred) ** 2)) < 0.1 * change


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_arguments_give_the_same_pixels(coffee: Pixels, name: str) -> None:
    before = coffee.copy()
    first = corrupt(coffee, name, 3, 11)
    np.testing.assert_array_equal(corrupt(coffee, name, 3, 11), first)
    np.testing.assert_array_equal(coffee, before)
    np.testing.assert_array_equal(corrupt(np.asfortranarray(coffee), name, 3, 11), first)
    assert np.array_equal(corrupt(coffee, name, 3, 12), first) == (name in DETERMINISTIC)
    assert first.flags.c_contiguous
    assert first.flags.writeable


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (8, 8), (3, 200), (200, 3), (225, 131)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_image_size_works(name: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    for severity in SEVERITIES:
        corrupted = corrupt(pixels, name, severity, 0)
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == pixels.shape


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("level", [0, 77, 255])
def test_uniform_image_stays_uniform(severity: int, level: int) -> None:
    uniform = np.full((37, 60, 3), level, dtype=np.uint8)
    for name in ("motion_blur", "zoom_blur", "contrast", "pixelate"):
        np.testing.assert_array_equal(corrupt(uniform, name, severity, 1), uniform, err_msg=name)


@pytest.mark.parametrize("name", [*sorted(set(CORRUPTIONS) - {*NOISE, "saturate"})])
def test_grey_image_stays_grey(coffee: Pixels, name: str) -> None:
    grey = coffee[:, :, 1:2].repeat(3, axis=2)
    corrupted = corrupt(grey, name, 5, 0)
    assert (corrupted[:, :, :1] == corrupted).all()


def test_black_stays_black_in_fog() -> None:
    black = np.zeros((20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(corrupt(black, "fog", 5, 0), black)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gausian_noise"}, "unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'.*impulse_noise"),
        ({"severity": 0}, "severity must be an integer from 1 to 5, got 0"),
        ({"severity": 6}, "got 6"),
        ({"severity": 2.0}, "got 2.0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"pixels": np.zeros((4, 4, 3))}, r"uint8 RGB array .*got float64 of shape \(4, 4, 3\)"),
        ({"pixels": np.zeros((4, 4), np.uint8)}, r"uint8 of shape \(4, 4\)"),
        ({"pixels": np.zeros((4, 4, 4), np.uint8)}, r"shape \(4, 4, 4\)"),
        ({"pixels": np.zeros((0, 4, 3), np.uint8)}, r"shape \(0, 4, 3\)"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "pixels": np.zeros((4, 4, 3), np.uint8),
        "name": "fog",
        "severity": 1,
        "seed": 0,
    } | change
    with pytest.raises(UsageError, match=message):
        corrupt(**arguments)
