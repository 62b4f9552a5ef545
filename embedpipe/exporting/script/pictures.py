"""Classify photos with the model in this folder: ``python predict.py PHOTOS --to predictions.csv``.

Written by embedpipe. It needs onnxruntime, numpy and pillow, and gives the table of ``embedpipe predict``: one row for
each photo, with the reason for one that cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from embedpipe._utils.machine.regular_files import read_regular
from embedpipe.decoding.picture import decode_pixels
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.decoding.resizing import to_pixels
from embedpipe.exporting.script.files import files_in, require_items
from embedpipe.exporting.script.output import require_writable
from embedpipe.exporting.script.table import finish, load_settings, predict
from embedpipe.sources.file_types import IMAGE_SUFFIXES


def main() -> int:
    """Predict the photos that the command line names."""
    parser = argparse.ArgumentParser(description="Classify photos with the model in this folder.")
    parser.add_argument("photos", nargs="+", help="photos, or folders of photos")
    parser.add_argument("--to", metavar="FILE.csv", help="the table to write; by default standard output")
    given = parser.parse_args()
    require_writable(given.to)
    settings = load_settings()
    recipe = Preprocessing(**{key: _tuples(value) for key, value in settings["preprocessing"].items()})
    items = [item for source in given.photos for item in files_in(source, IMAGE_SUFFIXES, settings["column"])]
    require_items(items, given.photos, IMAGE_SUFFIXES)

    def prepare(item: dict[str, Any]) -> Any:
        return to_pixels(decode_pixels(read_regular(item["uri"]), recipe), recipe)

    rows = predict(items, prepare, lambda pixels: {"pixels": np.stack(pixels)}, settings)
    return finish(rows, settings, given.to)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
