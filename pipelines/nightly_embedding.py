"""A nightly job: embed new and changed items of SOURCE, remove deleted ones, tidy the store, and report in JSON.

    python pipelines/nightly_embedding.py /mnt/photos /data/photos.features --summary photos.json --lock

Exit codes: 0 done; 3 done, but some rows failed; 2 bad usage (the source is missing, the store has another
backbone, pruning was refused); 1 any other error. The summary holds the exit code and the reason.

Two runs into one store at the same time neither corrupt it nor duplicate a row: every commit is atomic and checked
against the stored ids. But both embed the items that neither has committed yet. With --lock, the later run does
nothing, exits with 0 and reports "already running". The operating system holds the lock, so that a killed run leaves
none behind. Vacuum keeps all files younger than a week, including those that another run is writing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import embedpipe

DONE, CRASHED, SOME_FAILED = 0, 1, 3
#: With more files than this, they are merged: many small files make reads slow.
MANY_FILES = 16
KEEP_HOURS = 7 * 24
FAILURES_SHOWN = 20
COUNTS = ("seen", "embedded", "reused", "failed", "gone", "pruned", "skipped")
FAILURE = ("id", "uri", "stage", "exception", "message")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    text, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="folder, file list, table or tar shards; a path or URL")
    parser.add_argument("store", help="folder or URL of the feature store; created by the first run")
    parser.add_argument("--backbone", help="default: that of `embedpipe embed`")
    on_or_off = argparse.BooleanOptionalAction
    parser.add_argument("--prune", action=on_or_off, default=True, help="remove rows whose items were deleted")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="also write the JSON to this file, atomically")
    parser.add_argument("--lock", action="store_true", help="do nothing while an earlier run is active")
    return parser.parse_args()


def run_lock(store: str) -> FileLock:
    """Return the lock of a store: beside its folder, or in the temporary folder for a URL."""
    if "://" in store:
        name = hashlib.sha256(store.encode()).hexdigest()[:16]
        return FileLock(Path(tempfile.gettempdir()) / f"nightly-embedding-{name}.lock", timeout=0)
    folder = Path(store)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)


def embed_and_tidy(arguments: argparse.Namespace, started: datetime) -> dict[str, Any]:
    """Update and tidy the store, and return the counts."""
    options = {"backbone": arguments.backbone} if arguments.backbone else {}
    store = embedpipe.embed(arguments.source, to=arguments.store, prune=arguments.prune, **options)
    merged = store.compact() if len(store.table.files) > MANY_FILES else 0
    deleted = store.vacuum(older_than_hours=KEEP_HOURS)
    failed = [row for row in store.failures().to_pylist() if row["when"] >= started]
    summary = store.summary.to_dict()
    counts = {name: summary[name] for name in COUNTS}
    return {
        "status": "some rows failed" if counts["failed"] else "done",
        "exit_code": SOME_FAILED if counts["failed"] else DONE,
        **counts,
        "failures": [{name: row[name] for name in FAILURE} for row in failed[:FAILURES_SHOWN]],
        "rows": len(store),
        "version": store.version,
        "rate": round(summary["rate"], 2),
        "files_merged": merged,
        "files_deleted": len(deleted),
        "notes": summary["notes"],
    }


def run(arguments: argparse.Namespace, started: datetime) -> dict[str, Any]:
    """Run the job, and return the report; errors become part of it."""
    try:
        with run_lock(arguments.store) if arguments.lock else contextlib.nullcontext():
            return embed_and_tidy(arguments, started)
    except Timeout:
        return {"status": "already running", "exit_code": DONE}
    except (Exception, KeyboardInterrupt) as error:
        traceback.print_exc()
        code = error.exit_code if isinstance(error, embedpipe.EmbedpipeError) else CRASHED
        return {
            "status": "refused" if code == 2 else "crashed",
            "exit_code": code,
            "error": {"type": type(error).__name__, "message": str(error)},
        }


def write_atomically(path: Path, text: str) -> None:
    """Write a file in one step, so that readers never see a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def main() -> int:
    """Run, report, and return the exit code."""
    arguments = parse_arguments()
    started = datetime.now(UTC)
    result = run(arguments, started)
    report = {
        "source": arguments.source,
        "store": arguments.store,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
        "error": None,
        **result,
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if arguments.summary:
        write_atomically(arguments.summary, text)
    return int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
