"""The preprocessing of an image processor of transformers as a recipe, compared with what the processor does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe.decoding import to_pixels
from embedpipe.decoding.recipe import Interpolation, Preprocessing
from embedpipe.errors import WeightsError

#: Width and height of the images on which a recipe is compared: wide, tall, smaller than the network's, and with a
#: crop between two pixels.
_SIZES = ((640, 481), (333, 517), (96, 70), (263, 259))

#: Differences in gray levels: the same pixels with other roundings of float32, and rounding to whole gray levels.
_SAME, _ROUNDED = 0.01, 1.01


#: Returns the input (3, h, w) of a network for an image.
Pixels = Callable[[Image.Image], NDArray[np.float64]]


def find_recipe(
    processor: Any, origin: str, side: int | None = None, pixels: Pixels | None = None
) -> tuple[Preprocessing, tuple[str, ...], bool]:
    """Return the recipe of an image processor, notes for the user, and whether ``side`` has changed its size.

    The processor itself, or ``pixels``, which calls it, is run on a few images: the recipe's pixels are the same, or
    differ by one gray level, which is a note, as embedpipe keeps pixels as whole numbers.

    Parameters
    ----------
    processor
        Of transformers; gives square images of ``side`` from now on, if that is given.
    origin : str
        The origin of the weights, for messages.
    side : int, optional
    pixels : callable, optional

    Raises
    ------
    WeightsError
        If no recipe gives the processor's pixels, or it keeps the shape of each image.
    """
    name = type(processor).__name__
    if patches := getattr(processor, "max_num_patches", None):
        raise WeightsError(
            f"{origin} takes images of any shape in up to {patches} patches (NaFlex, {name}), and a backbone needs one "
            "size: use weights of a fixed size, such as google/siglip2-base-patch16-224 in place of "
            "google/siglip2-base-patch16-naflex, or timm/naflexvit_base_patch16_siglip.v2_webli, which takes squares"
        )
    try:
        resized = side is not None and _resize(processor, side)
        recipe = _declared(processor)
        run = pixels or partial(_pixels, processor)
        difference = max(_difference(run, recipe, size) for size in _SIZES)
    except Exception as error:  # processors raise many types of errors
        raise WeightsError(
            f"the preprocessing of {origin} ({name}) must scale images to one size, and crop and normalise them: "
            f"{type(error).__name__}: {error}"
        ) from error
    if difference <= _SAME:
        return recipe, (), resized
    if difference <= _ROUNDED:
        note = f"pixels differ from those of {name} by up to {difference:.1g} gray levels, as they are whole"
        return recipe, (note,), resized
    raise WeightsError(
        f"the preprocessing of {origin} ({name}) does more than to scale, crop and normalise images: its pixels differ "
        f"from such a recipe by {difference:.3g} gray levels, which is not supported"
    )


def _resize(processor: Any, side: int) -> bool:
    """Let an image processor give square images of another side; return whether it gave others before.

    What it scales images to before a crop grows in proportion, as far as whole pixels allow.
    """
    recipe = _declared(processor)
    if recipe.crop == (side, side):
        return False
    crops = recipe.crop != recipe.resize and getattr(processor, "do_center_crop", None)
    for name in ("size", *(["crop_size"] if crops else [])):
        sizes = _sizes(getattr(processor, name))
        scale = side / recipe.crop[0] if crops else None
        changed = {key: side if scale is None or name == "crop_size" else int(n * scale) for key, n in sizes.items()}
        setattr(processor, name, type(getattr(processor, name))(**changed))
    return True


def _declared(processor: Any) -> Preprocessing:
    """Return the recipe that the settings of a processor say. Raises ValueError for settings that have none."""
    size, crop = _sizes(processor.size), _sizes(getattr(processor, "crop_size", None))
    if not processor.do_resize or not size:
        raise ValueError("do_resize must be true, with a size")
    resize: tuple[int, ...]
    if {"height", "width"} <= size.keys():
        resize = (size["height"], size["width"])
    elif size.keys() == {"shortest_edge"}:
        resize = (size["shortest_edge"],)
    else:
        raise ValueError(f"size must be height and width, or shortest_edge, got {size}")
    final = (crop["height"], crop["width"]) if getattr(processor, "do_center_crop", None) and crop else resize
    fraction = getattr(processor, "crop_pct", None)  # of ConvNeXt
    if fraction and len(resize) == 1:
        (side,) = resize
        resize, final = ((int(side / fraction),) if side < 384 else (side, side)), (side, side)
    if len(final) == 1:
        raise ValueError(f"size {size} without a crop gives images of several sizes")
    factor = 255 * float(processor.rescale_factor if processor.do_rescale else 1)
    mean = _channels(processor.image_mean if processor.do_normalize else 0)
    std = _channels(processor.image_std if processor.do_normalize else 1)
    return Preprocessing(
        resize=resize,
        crop=final,
        interpolation=_interpolation(processor.resample),
        mean=tuple(value / factor for value in mean) if abs(factor - 1) > 1e-6 else mean,
        std=tuple(value / factor for value in std) if abs(factor - 1) > 1e-6 else std,
        crop_rounding="down",
    )


def _sizes(size: Any) -> dict[str, int]:
    if size is None:
        return {}
    values = size if isinstance(size, Mapping) else vars(size)
    return {name: int(value) for name, value in values.items() if value is not None}


def _channels(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),) * 3


def _interpolation(resample: Any) -> Interpolation:
    name: Any = Image.Resampling(2 if resample is None else int(resample)).name.lower()
    return name  # type: ignore[no-any-return]


def _pixels(processor: Any, image: Image.Image) -> NDArray[np.float64]:
    given = processor(images=image, return_tensors="np")["pixel_values"]
    pixels: NDArray[np.float64] = np.asarray(given, np.float64)[0]
    return pixels


def _difference(pixels: Pixels, recipe: Preprocessing, size: tuple[int, int]) -> float:
    """Return the largest difference in gray levels between the pixels of the processor and of the recipe."""
    width, height = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height, width, 3)) // 4
    ramp = np.add.outer(np.arange(height) * 2, np.arange(width))[..., None] % 192
    image = Image.fromarray((noise + ramp).astype(np.uint8))
    theirs = pixels(image)
    ours = normalised(to_pixels(image, recipe), recipe)
    if theirs.shape != ours.shape:
        raise ValueError(f"the processor gives {theirs.shape}, not {ours.shape}")
    levels = np.abs(theirs - ours) * 255 * np.array(recipe.std)[:, None, None]
    return float(levels.max())


def normalised(pixels: NDArray[np.uint8], recipe: Preprocessing) -> NDArray[np.float64]:
    """Return the input (3, h, w) of a network, from pixels (h, w, 3)."""
    values = (pixels.astype(np.float64) / 255 - recipe.mean) / recipe.std
    return values.transpose(2, 0, 1)
