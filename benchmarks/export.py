"""Exported models beside their heads: the same labels and probabilities on every held-out row, sizes, and speed.

    python benchmarks/export.py clothing.head elpv.head sms.head --python /path/to/venv/bin/python

Each head is exported and compared on all rows of its store that it was not fitted on. Then `embedpipe predict HEAD`,
`embedpipe predict MODEL` and the folder's own `predict.py` predict the same files in turns; ``--python`` names an
interpreter without torch for the last one. Seconds of processor time are those of the whole process, with its start.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, markdown_table, write_json

import embedpipe
from embedpipe.exporting.comparing import open_rows, split_rows
from embedpipe.sources.opening import read_uri


def write_items(head: embedpipe.Head, folder: Path, count: int) -> list[Path]:
    """Write held-out items: a file each, or one table of texts. Return what is predicted: all of them, and one."""
    store = open_rows(head, None)
    rows, _ = split_rows(head, store)
    chosen = rows.ids[: min(count, rows.held_out or len(rows))]
    uris = dict(zip(store.ids(), store.to_arrow(["uri"])["uri"].to_pylist(), strict=True))
    modality = head.spec.modality
    (folder / "items").mkdir()
    if modality == "image":
        for number, id in enumerate(chosen):
            data = read_uri(uris[id], modality)
            (folder / "items" / f"{number:05d}{Path(id).suffix or '.png'}").write_bytes(data)
        return [folder / "items", next((folder / "items").iterdir())]
    texts = [read_uri(uris[id], modality) for id in chosen]
    for name, part in (("items.csv", texts), ("one.csv", texts[:1])):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([["id", "text"], *([f"{number:05d}", text] for number, text in enumerate(part))])
    return [folder / "items.csv", folder / "one.csv"]


def run(command: Sequence[str | Path]) -> dict[str, float]:
    """Run a command and return its seconds, and its seconds of processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - start, "processor": processor}


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table in the order of their ids."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["id"])


def compare(given: Sequence[dict[str, str]], expected: Sequence[dict[str, str]]) -> tuple[int, float]:
    """Return how many labels are equal, and the largest difference of a probability or score."""
    names = [name for name in expected[0] if name.startswith(("probability_", "score_"))]
    label = list(expected[0])[2]
    assert [row["id"] for row in given] == [row["id"] for row in expected]
    values = [np.array([[float(row[name]) for name in names] for row in rows]) for rows in (given, expected)]
    return sum(a[label] == b[label] for a, b in zip(given, expected, strict=True)), float(
        np.abs(values[0] - values[1]).max()
    )


def measure(path: Path, python: str, count: int, **options: Any) -> dict[str, Any]:
    """Export a head, and compare what is predicted and how long that takes."""
    head = embedpipe.load_head(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        exported = embedpipe.export(head, model, check_rows=count, progress=True, **options)
        items, one = write_items(head, folder, count)
        commands: dict[str, list[str | Path]] = {
            "predict": [sys.executable, "-m", "embedpipe", "predict", path, items, "--to", folder / "predict.csv"],
            "model": [sys.executable, "-m", "embedpipe", "predict", model, items, "--to", folder / "model.csv"],
            "predict.py": [python, model / "predict.py", items, "--to", folder / "predict.py.csv"],
        }
        times = {name: run(command) for name, command in commands.items()}
        expected = read_table(folder / "predict.csv")
        equal, difference = compare(read_table(folder / "predict.py.csv"), expected)
        equal_model, difference_model = compare(read_table(folder / "model.csv"), expected)
        single = min(run([python, model / "predict.py", one])["processor"] for _ in range(3))
        weights = sum(
            size for name, size in exported.files.items() if name.startswith("model.") and name != "model.json"
        )
    return {
        "head": str(path),
        "rows": len(expected),
        "comparison": exported.comparison.words,
        "precision": exported.precision,
        "megabytes": weights / 1e6,
        "equal": equal,
        "difference": difference,
        "equal_model": equal_model,
        "difference_model": difference_model,
        "times": times,
        "one": single,
    }


def row(result: dict[str, Any]) -> list[str]:
    """Return the cells of a result."""
    count = result["rows"]
    speeds = [f"{count / part['seconds']:.1f} ({count / part['processor']:.1f})" for part in result["times"].values()]
    return [
        Path(result["head"]).name,
        f"{count:,}",
        f"{result['equal']:,}",
        f"{result['difference']:.1e}",
        f"{result['megabytes']:.1f}",
        *speeds,
        f"{result['one']:.2f}",
    ]


def main() -> None:
    """Measure each head, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("heads", type=Path, nargs="+", metavar="HEAD", help="folders of heads")
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter of predict.py, such as one without torch"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="most held-out rows")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    results = []
    for head in options.heads:
        results.append(measure(head, options.python, options.rows, precision=options.precision))
        print(results[-1], flush=True)
    headings = ["head", "held-out rows", "labels equal", "largest difference", "MB", "`predict`", "`predict` MODEL"]
    headings += ["`predict.py`", "one item, s of processor"]
    print(markdown_table([headings, *map(row, results)]))
    write_json(options, results)


if __name__ == "__main__":
    main()
