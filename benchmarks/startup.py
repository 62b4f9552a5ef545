"""How many processor seconds does each command take before it does its work? Linux and macOS.

    python benchmarks/startup.py [--trees BEFORE AFTER] [--rows 1000000] [--files 1000000] [--repeats 5] [--json FILE]

Each command runs in a process of its own, `--repeats` times in turns with the other trees. Its processor time is what
the system counts for the process: user and system time of all of its threads. The table has the median. A tree is a
checkout of embedpipe, by default this one; each gets stores of its own, as formats may differ.

The store of many rows holds `--rows` rows, of which 2,000 are photos of the source; the others are made up. Photos are
small pictures of noise, so that little time goes into the photos themselves. With `--files`, a folder of that many
empty files is listed, and a table of a tenth as many rows with labels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from common import make_parser, markdown_table, write_json
from PIL import Image

#: Photos of the source.
PHOTOS = 2000
#: A small network with random weights for the store of many rows: 96 values a row.
NETWORK = ("--backbone", "timm/test_resnet", "--weights", "none")
#: Made-up rows that are written at a time.
PART = 100_000
#: The command with a listing in place of its command line.
LIST = """
import runpy, sys, types
from embedpipe.sources import open_source
sys.modules["embedpipe.cli"] = types.SimpleNamespace(main=lambda: print(len(open_source(sys.argv[1]))))
runpy.run_module("embedpipe", run_name="__main__")
"""
MESSAGES = "id,text,label\n" + "".join(
    f"{i},message number {i} of many,{'ham' if i % 3 else 'spam'}\n" for i in range(60)
)


class Command(NamedTuple):
    """A command: its name in the table, arguments with {places}, exit code, what is deleted before each run."""

    name: str
    arguments: tuple[str, ...]
    code: int = 0
    fresh: tuple[str, ...] = ()
    script: str | None = None


def commands(files: int) -> list[Command]:
    """Return the commands to measure."""
    first = ("new.features", "cache")
    listed = [
        Command(f"list a folder of {files:,} files", ("{shared}/files",), script=LIST),
        Command(f"list a table of {files // 10:,} labelled rows", ("{shared}/rows.csv",), script=LIST),
        Command("the same as JSON lines", ("{shared}/rows.jsonl",), script=LIST),
    ]
    return [
        Command("--help", ("--help",)),
        Command("embed --help", ("embed", "--help")),
        Command("info", ("info", "photos.features")),
        Command("embed, nothing new", ("embed", "{shared}/photos", "--to", "photos.features")),
        Command("embed, nothing new, many rows", ("embed", "{shared}/photos", "--to", "many.features", *NETWORK)),
        Command("embed texts, nothing new", ("embed", "messages.csv", "--text", "text", "--to", "messages.features")),
        Command("embed, no such source", ("embed", "{shared}/photoss", "--to", "photos.features"), 2),
        Command("embed the first 10 photos", ("embed", "{shared}/10", "--to", "new.features"), fresh=first),
        Command("embed the first 17 photos", ("embed", "{shared}/17", "--to", "new.features"), fresh=first),
        Command("search by id", ("search", "photos.features", "a/0000.jpg")),
        Command("search by file", ("search", "photos.features", "{shared}/1/a/new.jpg")),
        Command("search by file, many rows", ("search", "many.features", "{shared}/1/a/new.jpg")),
        Command("search photos by words", ("search", "photos.features", "a red boat"), 2),
        Command("predict one photo", ("predict", "photos.head", "{shared}/1", "--to", "predicted.csv")),
        *(listed if files else ()),
    ]


def write_photos(folder: Path, count: int) -> None:
    """Write small pictures of noise in two classes."""
    random = np.random.default_rng(count)
    for i in range(count):
        path = folder / "ab"[i % 2] / ("new.jpg" if count == 1 else f"{i:04d}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(path)


def write_shared(folder: Path, files: int) -> None:
    """Write what all trees read."""
    for name, count in (("photos", PHOTOS), ("1", 1), ("10", 10), ("17", 17)):
        write_photos(folder / name, count)
    for start in range(0, files, 1000):
        subfolder = folder / "files" / f"class-{start // 1000:05d}"
        subfolder.mkdir(parents=True)
        for row in range(start, min(start + 1000, files)):
            os.close(os.open(subfolder / f"{row:08d}.jpg", os.O_CREAT | os.O_WRONLY))
    if files:
        rows = [(f"{row:08d}.jpg", f"class {row % 7}", row % 5) for row in range(files // 10)]
        csv = "".join(f"{name},{label},{number}\n" for name, label, number in rows)
        (folder / "rows.csv").write_text(f"path,label,number\n{csv}")
        lines = (json.dumps({"path": name, "label": label, "number": number}) for name, label, number in rows)
        (folder / "rows.jsonl").write_text("\n".join(lines))


def prepare(rows: int, shared: Path) -> None:
    """Make stores and a head in the working folder, with the embedpipe that is imported."""
    import embedpipe

    photos = str(shared / "photos")
    store = embedpipe.embed(photos, "photos.features", progress=False)
    embedpipe.fit(store, "logreg", to="photos.head", progress=False)
    many = embedpipe.embed(photos, "many.features", backbone="timm/test_resnet", weights="none", progress=False)
    dim = many.spec.layers[0].dim
    random = np.random.default_rng(0)
    for start in range(PHOTOS, rows, PART):
        count = min(PART, rows - start)
        ids = [f"row-{row:08d}" for row in range(start, start + count)]
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * dim)
        values = pa.array(random.standard_normal(count * dim, np.float32))
        vectors = pa.ListArray.from_arrays(offsets, values, type=many.schema.field("embedding").type)
        columns = {"id": ids, "uri": ids, "content_hash": ids, "source_root": ["made up"] * count}
        many.write(pa.table({**columns, "embedding": vectors}))
    Path("messages.csv").write_text(MESSAGES)
    embedpipe.embed("messages.csv", "messages.features", text="text", progress=False)


def run(command: Command, tree: Path, folder: Path, shared: Path) -> tuple[float, float]:
    """Run a command once; return its processor time and wall time in seconds."""
    for name in command.fresh:
        subprocess.run(["rm", "-rf", str(folder / name)], check=True)
    arguments = [argument.replace("{shared}", str(shared)) for argument in command.arguments]
    start_of = ["-c", command.script] if command.script else ["-m", "embedpipe"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *start_of, *arguments],
        cwd=folder,
        env=environment(tree, folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    message = process.stderr.read().decode() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != command.code:
        raise SystemExit(f"{command.name} in {tree} ended with code {process.returncode}:\n{message}")
    return usage.ru_utime + usage.ru_stime, wall


def environment(tree: Path, folder: Path) -> dict[str, str]:
    """Return the environment in which a tree runs, with a cache of its own."""
    cache = {"EMBEDPIPE_CACHE": str(folder / "cache")}
    return os.environ | cache | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}


def table_of(results: Sequence[dict[str, object]], names: Sequence[str]) -> str:
    """Return medians of processor time, and in brackets of wall time, of each command and tree."""
    rows = [["processor seconds (wall)", *names]]
    for result in results:
        rows.append([str(result["command"]), *(f"{cpu:.1f} ({wall:.1f})" for cpu, wall in result["seconds"])])  # type: ignore[attr-defined]
    return markdown_table(rows)


def main() -> None:
    """Prepare each tree, run the commands in turns, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--trees", type=Path, nargs="+", default=[Path(__file__).parents[1]], help="checkouts to compare"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large store (1,000,000)")
    parser.add_argument("--files", type=int, default=0, help="files of the large source (0: none)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command (5)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="measure commands with one of these words"
    )
    parser.add_argument("--folder", type=Path, help="keep what is prepared in this folder, and use it again")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.rows, options.prepare)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = (options.folder or Path(name)).absolute()
        shared = folder / "shared"
        if not shared.exists():
            write_shared(shared, options.files)
        trees = [tree.absolute() for tree in options.trees]
        folders = [folder / f"tree-{i}" for i in range(len(trees))]
        for tree, own in zip(trees, folders, strict=True):
            if not (own / "messages.features").exists():
                own.mkdir(exist_ok=True)
                script = [sys.executable, str(Path(__file__).absolute()), "--prepare", str(shared)]
                paths = {"PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parent}"}
                rows = ["--rows", str(options.rows)]
                subprocess.run([*script, *rows], cwd=own, env=environment(tree, own) | paths, check=True)
        results: list[dict[str, object]] = []
        for command in commands(options.files):
            if options.only and not any(word in command.name for word in options.only):
                continue
            turns = [
                [run(command, tree, own, shared) for tree, own in zip(trees, folders, strict=True)]
                for _ in range(options.repeats)
            ]
            medians = [
                tuple(statistics.median(kind) for kind in zip(*runs, strict=True)) for runs in zip(*turns, strict=True)
            ]
            results.append({"command": command.name, "seconds": medians})
            print(table_of(results[-1:], [tree.name for tree in trees]).splitlines()[-1], flush=True)
    print(table_of(results, [tree.name for tree in trees]))
    write_json(options, results)


if __name__ == "__main__":
    main()
