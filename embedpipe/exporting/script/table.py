"""The model and the table of an exported script."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpipe._utils.checksums import file_sha256
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.counting import counted
from embedpipe.exporting.script.files import Item
from embedpipe.exporting.script.output import write_rows

FOLDER = Path(__file__).resolve().parent
#: Files of the folder that a user may change: no prediction depends on them.
OWN = ("predict.py", "README.md")
#: Exit code if some items failed.
PARTLY_FAILED = 3
#: Items in one pass of the model, and passes for which items of a kind are prepared at once.
BATCH, PASSES = 16, {"image": 1, "text": 64}


def load_settings() -> dict[str, Any]:
    """Return the settings of the model. End the script if a file of the folder is missing or was changed."""
    file = FOLDER / "model.json"
    again = "copy the folder again, or export the head again"
    try:
        settings: dict[str, Any] = json.loads(read_regular(file))
        files = {str(name): str(digest) for name, digest in settings["files"].items() if name not in OWN}
        outputs, classes = settings["outputs"], len(settings["classes"] or [0])
        if settings["model"] not in files or (outputs != classes and (outputs, classes) != (1, 2)):
            raise ValueError("its entries do not fit each other")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        sys.exit(f"{file} is missing, or was changed ({type(error).__name__}: {error}): {again}")
    for name, digest in files.items():
        try:
            unchanged = Path(name).name == name and file_sha256(FOLDER / name) == digest
        except OSError:
            unchanged = False
        if not unchanged:
            sys.exit(f"{FOLDER / name} is missing, or was changed: {again}")
    return settings


def load_model(path: str, format: str, threads: int) -> Callable[[dict[str, Any]], NDArray[Any]]:
    """Return a function from the tensors of a batch to outputs (n, n_outputs)."""
    if format == "openvino":
        import openvino

        compiled = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        )
        return lambda tensors: np.asarray(compiled(tensors)[0])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads wait without work
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda tensors: np.asarray(session.run(None, tensors)[0])


def predict(
    items: Sequence[Item],
    prepare: Callable[[Item], Any],
    collate: Callable[[list[Any]], dict[str, Any]],
    settings: Mapping[str, Any],
) -> list[Item]:
    """Return the rows of the table. An item that cannot be prepared has the reason in ``error``."""
    threads = _cores()
    path = str(FOLDER / settings["model"])
    try:
        model = load_model(path, settings["format"], threads)
    except ImportError as error:
        sys.exit(f"{error}: pip install {error.name}")
    except Exception as error:  # the libraries' own errors have no common class
        sys.exit(f"{path} cannot be run ({error}): install a newer {settings['format']} runtime, or export it again")

    def attempt(item: Item) -> Any:
        try:
            return prepare(item)
        except Exception as error:  # one bad item stops no others
            return error

    rows = []
    with ThreadPoolExecutor(threads) as pool:
        step = BATCH * PASSES[settings["modality"]]
        for start in range(0, len(items), step):
            part = items[start : start + step]
            prepared = list(pool.map(attempt, part))
            good = {place: value for place, value in enumerate(prepared) if not isinstance(value, Exception)}
            outputs: dict[int, NDArray[np.float64]] = {}
            for places in batches(good):
                values = model(collate([good[place] for place in places])).astype(np.float64)
                outputs.update(zip(places, values, strict=True))
            for place, item in enumerate(part):
                output, value = outputs.get(place), prepared[place]
                if output is None:
                    rows.append({**item, "error": f"{type(value).__name__}: {value}"})
                elif not np.isfinite(output).all():
                    rows.append({**item, "error": "the outputs of the model have NaN or infinite values"})
                else:
                    rows.append({**item, **row_of(output, settings)})
    return rows


def batches(prepared: Mapping[int, Any]) -> Iterator[list[int]]:
    """Yield the places of items in batches of similar length, as texts are padded to the longest of their batch.

    Items are tokens and token types of texts, or pixels, whose first row is always as long.
    """
    ordered = sorted(prepared, key=lambda place: len(prepared[place][0]))
    yield from (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))


def row_of(output: NDArray[np.float64], settings: Mapping[str, Any]) -> Item:
    """Return the cells of a prediction."""
    name, classes, kind = settings["column"], settings["classes"], settings["output"]
    if settings["task"] == "regression":
        return {name: float(output[0])}
    prefix = "probability" if kind == "probabilities" else "score"
    shown = classes[-len(output) :]  # a single score is that of the second of two classes
    scores = {f"{prefix}_{label}": float(value) for label, value in zip(shown, output, strict=True)}
    if settings["task"] == "multilabel":
        least = 0.5 if kind == "probabilities" else 0.0
        chosen = [str(label) for label, value in zip(classes, output, strict=True) if value > least]
        return {name: settings["separator"].join(chosen), **scores}
    both = output if len(output) > 1 else np.array([0.0, output[0]])
    best = int(both.argmax()) if len(output) > 1 else int(output[0] > 0)
    others = both.copy()
    others[best] = -np.inf
    second = int(others.argmax())
    row = {name: classes[best]}
    if kind == "probabilities":
        row["confidence"] = float(both[best])
    row |= {"second": classes[second], "margin": float(both[best] - both[second]), **scores}
    if settings["reject_above"] is not None:
        score = 1 - float(both[best])
        row |= {"rejected": score > settings["reject_above"], "reject_score": score}
    return row


def columns_of(settings: Mapping[str, Any], rows: Sequence[Item]) -> list[str]:
    """Return the names of the columns, in the order of the table of `embedpipe predict`."""
    example = row_of(np.zeros(settings["outputs"]), settings)
    doubt = [name for name in ("confidence", "second", "margin") if name in example]
    rest = [name for name in example if name not in doubt][1:]
    text = ["text"] if settings["modality"] == "text" else []
    actual = ["actual"] if any(row.get("actual") is not None for row in rows) else []
    return ["id", "uri", settings["column"], *doubt, *text, *rest, *actual, "error"]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def finish(rows: Sequence[Item], settings: Mapping[str, Any], to: str | None) -> int:
    """Write the table, print how many items were predicted and return the exit code."""
    write_rows(rows, columns_of(settings, rows), to)
    failed = sum("error" in row for row in rows)
    print(f"{counted(len(rows), 'item')}: {len(rows) - failed} predicted, {failed} failed", file=sys.stderr)
    return PARTLY_FAILED if failed else 0
