"""Whether ONNX's own Resize gives the pixels of embedpipe, so that it could be part of an exported graph.

    python benchmarks/resize_in_graph.py --photos ../shared/data/photos --count 100

Each photo is decoded, and its shorter side is scaled to 256 pixels: by embedpipe (torch's kernels for bytes), by the
NumPy code of an exported script, by Pillow, and by ONNX Runtime's Resize with antialias (opset 18) on bytes and on
floats.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import PHOTOS, SUFFIXES, make_parser, markdown_table, write_json
from onnx import TensorProto, helper
from PIL import Image

from embedpipe.decoding import Preprocessing, decode_pixels, to_pixels
from embedpipe.decoding.resizing import _Side
from embedpipe.exporting.script.stand_ins import _by_torch as by_numpy

SIDE = 256


def onnx_resize(kind: int) -> Callable[[np.ndarray[Any, Any], int, int], np.ndarray[Any, Any]]:
    """Return a function that scales pixels by one Resize, of bytes or of floats that are rounded."""
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="cubic", cubic_coeff_a=-0.5, antialias=1,
        coordinate_transformation_mode="half_pixel", exclude_outside=1,
    )  # fmt: skip
    given = [
        helper.make_tensor_value_info("x", kind, [1, 3, None, None]),
        helper.make_tensor_value_info("sizes", TensorProto.INT64, [4]),
    ]
    graph = helper.make_graph([node], "resize", given, [helper.make_tensor_value_info("y", kind, [1, 3, None, None])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    dtype = np.uint8 if kind == TensorProto.UINT8 else np.float32

    def scale(pixels: np.ndarray[Any, Any], width: int, height: int) -> np.ndarray[Any, Any]:
        x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(dtype))
        (y,) = session.run(None, {"x": x, "sizes": np.array([1, 3, height, width])})
        return np.clip(np.rint(y[0].transpose(1, 2, 0)), 0, 255).astype(np.uint8)

    return scale


def main() -> None:
    """Compare each way with embedpipe's pixels."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    files = [path for path in sorted(options.photos.rglob("*")) if path.suffix.lower() in SUFFIXES][: options.count]
    recipe = Preprocessing(resize=(SIDE,), crop=(SIDE, SIDE))
    of_bytes, of_floats = onnx_resize(TensorProto.UINT8), onnx_resize(TensorProto.FLOAT)
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for file in files:
        picture = decode_pixels(file.read_bytes(), recipe)
        width, height = recipe.scaled_size(picture.size)
        picture = picture._replace(orientation=1, profile=None)
        expected = to_pixels(picture, Preprocessing(resize=(SIDE,), crop=(height, width))).astype(int)
        sides = (_Side(height, 0, height), _Side(width, 0, width))
        ways = {
            "NumPy, of the exported script": by_numpy(picture, *sides, "bicubic"),
            "Pillow": np.asarray(Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BICUBIC)),
            "ONNX Resize of bytes": of_bytes(picture.pixels, width, height),
            "ONNX Resize of floats, rounded": of_floats(picture.pixels, width, height),
        }
        for name, pixels in ways.items():
            found.setdefault(name, []).append(np.abs(pixels.astype(int) - expected).ravel())
    rows = [["way", "values that differ", "largest difference", "mean difference"]]
    results = {}
    for name, parts in found.items():
        all_values = np.concatenate(parts)
        results[name] = [float((all_values > 0).mean()), int(all_values.max()), float(all_values.mean())]
        share, largest, mean = results[name]
        rows.append([name, f"{100 * share:.2f} %", str(largest), f"{mean:.4f}"])
    print(f"{len(files)} photos\n\n{markdown_table(rows)}")
    write_json(options, results)


if __name__ == "__main__":
    main()
