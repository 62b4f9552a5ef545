"""`decode_image`: odd images become RGB, broken ones raise DecodeError with a reason."""

from __future__ import annotations

import concurrent.futures
import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oddities import BROKEN, GOOD, encode, noisy, oriented, picture, png
from PIL import Image

from embedpipe.decoding import decode_image, payload_hash
from embedpipe.decoding.image import PIXEL_LIMIT
from embedpipe.errors import DecodeError


@pytest.mark.parametrize("name", GOOD)
def test_odd_image_is_decoded(name: str) -> None:
    image = decode_image(GOOD[name]())
    assert image.mode == "RGB"
    assert min(image.size) > 0


@pytest.mark.parametrize("name", BROKEN)
def test_broken_image_is_refused(name: str) -> None:
    with pytest.raises(DecodeError) as raised:
        decode_image(BROKEN[name]())
    assert len(str(raised.value)) > 10 or name == "empty.jpg"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.jpg", "empty"),
        ("truncated-half.jpg", "truncated"),
        ("text.jpg", "text that begins"),
        ("error-page.png", "HTML page"),
        ("lfs-pointer.jpg", "git lfs pull"),
        ("archive.jpg", "zip archive"),
        ("zeros.jpg", "zero bytes"),
        ("bomb.png", "3600000000 pixels"),
        ("not-a-number.tif", "NaN"),
    ],
)
def test_reason_is_described(name: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_image(BROKEN[name]())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_turned_upright(orientation: int) -> None:
    upright = np.asarray(decode_image(oriented(1)))
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright),
    }
    np.testing.assert_array_equal(np.asarray(decode_image(oriented(orientation))), turns[orientation])


def test_tiff_is_rotated_once() -> None:
    plain = np.asarray(decode_image(encode(picture(), "TIFF")))
    turned = np.asarray(decode_image(encode(picture(), "TIFF", tiffinfo={274: 6})))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_invalid_orientation_is_ignored() -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(oriented(77))), np.asarray(decode_image(oriented(1))))


def pixel(payload: object, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    value = decode_image(payload).getpixel(at)
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    # Pillow converts LA to PA without transparency, so the conversion goes through a palette.
    step = {"PA": image.quantize(2), "La": image.convert("LA")}.get(mode, image)
    image = step.convert(mode)
    assert pixel(image) == (255, 255, 255)


def test_half_transparency_becomes_half_white() -> None:
    assert pixel(Image.new("RGBA", (2, 2), (0, 0, 0, 128))) == (127, 127, 127)


def test_transparent_palette_and_colour_key_become_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    assert [pixel(encode(palette, "PNG", transparency=0), (x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 0, 0)]
    key = encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert pixel(key) == (255, 255, 255)


@given(value=st.integers(0, 65535))
def test_16_bit_values_are_scaled_with_rounding(value: int) -> None:
    expected = round(value * 255 / 65535)
    array = np.full((2, 2), value, np.uint16)
    array[0, 1] = 65535  # or the range would be that of the values
    assert pixel(encode(Image.fromarray(array), "PNG")) == (expected,) * 3
    assert pixel(encode(Image.fromarray(array), "TIFF")) == (expected,) * 3
    assert pixel(Image.frombytes("I;16B", (2, 2), array.astype(">u2").tobytes())) == (expected,) * 3
    assert pixel(Image.fromarray(array.astype(np.int32))) == (expected,) * 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100, 255.0], [0, 100, 255]), ([0, 1023, 4095.0], [0, 64, 255])],
    ids=["unit range", "grey levels", "12 bits"],
)
def test_floats_are_scaled(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert [pixel(image, (x, 0))[0] for x in range(3)] == expected


@pytest.mark.parametrize("values", [[0.0, 100.4, 200.0], [-5.0, 0.4, 1.0], [0.0, 1.5, 12.25], [-1, 0, 1]])
def test_floats_without_a_clear_range_are_refused_unless_it_is_given(values: list[float]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    with pytest.raises(DecodeError, match=r"range='LOW:HIGH'"):
        decode_image(image)
    low, high = values[0], values[2]
    expected = np.floor((np.array(values, np.float32).astype(float) - low) * 255 / (high - low) + 0.5)
    assert np.asarray(decode_image(image, range=(low, high)))[0, :, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_floats_are_refused(value: float) -> None:
    with pytest.raises(DecodeError, match="NaN or infinite"):
        decode_image(Image.fromarray(np.full((2, 2), value, np.float32)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "1", "L"])
def test_other_modes_keep_their_colours(mode: str) -> None:
    grey = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    assert np.abs(np.array(pixel(grey)) - 255).max() <= 2


def test_lab_white_becomes_white() -> None:
    assert np.abs(np.array(pixel(Image.new("LAB", (4, 4), (255, 128, 128)))) - 255).max() <= 2


def test_first_frame_is_decoded() -> None:
    first, second = Image.new("RGB", (8, 8), "blue"), Image.new("RGB", (8, 8), "red")
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(first, format, save_all=True, append_images=[second], **options)
        assert pixel(data) == (0, 0, 255), format


def test_image_above_the_limit_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(PIXEL_LIMIT**0.5) + 1
    data = png(side, side, zlib.compress(b""))
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DecodeError, match=str(side * side)):
            decode_image(data)


def test_large_image_below_the_limit_gives_no_warning() -> None:
    # The size is above the warning limit of Pillow. Only the missing data makes decoding fail.
    with pytest.raises(DecodeError, match="truncated or damaged PNG"):
        decode_image(png(10_000, 9_000, b""))


def test_png_with_wrong_checksum_is_decoded() -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(GOOD["wrong-checksum.png"]())), np.asarray(noisy()))


