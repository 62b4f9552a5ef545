"""A nightly job: embed new and changed items of SOURCE, remove deleted ones, tidy the store, and report in JSON.

    python pipelines/nightly_embedding.py /mnt/photos /data/photos.features --summary photos.json --lock

Exit codes: 0 done, even if old broken items failed again; 3 done, but items failed that had not failed before, or more
than --max-failed; 75 the storage does not answer: try again later; 2 refused (no source, a store of another backbone,
pruning more than half of the rows); 1 any other error, such as a full disk; 130 interrupted.

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
from embedpipe.embedding import FailureLimit
from embedpipe.errors import EmbedpipeError, ExitCode, command_line

#: With more files than this, they are merged: many small files make reads slow. Old files are kept for a week.
MANY_FILES, KEEP_HOURS = 16, 7 * 24
COUNTS = ("seen", "embedded", "reused", "failed", "failed_new", "unreachable", "gone", "pruned", "skipped", "failures")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--force", action="store_true", help="prune even if that drops more than half of the rows")
    parser.add_argument("--max-failed", metavar="N|N%", help="exit with 3 only if more items failed, new or not")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="also write the JSON to this file, atomically")
    parser.add_argument("--lock", action="store_true", help="do nothing while an earlier run is active")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def run_lock(store: str) -> FileLock:
    """Return the lock of a store: beside its folder, or in the temporary folder for a URL."""
    if "://" in store:
        name = hashlib.sha256(store.encode()).hexdigest()[:16]
        return FileLock(Path(tempfile.gettempdir()) / f"nightly-embedding-{name}.lock", timeout=0)
    folder = Path(store)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)


def embed_and_tidy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Update and tidy the store, and return the counts."""
    limit = FailureLimit.parse(arguments.max_failed) if arguments.max_failed is not None else None
    options: dict[str, Any] = {"backbone": arguments.backbone} if arguments.backbone else {}
    options |= {"prune": arguments.prune, "force": arguments.force}
    store = embedpipe.embed(arguments.source, to=arguments.store, **options)
    merged = store.compact() if len(store.table.files) > MANY_FILES else 0
    deleted = store.vacuum(older_than_hours=KEEP_HOURS)
    counts = store.summary.to_dict()
    code = store.summary.exit_code(limit)
    return {
        "status": code.status,
        "exit_code": code,
        **{name: counts[name] for name in COUNTS},
        "rows": len(store),
        "version": store.version,
        "rate": round(counts["rate"], 2),
        "files_merged": merged,
        "files_deleted": len(deleted),
        "notes": counts["notes"],
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the job, and return the report; errors become part of it, and one line on standard error."""
    try:
        with command_line(), run_lock(arguments.store) if arguments.lock else contextlib.nullcontext():
            return embed_and_tidy(arguments)
    except Timeout:
        return {"status": "already running", "exit_code": ExitCode.DONE}
    except (Exception, KeyboardInterrupt) as error:
        other = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.FAILED
        code = ExitCode(error.exit_code) if isinstance(error, EmbedpipeError) else other
        if arguments.verbose:
            traceback.print_exc()
        message = str(error) or code.status
        print(f"nightly_embedding: {message}", file=sys.stderr)
        return {
            "status": code.status,
            "exit_code": code,
            "error": {"type": type(error).__name__, "message": message, "exit_code": code},
        }


def write_atomically(path: Path, text: str) -> None:
    """Write a file in one step, so that readers never see a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def main(given: list[str] | None = None) -> int:
    """Run, report, and return the exit code."""
    arguments = parse_arguments(given)
    started = datetime.now(UTC)
    result = run(arguments)
    ended = datetime.now(UTC)
    report = {
        "source": arguments.source,
        "store": arguments.store,
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - started).total_seconds(), 2),
        "versions": {"embedpipe": embedpipe.__version__, "store": result.get("version")},
        "error": None,
        **result,
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    try:
        if arguments.summary:
            write_atomically(arguments.summary, text)
    except OSError as error:
        print(f"nightly_embedding: cannot write the summary: {error}", file=sys.stderr)
        return int(report["exit_code"] or ExitCode.FAILED)
    return int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
