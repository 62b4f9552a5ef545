"""The model and the table of an exported script."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
#: Exit code if some items failed.
PARTLY_FAILED = 3
#: Items in one pass of the model, and passes for which items of a kind are prepared at once.
BATCH, PASSES = 16, {"image": 1, "text": 64}
#: Text that spreadsheet programs run as a formula, and text that is a number.
FORMULA, NUMBER = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]."), re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?$")

Item = dict[str, Any]


def load_settings() -> dict[str, Any]:
    """Return the settings of the model."""
    settings: dict[str, Any] = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    return settings


def require_folder(to: str | None) -> None:
    """End the script, before it predicts anything, if the table would lie in a folder that does not exist."""
    if to is not None and not Path(to).absolute().parent.is_dir():
        sys.exit(f"cannot write {to}: the folder {Path(to).absolute().parent} does not exist. Make it, or name another")


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
    model = load_model(str(FOLDER / settings["model"]), settings["format"], threads)

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


def write_rows(rows: Iterable[Item], columns: Sequence[str], to: str | None) -> None:
    """Write the table as CSV to a file, or to standard output."""
    table = [dict(zip(columns, columns, strict=True)), *rows]
    text = "".join(",".join(_cell(row.get(name)) for name in columns) + "\n" for row in table)
    data = text.encode("utf-8", "backslashreplace")  # names of files may hold bytes that are no UTF-8
    if to is None:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, wants no more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    mark = b"" if data.isascii() else codecs.BOM_UTF8  # for spreadsheets
    part = Path(f"{to}.part")
    try:
        part.write_bytes(mark + data)
        part.replace(to)
    except OSError as error:
        part.unlink(missing_ok=True)
        sys.exit(f"cannot write {to}: {error}. Make room, or name another place, and run this again")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if FORMULA.match(text) and not NUMBER.match(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"'


def files_in(source: str, suffixes: Sequence[str], column: str) -> list[Item]:
    """Return the files below a folder, or one file; folders are labels, as for `embedpipe predict`."""
    path = Path(source)
    if not path.is_dir():
        return [{"id": path.name, "uri": str(path.absolute())}]
    files = [name for name in path.rglob("*") if name.suffix.lower() in suffixes and name.is_file()]
    items = [{"id": name.relative_to(path).as_posix(), "uri": str(name.absolute())} for name in files]
    items = [item for item in items if not any(part.startswith(".") for part in item["id"].split("/"))]
    items.sort(key=lambda item: [(part in item["id"].split("/")[:-1], part) for part in item["id"].split("/")])
    tops = {item["id"].split("/")[0].lower() for item in items if "/" in item["id"]}
    depth = 1 if tops and tops <= {"train", "validation", "valid", "val", "dev", "test"} else 0
    for item in items:
        parts = item["id"].split("/")
        if column == "label" and len(parts) > depth + 1:
            item["actual"] = parts[depth]
    return items


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def finish(rows: Sequence[Item], settings: Mapping[str, Any], to: str | None) -> int:
    """Write the table, print how many items were predicted and return the exit code."""
    write_rows(rows, columns_of(settings, rows), to)
    failed = sum("error" in row for row in rows)
    print(f"{len(rows)} items: {len(rows) - failed} predicted, {failed} failed", file=sys.stderr)
    return PARTLY_FAILED if failed else 0