def test_postscript_is_refused() -> None:
    data = encode(picture("L"), "EPS")
    with pytest.raises(DecodeError, match="PostScript"):
        decode_image(data)


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.full((3, 5), 7, np.uint8), "grey"),
        (np.full((3, 5, 3), 7, np.uint8), "rgb"),
        (np.full((3, 5, 4), (7, 7, 7, 255), np.uint8), "rgba"),
        (np.full((6, 10, 3), 7, np.uint8)[::2, ::2], "strided"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_are_decoded(array: np.ndarray, mode: str) -> None:
    image = decode_image(array)
    assert image.size == (5, 3)
    assert image.getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize(
    "payload",
    [
        np.zeros((3, 5)),
        np.zeros((3, 5, 2), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.zeros(3, np.uint8),
        7,
        None,
        "a.jpg",
    ],
    ids=["float", "two channels", "empty", "1-D", "int", "None", "path"],
)
def test_other_payloads_are_refused(payload: object) -> None:
    with pytest.raises(DecodeError, match="must be"):
        decode_image(payload)
    if not isinstance(payload, str):  # a string is a text
        with pytest.raises(DecodeError, match="must be"):
            payload_hash(payload)


def test_pil_image_of_a_truncated_file_is_refused() -> None:
    def lazy() -> Image.Image:
        return Image.open(io.BytesIO(BROKEN["truncated-half.jpg"]()))

    with pytest.raises(DecodeError, match="truncated"):
        decode_image(lazy())
    with pytest.raises(DecodeError, match="truncated"):
        payload_hash(lazy())


def test_image_of_the_caller_is_unchanged() -> None:
    image = Image.open(io.BytesIO(oriented(6)))
    before = image.copy()
    decode_image(image).putpixel((0, 0), (1, 2, 3))
    assert image.size == before.size
    assert image.tobytes() == before.tobytes()
    rgb = picture()
    decode_image(rgb).putpixel((0, 0), (1, 2, 3))
    assert rgb.tobytes() == picture().tobytes()


def test_hash_of_bytes_is_their_sha256() -> None:
    assert payload_hash(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert payload_hash(bytearray(b"abc")) == payload_hash(b"abc") == payload_hash(memoryview(b"abc"))


def test_hash_differs_between_images() -> None:
    palette = picture("P")
    other = palette.copy()
    other.putpalette([0, 0, 0] * 256)
    different = [
        picture(),
        picture("L"),
        palette,
        other,
        Image.new("L", (2, 6)),
        Image.new("L", (6, 2)),
        Image.open(io.BytesIO(oriented(1))),
        Image.open(io.BytesIO(oriented(6))),
    ]
    assert len({payload_hash(image) for image in different}) == len(different)
    assert payload_hash(np.asarray(picture())) == payload_hash(picture())


def _bases() -> list[bytes]:
    image = picture(size=(20, 17))
    formats = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    return [encode(image, format) for format in formats] + [
        encode(image, "JPEG", exif=exif),
        encode(image, "PNG", exif=exif),
        encode(image, "TIFF", compression="tiff_lzw", tiffinfo={274: 8}),
        encode(image, "TIFF", compression="tiff_deflate"),
        encode(image.convert("P"), "PNG", transparency=3),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "GIF", save_all=True, append_images=[image]),
        encode(image, "WEBP", exif=exif, lossless=True),
    ]


BASES = _bases()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_are_decoded_or_refused(data: st.DataObject) -> None:
    base = bytearray(data.draw(st.sampled_from(BASES), label="base"))
    edits = data.draw(
        st.lists(st.tuples(st.integers(0, len(base) - 1), st.binary(min_size=1, max_size=4)), max_size=6), label="edits"
    )
    for place, change in edits:
        base[place : place + len(change)] = change
    cut = data.draw(st.none() | st.integers(0, len(base)), label="cut")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            mode = decode_image(bytes(base[:cut])).mode
        except DecodeError as error:
            mode = "refused: " + str(error)
    assert mode == "RGB" or len(mode) > len("refused: ")


def test_concurrent_threads_decode_without_warnings() -> None:
    files = [make() for make in GOOD.values()] * 4
    alone = [decode_image(data).tobytes() for data in files]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data).tobytes(), files))
    assert together == alone


def test_photos_have_the_pixels_of_pillow(clothing: list[Path]) -> None:
    for path in clothing[:20]:
        with Image.open(path) as image:
            expected = image.convert("RGB")
        assert decode_image(path.read_bytes()).tobytes() == expected.tobytes()
