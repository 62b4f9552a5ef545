"""Recipes give the pixels of the transforms of torchvision and timm, within a few gray levels of Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oddities import oriented, picture
from PIL import Image

from embedpipe.decoding import Picture, Preprocessing, decode_image, decode_pixels, resizing, to_pixels
from embedpipe.errors import UsageError

MEAN = (0.485, 0.456, 0.406)
Reference = Callable[[Image.Image], np.ndarray]


def torchvision_reference(recipe: Preprocessing) -> Reference:
    from torchvision.transforms import InterpolationMode, functional

    mode = InterpolationMode(recipe.interpolation)

    def transform(image: Image.Image) -> np.ndarray:
        image = functional.resize(image, list(recipe.resize), interpolation=mode)
        return np.asarray(functional.center_crop(image, list(recipe.crop)))

    return transform


def timm_reference(size: tuple[int, int], mode: str, share: float) -> tuple[Preprocessing, Reference]:
    from timm.data import create_transform, resolve_data_config

    given = {"input_size": (3, *size), "crop_mode": mode, "crop_pct": share, "interpolation": "bicubic", "mean": MEAN}
    config = resolve_data_config(given)
    transform = create_transform(**config, is_training=False, normalize=False)
    scaled = tuple(math.floor(x / share) for x in size)
    square = mode == "center" and scaled[0] == scaled[1]
    fit: Any = {"center": "cover"}.get(mode, mode)
    recipe = Preprocessing(scaled[:1] if square else scaled, size, mean=MEAN, fit="squash" if square else fit)
    return recipe, lambda image: transform(image).permute(1, 2, 0).numpy()


TORCHVISION = [
    Preprocessing((256,), (224, 224), "bilinear"),
    Preprocessing((232,), (224, 224), "bicubic"),
    Preprocessing((342,), (299, 299), "bilinear"),
    Preprocessing((224,), (299, 299), "lanczos"),
    Preprocessing((300, 200), (224, 224), "bilinear"),
]
TIMM = [
    ((224, 224), "center", 0.875),
    ((260, 260), "center", 0.89),
    ((224, 320), "center", 0.9),
    ((224, 224), "squash", 0.9),
    ((224, 320), "squash", 1.0),
    ((224, 224), "border", 1.0),
    ((224, 320), "border", 0.9),
    ((384, 224), "border", 1.0),
]


def assert_same_pixels(image: Image.Image, recipe: Preprocessing, reference: Reference) -> None:
    """Compare pixels with those of the resize of Pillow: torch has 16-bit weights, Pillow 32-bit ones."""
    pixels = to_pixels(image, recipe)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    difference = np.abs(pixels.astype(int) - reference(image))
    if recipe.interpolation not in ("bilinear", "bicubic"):
        assert difference.max() == 0
    elif goes_across_first(image, recipe):
        assert difference.max() <= 2
        # In small or enlarged images, many values may be rounded differently by chance.
        if min(pixels.size, 3 * image.width * image.height) >= 3_000:
            assert difference.mean() < (0.02 if pixels.size > 50_000 else 0.1)
    else:
        assert difference.mean() < 0.4


def goes_across_first(image: Image.Image, recipe: Preprocessing) -> bool:
    """Return whether Pillow shortens the rows first, as torch does. It may begin with the columns of a tall image."""
    width, height = recipe.scaled_size(image.size)
    filter = Image.Resampling[recipe.interpolation.upper()]
    across = image.resize((width, image.height), filter).resize((width, height), filter)
    return across.tobytes() == image.resize((width, height), filter).tobytes()


@pytest.mark.parametrize("recipe", TORCHVISION, ids=lambda r: f"{r.resize}-{r.crop}-{r.interpolation}")
def test_photos_agree_with_torchvision(recipe: Preprocessing, clothing: list[Path]) -> None:
    reference = torchvision_reference(recipe)
    for path in clothing[::5]:
        assert_same_pixels(decode_image(path.read_bytes()), recipe, reference)


@pytest.mark.parametrize("case", TIMM, ids=str)
def test_photos_agree_with_timm(case: tuple[tuple[int, int], str, float], clothing: list[Path]) -> None:
    recipe, reference = timm_reference(*case)
    for path in clothing[::5]:
        assert_same_pixels(decode_image(path.read_bytes()), recipe, reference)


def test_torchvision_preset_agrees_on_photos(clothing: list[Path]) -> None:
    from torchvision.models import Inception_V3_Weights

    preset = Inception_V3_Weights.DEFAULT.transforms()
    recipe = Preprocessing((342,), (299, 299), "bilinear", tuple(preset.mean), tuple(preset.std))
    mean, std = np.array(recipe.mean), np.array(recipe.std)
    for path in clothing:
        with Image.open(path) as image:
            theirs = preset(image.convert("RGB")).permute(1, 2, 0).numpy()
        ours = to_pixels(decode_image(path.read_bytes()), recipe)
        difference = np.abs((theirs * std + mean) * 255 - ours)
        assert difference.max() < 3.01
        assert difference.mean() < 0.4


SIZES = st.tuples(st.integers(1, 200), st.integers(1, 200))


@settings(max_examples=60, deadline=None)
@given(size=SIZES, resize=st.integers(1, 80), crop=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_any_size_agrees_with_torchvision(size: tuple[int, int], resize: int, crop: tuple[int, int]) -> None:
    recipe = Preprocessing((resize,), crop, "bilinear")
    width, height = size
    if resize * max(width, height) / min(width, height) * resize < 32 * crop[0] * crop[1]:
        assert_same_pixels(picture(size=size), recipe, torchvision_reference(recipe))
    assert to_pixels(picture(size=size), recipe).shape == (*crop, 3)


@settings(max_examples=60, deadline=None)
@given(
    size=SIZES,
    mode=st.sampled_from(["center", "border", "squash"]),
    target=st.tuples(st.integers(8, 64), st.integers(8, 64)),
)
def test_any_size_agrees_with_timm(size: tuple[int, int], mode: str, target: tuple[int, int]) -> None:
    recipe, reference = timm_reference(target, mode, 0.9)
    ratio = max(size) / min(size)
    if ratio < 4:  # the border mode of timm scales thinner images to zero size and fails
        assert_same_pixels(picture(size=size), recipe, reference)
    assert to_pixels(picture(size=size), recipe).shape == (*target, 3)


@settings(max_examples=60, deadline=None)
@given(
    size=SIZES,
    resize=st.one_of(st.tuples(st.integers(1, 120)), st.tuples(st.integers(1, 120), st.integers(1, 120))),
    crop=st.tuples(st.integers(2, 90), st.integers(2, 90)),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_any_size_equals_torchvision_on_tensors(
    size: tuple[int, int], resize: tuple[int, ...], crop: tuple[int, int], interpolation: Any
) -> None:
    from torchvision.transforms.v2 import InterpolationMode, functional

    recipe = Preprocessing(resize, crop, interpolation)
    width, height = recipe.scaled_size(size)
    if width * height > 32 * crop[0] * crop[1]:
        return
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    theirs = functional.resize(tensor, [height, width], InterpolationMode(interpolation), antialias=True)
    theirs = functional.center_crop(theirs, list(crop))[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(to_pixels(Picture(pixels, size), recipe), theirs)


def test_pixels_do_not_share_memory_with_the_input() -> None:
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    recipe = Preprocessing((64,), (64, 64))
    pixels = to_pixels(decode_pixels(array, recipe), recipe)
    np.testing.assert_array_equal(pixels, array)
    assert not np.shares_memory(pixels, array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
@pytest.mark.parametrize("crop", [(24, 20), (41, 90)], ids=["crop", "pad"])
def test_rotating_the_crop_equals_rotating_the_image(
    orientation: int, interpolation: Any, crop: tuple[int, int]
) -> None:
    recipe = Preprocessing((32,), crop, interpolation)
    data = oriented(orientation)
    upright = to_pixels(decode_image(data), recipe).astype(int)
    assert np.abs(upright - to_pixels(decode_pixels(data, recipe), recipe)).max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_scaling_only_the_crop_is_close(
    interpolation: Any, clothing: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Preprocessing((256,), (224, 224), interpolation)
    images = [decode_image(path.read_bytes()) for path in clothing[::10]]
    whole = np.stack([to_pixels(image, chosen) for image in images]).astype(int)
    monkeypatch.setattr(resizing, "_LARGEST_SCALED", 0)
    part = np.stack([to_pixels(image, chosen) for image in images]).astype(int)
    difference = np.abs(whole - part)
    assert difference.mean() < 0.03
    assert (difference > 1).mean() < 1e-3


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 60_000)])
def test_very_thin_images_are_cheap(size: tuple[int, int]) -> None:
    import tracemalloc

    image = picture(size=size)
    tracemalloc.start()
    pixels = to_pixels(image, Preprocessing())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (224, 224, 3)
    assert peak < 10e6


def test_thin_image_equals_the_middle_of_the_scaled_image() -> None:
    image = picture(size=(10, 900))
    chosen = Preprocessing((64,), (56, 56), "bilinear")
    whole = torchvision_reference(chosen)(image).astype(int)
    assert np.abs(whole - to_pixels(image, chosen)).max() <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": ()}, "resize"),
        ({"resize": (0,)}, "sizes >= 1"),
        ({"resize": (1, 2, 3)}, "resize"),
        ({"crop": (224,)}, "crop"),
        ({"interpolation": "bicubik"}, "did you mean 'bicubic'"),
        ({"fit": "boarder"}, "did you mean 'border'"),
        ({"decode": "scale"}, "did you mean 'scaled'"),
    ],
)
def test_invalid_recipes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocessing(**fields)
