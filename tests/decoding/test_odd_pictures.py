"""Pictures of odd kinds have the right pixels and counts, computed from the values that were written."""

from __future__ import annotations

import numpy as np
import pytest
from format_cases import OTHERS
from picture_files import RGB
from png_cases import PNGS
from tiff_cases import TIFFS

from embedpipe.decoding import Preprocessing, decode_image, decode_pixels, to_pixels
from embedpipe.errors import DecodeError

CASES = {
    f"{kind}{name}": case
    for kind, cases in (("tiff-", TIFFS), ("png-", PNGS), ("", OTHERS))
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_odd_picture_has_its_pixels_and_counts(name: str) -> None:
    data, expected, counts, tolerance, options = CASES[name]
    if isinstance(expected, str):
        with pytest.raises(DecodeError, match=expected):
            decode_image(data, **options)
        return
    pixels = np.asarray(decode_image(data, **options)).astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= tolerance
    recipe = Preprocessing(**options)
    picture = decode_pixels(data, recipe)
    assert dict(picture.counts) == dict(counts)
    if picture.profile is None:
        np.testing.assert_array_equal(picture.upright(picture.pixels), pixels)


def test_profile_of_a_photo_is_applied_after_the_resize() -> None:
    data = CASES["jpeg-display-p3"].data
    recipe = Preprocessing((48,), (48, 64))
    pixels = to_pixels(decode_pixels(data, recipe), recipe).astype(int)
    expected = np.asarray(decode_image(data)).astype(int)
    assert np.abs(pixels - expected).max() <= 2
    assert np.abs(pixels - RGB).max() > 20
