"""The script of an exported folder reads and resizes pictures as embedpipe does: the same pixels, the same refusals."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from exported_script import script_of
from format_cases import OTHERS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oddities import encode, oriented
from PIL import Image
from png_cases import PNGS
from tiff_cases import TIFFS

from embedpipe.decoding import Preprocessing, decode_pixels, to_pixels
from embedpipe.errors import DecodeError
from embedpipe.exporting.folder import SCRIPT

CASES = {
    f"{kind}{name}": case
    for kind, cases in (("tiff-", TIFFS), ("png-", PNGS), ("", OTHERS))
    for name, case in cases.items()
}
ALLOWED = {"numpy", "PIL", "onnxruntime", "openvino", "pillow_heif", "tokenizers", "charset_normalizer"}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return script_of("image", tmp_path_factory.mktemp("model"))


def pixels_of(library: Any, data: bytes, recipe: dict[str, Any]) -> Any:
    """Return the pixels, or the name of the error."""
    declared = library.Preprocessing(**recipe)
    try:
        return library.to_pixels(library.decode_pixels(data, declared), declared)
    except Exception as error:
        return type(error).__name__, str(error).split(":")[0]


class _House:
    Preprocessing = Preprocessing
    decode_pixels = staticmethod(decode_pixels)
    to_pixels = staticmethod(to_pixels)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_script_needs_few_libraries_and_no_embedpipe(modality: str, tmp_path: Path) -> None:
    script_of(modality, tmp_path)
    tree = ast.parse((tmp_path / SCRIPT).read_text())
    names = {part.name for node in ast.walk(tree) if isinstance(node, ast.Import) for part in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, *ALLOWED}


@pytest.mark.parametrize("name", CASES)
def test_odd_pictures_have_the_same_pixels(script: ModuleType, name: str) -> None:
    case = CASES[name]
    recipe = {"resize": (24,), "crop": (24, 24), **case.options}
    expected, given = (pixels_of(library, case.data, recipe) for library in (_House, script))
    assert type(given) is type(expected), (given, expected)
    if isinstance(expected, np.ndarray):
        assert np.array_equal(given, expected)
    else:
        assert given == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_scaled_as_they_are_stored(script: ModuleType, orientation: int) -> None:
    recipe = {"resize": (17,), "crop": (16, 16)}
    data = oriented(orientation)
    assert np.array_equal(pixels_of(script, data, recipe), pixels_of(_House, data, recipe))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest", "box"])
@pytest.mark.parametrize("recipe", [{"resize": (20,), "decode": "scaled"}, {"resize": (20, 24), "fit": "border"}])
def test_recipes_have_the_same_pixels(script: ModuleType, recipe: dict[str, Any], interpolation: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (123, 217, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", quality=90)
    recipe = {**recipe, "crop": (20, 24), "interpolation": interpolation}
    assert np.array_equal(pixels_of(script, data, recipe), pixels_of(_House, data, recipe))


@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.sampled_from(["bilinear", "bicubic"]))
@example(90, 3, 60, "bicubic")
def test_kernels_without_torch_give_the_pixels_of_torch(
    script: ModuleType, width: int, height: int, size: int, interpolation: str
) -> None:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    recipe = {"resize": (size,), "crop": (size, size), "interpolation": interpolation}
    data = encode(Image.fromarray(noise), "PNG")
    assert np.array_equal(pixels_of(script, data, recipe), pixels_of(_House, data, recipe))


def test_damaged_file_is_refused_with_the_reason(script: ModuleType) -> None:
    with pytest.raises(DecodeError) as expected:
        decode_pixels(b"not a picture", Preprocessing())
    with pytest.raises(script.DecodeError, match="not an image"):
        script.decode_pixels(b"not a picture", script.Preprocessing())
    assert "not an image" in str(expected.value)
