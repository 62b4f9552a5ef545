"""What the benchmarks share: command line, example data, tables, timing, measurements in a process of their own."""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import embedpipe
from embedpipe.backbones import LayerSpec
from embedpipe.decoding import Preprocessing

#: Example data beside the checkout. Every benchmark has an option for another folder.
DATA = Path("../shared/data")
PHOTOS, CLOTHING, SMS = DATA / "photos", DATA / "clothing", DATA / "sms" / "sms.tsv"
#: Folder of the stores that several benchmarks read.
STORES = Path(tempfile.gettempdir()) / "embedpipe-accuracy"
SUFFIXES = {".jpg", ".jpeg"}


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring, with the option ``--json FILE``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file, as JSON")
    return parser


def write_json(options: argparse.Namespace, results: Any) -> None:
    """Write the results to the file of ``--json``; without the option, do nothing."""
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def markdown_table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return rows, the headings first, as a Markdown table; all columns but those in ``left`` are aligned right."""
    rule = ["---" if column in left else "---:" for column in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def replace_table(results: Path, name: str, table: str) -> None:
    """Replace the text between the two marker lines ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a file."""
    first, last = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    before, begin, rest = results.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{results} must have the lines {first} and {last}. Add them where the table belongs")
    results.write_text(f"{before}{first}\n{table}\n{last}{after}", encoding="utf-8")


def points(value: float, low: float, high: float) -> str:
    """Return a difference of shares with its interval, in percentage points."""
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of one call. The result is freed after the clock has stopped."""
    start = time.perf_counter()
    result = work()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def run_self(script: str, *arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a script in a new process and return the JSON of the last line of its output."""
    command = [sys.executable, script, *map(str, arguments)]
    process = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | (environment or {})
    )
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def process_memory(name: str) -> int:
    """Return a value of this process's memory in bytes: VmRSS is resident now, VmHWM its peak. Linux only."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024


def folder_exists(folder: Path, option: str) -> bool:
    """Return whether a folder of data exists; if not, print how to name another one."""
    if not folder.is_dir():
        print(f"left out: no folder {folder}. Name one with {option}")
    return folder.is_dir()


def list_photos(folder: Path, option: str = "--photos") -> list[Path]:
    """Return the JPEG files below a folder in order of path. Exits with a message if it has none."""
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise SystemExit(f"{str(folder)!r} has no JPEG files. Name a folder of JPEG files with {option}")
    return photos


def spread_out(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most ``count`` items, spread evenly over the sequence."""
    return list(items[:: max(1, len(items) // count)][:count])


def centred_cosine(X: npt.NDArray[Any], reference: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of rows, both centred on the mean of ``reference``."""
    centre = reference.mean(axis=0, dtype=np.float64)
    a, b = X - centre, reference - centre
    return np.asarray((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)), np.float64)


def elpv_table() -> pa.Table:
    """Return the elpv solar cells: label where the experts were certain, otherwise null; defect_probability for all."""
    data = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return pa.table(
        {
            "id": [row[0] for row in rows],
            "path": [str(data / row[0]) for row in rows],
            "label": [{0.0: "intact", 1.0: "defective"}.get(float(row[1])) for row in rows],
            "defect_probability": [float(row[1]) for row in rows],
            "cell_type": [row[2] for row in rows],
        }
    )


def elpv_store(stores: Path = STORES) -> embedpipe.FeatureStore:
    """Return the store of the elpv solar cells on the default backbone. The first call embeds them."""
    return embedpipe.embed(elpv_table(), stores / "elpv-sure.features")


def labelled_rows(
    store: embedpipe.FeatureStore, label: str, layer: str | None
) -> tuple[list[str], npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Return ids, vectors and labels of the rows that have a label, in order of id."""
    table = store.to_arrow(["id", label])
    table = table.filter(table[label].is_valid())
    ids = table["id"].to_pylist()
    return ids, store.take(ids, layer=layer), np.array(table[label].to_pylist())


def synthetic_store(path: Path, dim: int, compress: bool = False) -> embedpipe.FeatureStore:
    """Create an empty store of a made-up backbone with one layer, ``features``."""
    spec = embedpipe.BackboneSpec(
        "none", "synthetic", "0" * 64, False, (LayerSpec("features", "avg", dim),), Preprocessing()
    )
    return embedpipe.FeatureStore.create(path, spec, compress=compress)


def write_vectors(
    store: embedpipe.FeatureStore, ids: list[str], X: npt.NDArray[np.float32], columns: dict[str, Any] | None = None
) -> None:
    """Write vectors, float32 (n_rows, dim), and further columns into a synthetic store, in one commit."""
    offsets = pa.array(np.arange(len(X) + 1, dtype=np.int32) * X.shape[1])
    vectors = pa.ListArray.from_arrays(offsets, pa.array(X.reshape(-1)), type=store.schema.field("embedding").type)
    common = {"id": ids, "content_hash": ids, "source_root": ["synthetic"] * len(X)}
    store.write(pa.table({**common, **(columns or {}), "embedding": vectors}))
