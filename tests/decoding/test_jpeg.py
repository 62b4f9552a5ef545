"""Plain JPEGs without Pillow: the same pixels and errors at full size, and reduced decoding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oddities import BROKEN, GOOD, encode, noisy, oriented, picture
from PIL import Image

from embedpipe.backbones import load_backbone
from embedpipe.decoding import Picture, Preprocessing, available_decoders, decode_image, decode_pixels, to_pixels
from embedpipe.decoding.image import PIXEL_LIMIT
from embedpipe.decoding.jpeg import decode_jpeg, read_header
from embedpipe.errors import DecodeError

FULL = Preprocessing()
SCALED = Preprocessing((32,), (28, 28), decode="scaled")

PLAIN = [
    {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    for quality in (30, 95)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0")
    for progressive in (False, True)
] + [{"restart_marker_blocks": 3}, {"keep_rgb": True}, {"optimize": True, "comment": b"a comment"}]


def upright(picture: Picture) -> np.ndarray:
    return picture.upright(picture.pixels)


def assert_same_picture(data: bytes) -> None:
    """Decode with and without Pillow, and expect the same pixels or the same error."""
    expected = decoded_or_refused(data)
    if isinstance(expected, str):
        with pytest.raises(DecodeError) as raised:
            decode_pixels(data, FULL)
        assert str(raised.value) == expected
        return
    decoded = decode_pixels(data, FULL)
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.writeable
    assert decoded.size == expected.shape[1::-1]
    np.testing.assert_array_equal(upright(decoded), expected)


def decoded_or_refused(data: bytes) -> np.ndarray | str:
    try:
        return np.asarray(decode_image(data))
    except DecodeError as error:
        return str(error)


@pytest.mark.parametrize("options", PLAIN, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (16, 17), (61, 47)], ids=str)
def test_plain_jpegs_have_the_pixels_of_pillow(options: dict[str, Any], mode: str, size: tuple[int, int]) -> None:
    data = encode(noisy().resize(size).convert(mode), "JPEG", **options)
    header = read_header(data)
    assert header is not None
    assert (header.width, header.height) == size
    assert decode_jpeg(data, header) is not None
    assert_same_picture(data)


@pytest.mark.parametrize("name", [*GOOD, *BROKEN])
def test_odd_and_broken_files_agree_with_pillow(name: str) -> None:
    assert_same_picture({**GOOD, **BROKEN}[name]())


@pytest.mark.parametrize("orientation", [0, *range(1, 9), 77])
def test_orientations_agree_with_pillow(orientation: int) -> None:
    data = oriented(orientation)
    assert decode_pixels(data, FULL).orientation == (orientation if 1 <= orientation <= 8 else 1)
    assert_same_picture(data)


@pytest.mark.parametrize(("xmp", "orientation"), [(b'tiff:Orientation="6"', 6), (b"tiff:Artist", 1)])
def test_orientation_is_read_from_xmp(xmp: bytes, orientation: int) -> None:
    data = encode(picture(), "JPEG", xmp=b"<x " + xmp + b"/>")
    assert decode_pixels(data, FULL).orientation == orientation
    assert_same_picture(data)


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_four_channel_jpegs_go_to_pillow(mode: str) -> None:
    data = encode(picture("CMYK"), "JPEG")
    if mode == "YCCK":
        data = data.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    assert read_header(data) is None
    assert_same_picture(data)


def test_decompression_bombs_are_refused_before_decoding() -> None:
    side = int(PIXEL_LIMIT**0.5) + 1
    data = bytearray(encode(picture(), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = side.to_bytes(2, "big") * 2
    for recipe in (FULL, SCALED):
        with pytest.raises(DecodeError, match=str(side * side)):
            decode_pixels(bytes(data), recipe)


def _bases() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    image = picture(size=(37, 29))
    return [
        encode(image, "JPEG", exif=exif, comment=b"hello", subsampling=2),
        encode(image, "JPEG", exif=exif, progressive=True),
        encode(image, "JPEG", icc_profile=bytes(300), restart_marker_blocks=2),
        encode(image.convert("L"), "JPEG", xmp=b'<x tiff:Orientation="8"/>'),
    ]


BASES = _bases()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_agree_with_pillow(data: st.DataObject) -> None:
    base = bytearray(data.draw(st.sampled_from(BASES), label="base"))
    places = st.integers(0, len(base) - 1) | st.integers(0, 300)
    edits = data.draw(st.lists(st.tuples(places, st.integers(0, 2), st.binary(max_size=3)), max_size=4), label="edits")
    for place, length, change in edits:
        base[place : place + length] = change
    cut = data.draw(st.none() | st.integers(0, len(base)), label="cut")
    assert_same_picture(bytes(base[:cut]))


def test_photos_decode_exactly_as_pillow_does(clothing: list[Path]) -> None:
    for path in clothing[::4]:
        data = path.read_bytes()
        assert read_header(data) is not None, path
        assert_same_picture(data)


def test_arrays_and_images_in_memory_are_decoded() -> None:
    array = np.asarray(picture())
    for payload in (array, array.copy(), array[:, ::-1], picture(), picture("L"), array[..., 0], picture("RGBA")):
        decoded = decode_pixels(payload, FULL)
        np.testing.assert_array_equal(decoded.pixels, np.asarray(decode_image(payload)))
        assert decoded.pixels.flags.c_contiguous
        assert decoded.pixels.flags.writeable
    with pytest.raises(DecodeError, match="must be"):
        decode_pixels(array.astype(float), FULL)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    orientation=st.sampled_from([1, 3, 6]),
    mode=st.sampled_from(["RGB", "L"]),
    resize=st.sampled_from([(32,), (20, 60), (64,)]),
    fit=st.sampled_from(["squash", "cover", "border"]),
)
def test_scaled_is_at_least_twice_the_resized_size(
    size: tuple[int, int], orientation: int, mode: str, resize: tuple[int, ...], fit: Any
) -> None:
    recipe = dataclasses.replace(SCALED, resize=resize, fit=fit)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(mode, size), "JPEG", exif=exif)
    decoded = decode_pixels(data, recipe)
    assert decoded.size == (size[::-1] if orientation == 6 else size)
    assert decoded.reduction in (1, 2, 4, 8)
    height, width = upright(decoded).shape[:2]
    assert (width, height) == tuple(-(-length // decoded.reduction) for length in decoded.size)
    scaled = recipe.scaled_size(decoded.size)
    if decoded.reduction > 1:
        assert min(width / scaled[0], height / scaled[1]) >= 2
    else:  # no smaller decoding was possible
        assert min(decoded.size[0] / scaled[0], decoded.size[1] / scaled[1]) < 4
        np.testing.assert_array_equal(upright(decoded), np.asarray(decode_image(data)))
    if decoded.reduction < 8:
        assert min(a / b for a, b in zip(decoded.size, scaled, strict=True)) < 4 * decoded.reduction
    assert to_pixels(decoded, recipe).shape == (28, 28, 3)


def smooth(size: tuple[int, int]) -> Image.Image:
    """Return an image whose detail survives reduction."""
    return noisy().resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(960, 800), (967, 803)], ids=str)
def test_scaled_pixels_are_close_to_full_ones(interpolation: Any, orientation: int, size: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(size), "JPEG", exif=exif, quality=95)
    recipe = dataclasses.replace(SCALED, resize=(100,), crop=(90, 90), interpolation=interpolation)
    decoded = decode_pixels(data, recipe)
    assert decoded.reduction == 4
    scaled = to_pixels(decoded, recipe).astype(int)
    full = dataclasses.replace(recipe, decode="full")
    assert np.abs(scaled - to_pixels(decode_pixels(data, full), full)).mean() < 1.5
    if size == (967, 803):  # the last pixels cover the image only in part
        moved = to_pixels(decoded._replace(size=decoded.pixels.shape[1::-1], orientation=1, reduction=1), recipe)
        upright = decoded.upright(moved).astype(int)
        assert np.abs(scaled - upright).mean() > 0.2


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_never_scaled(format: str) -> None:
    data = encode(smooth((480, 400)), format)
    decoded = decode_pixels(data, SCALED)
    assert decoded.reduction == 1
    np.testing.assert_array_equal(decoded.pixels, np.asarray(decode_image(data)))


def test_odd_jpegs_are_never_scaled() -> None:
    data = encode(smooth((480, 400)).convert("CMYK"), "JPEG")
    assert decode_pixels(data, SCALED).pixels.shape == (400, 480, 3)


@pytest.mark.long
def test_scaled_decoding_hardly_moves_vectors(clothing: list[Path]) -> None:
    backbone = load_backbone(device="cpu")
    recipe = backbone.spec.preprocessing
    assert isinstance(recipe, Preprocessing)
    large = []
    for path in clothing[:100:10]:
        image = decode_image(path.read_bytes())
        size = round(1603 / min(image.size) * image.width), round(1603 / min(image.size) * image.height)
        large.append(encode(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90))

    def vectors(decode: Any) -> np.ndarray:
        chosen = dataclasses.replace(recipe, decode=decode)
        pixels = [to_pixels(decode_pixels(data, chosen), chosen) for data in large]
        embedded = backbone.forward(pixels)["embedding"].astype(float)
        return embedded / np.linalg.norm(embedded, axis=1, keepdims=True)

    distance = 1 - (vectors("full") * vectors("scaled")).sum(axis=1)
    assert 1e-7 < np.median(distance) < 1e-3
    assert distance.max() < 3e-3


def test_available_decoders_names_libraries() -> None:
    decoded = available_decoders()
    assert [name.partition(" ")[0] for name in decoded] == ["simplejpeg", "Pillow", "pillow-heif"]
    assert "PNG" in "".join(decoded.values())
