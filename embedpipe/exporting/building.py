"""The steps of `export`: load the backbone, write the graph, compare it, write the folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedpipe._utils.atomic import whole_folder
from embedpipe._utils.messages.counting import counted
from embedpipe._utils.progress import Progress
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.reload import reload_backbone
from embedpipe.exporting.card import card_text
from embedpipe.exporting.comparing import (
    MOST_MEASURED,
    Expected,
    compare,
    expect,
    is_accurate,
    open_rows,
    require_accurate,
    require_enough_rows,
    require_equal,
    require_near,
    split_rows,
)
from embedpipe.exporting.folder import (
    CARD,
    check_target,
    require_tokenizer,
    settings_of,
    write_script,
    write_settings,
    write_tokenizer,
)
from embedpipe.exporting.graph import MODEL, OPSET, write_graph
from embedpipe.exporting.graph_checks import WEIGHTS
from embedpipe.exporting.network import ExportedNetwork, output_kind, require_exportable
from embedpipe.exporting.options import ExportOptions
from embedpipe.exporting.precision import ATTEMPTS, CALIBRATION, OPENVINO_MODEL, to_float16, to_int8, to_openvino
from embedpipe.exporting.result import Comparison, Export
from embedpipe.exporting.script.table import load_model
from embedpipe.heads.head import Head
from embedpipe.store import FeatureStore


def build(
    head: Head,
    to: str | Path,
    options: ExportOptions,
    *,
    store: FeatureStore | str | Path | None,
    reload_options: ReloadOptions,
    show: Progress,
) -> Export:
    """Write the folder of an exported model; see `embedpipe.export`."""
    folder = check_target(to)
    require_exportable(head)
    opened = open_rows(head, store)
    checked, fitted = split_rows(head, opened)
    if options.precision == "int8":
        require_enough_rows(head, checked)
    notes = []
    spec = dataclasses.replace(head.spec, precision="fp32")
    if head.spec.precision != "fp32":
        notes.append(f"the vectors of the head were computed in {head.spec.precision}; the model computes in float32")
    backbone = reload_backbone(spec, reload_options, "cpu", "the head")
    require_tokenizer(backbone)
    measured = min(checked.held_out or len(checked), MOST_MEASURED)
    count = measured if options.precision != "float32" else options.check_rows
    expected = expect(head, backbone, checked, count, show)
    if expected.failed:
        notes.append(f"left out, as not readable or changed: {counted(expected.failed, 'item')} of the store")
    if not expected.held_out:
        notes.append("there are no held-out rows: the model was compared on rows that the head was fitted on")
    example = _example(backbone, expected)
    names = tuple(example)
    with whole_folder(folder) as part:
        show.say("writing the graph")
        write_graph(ExportedNetwork(head, backbone, names), tuple(map(torch.from_numpy, example.values())), names, part)
        settings: dict[str, Any] = {
            "model": MODEL,
            "format": "onnx",
            "precision": options.precision,
            "opset": OPSET,
            **settings_of(head, backbone, names),
        }
        comparison = compare(head, expected, _model(part, settings), show)
        require_equal(comparison, expected.outputs, output_kind(head))
        if options.precision != "float32":
            calibration = (
                expect(head, backbone, fitted, CALIBRATION, show).batches if _needs_photos(head, options) else []
            )
            comparison = _convert(head, expected, part, options, calibration, settings, show)
        if options.format == "openvino":
            to_openvino(part, half=options.precision == "float16")
            settings |= {"format": "openvino", "model": OPENVINO_MODEL}
            comparison = _compare_again(head, expected, part, options, settings, show)
        write_tokenizer(backbone, part)
        write_script(head.spec.modality, part)
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        (part / CARD).write_text(card_text(head, settings, comparison, sizes), encoding="utf-8")
        write_settings({**settings, "compared": dataclasses.asdict(comparison)}, part)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    show.say_all(notes)
    return Export(folder, options.format, options.precision, files, comparison, tuple(notes))


def _needs_photos(head: Head, options: ExportOptions) -> bool:
    return options.precision == "int8" and head.spec.modality == "image"


def _convert(
    head: Head,
    expected: Expected,
    folder: Path,
    options: ExportOptions,
    calibration: list[dict[str, Any]],
    settings: dict[str, Any],
    show: Progress,
) -> Comparison:
    """Convert the graph in a folder to another precision, and measure the accuracy that it costs."""
    if options.precision == "float16":
        if options.format == "onnx":  # OpenVINO compresses weights itself
            to_float16(folder / MODEL)
            (folder / WEIGHTS).unlink(missing_ok=True)
        return _compare_again(head, expected, folder, options, settings, show)
    exact = folder / f"exact-{MODEL}"
    (folder / MODEL).rename(exact)
    try:
        for attempt in ATTEMPTS if head.spec.modality == "image" else ATTEMPTS[:1]:
            show.say(f"converting to int8 ({attempt} layers)")
            to_int8(exact, folder / MODEL, head.spec.modality, calibration, attempt)
            comparison = compare(head, expected, _model(folder, settings), show, exact=False)
            if is_accurate(comparison, options.precision):
                break
        require_accurate(comparison, options.precision)
        return comparison
    finally:
        exact.unlink()
        (folder / WEIGHTS).unlink(missing_ok=True)


def _compare_again(
    head: Head, expected: Expected, folder: Path, options: ExportOptions, settings: dict[str, Any], show: Progress
) -> Comparison:
    exact = options.precision == "float32"
    comparison = compare(head, expected, _model(folder, settings), show, exact=exact)
    if exact:
        require_equal(comparison, expected.outputs, output_kind(head))
    elif head.task == "regression":
        require_near(comparison, expected.outputs, options.precision)
    else:
        require_accurate(comparison, options.precision)
    return comparison


def _model(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    return load_model(str(folder / settings["model"]), settings["format"], torch.get_num_threads())


def _example(backbone: Backbone, expected: Expected) -> dict[str, np.ndarray[Any, Any]]:
    """Return a batch of two items, as torch takes sizes of one for fixed ones."""
    batch = max(expected.batches, key=lambda tensors: len(next(iter(tensors.values()))))
    return {name: np.concatenate([values, values])[:2].copy() for name, values in batch.items()}
