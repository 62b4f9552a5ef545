"""A nightly check for shift: embed what is in SOURCE now, compare it with REFERENCE, and write JSON and a page.

    python pipelines/monitor.py photos.features /mnt/camera/today --split train --to monitor

REFERENCE is a feature store, such as the one that a head was fitted on; with --split, its rows of that split. The new
items get vectors of the same backbone, in TO/new.features, which has the items of SOURCE and no others. TO/shift.json
and TO/shift.html say whether they are shifted, how much, which items are most unlike, and what accuracy to expect.

Exit codes: 0 no shift; 1 shifted, or an error: "status" in the JSON says which; 3 no shift, but items failed; 75 the
storage does not answer: try again later; 2 refused, such as a source without items; 130 interrupted. Among many rows
the test finds differences that do not matter: with --least-auc 0.6, they count only if a classifier sees them so well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import embedpipe
from embedpipe.backbones import options_from_spec
from embedpipe.errors import EmbedpipeError, ExitCode, command_line


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    text, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", help="feature store with the usual items")
    parser.add_argument("source", help="the new items: folder, file list, table or tar shards; a path or URL")
    parser.add_argument("--to", type=Path, required=True, help="folder of the results and of the new items' store")
    parser.add_argument("--split", help="compare with the rows of this split of the reference")
    parser.add_argument("--text", metavar="COLUMN", help="column of texts in a table")
    parser.add_argument("--backbone", help="default: that of the reference; needed for a checkpoint or your own code")
    parser.add_argument("--alpha", type=float, default=0.05, help="p-value from which items count as shifted (0.05)")
    parser.add_argument("--least-auc", type=float, default=0.5, help="and the least AUC, from 0.5 to 1 (0.5)")
    return parser.parse_args()


def forget_others(arguments: argparse.Namespace) -> Path:
    """Return the store of the new items, without those of another source that an earlier night had."""
    store, last = arguments.to / "new.features", arguments.to / "shift.json"
    known = json.loads(last.read_text())["source"] if last.exists() else None
    if known != arguments.source and embedpipe.FeatureStore.exists(store):
        opened = embedpipe.FeatureStore(store)
        opened.remove(opened.ids())
    return store


def backbone_of(reference: embedpipe.FeatureStore, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the backbone that is given, or of that of the reference with its layers and settings."""
    if arguments.backbone:
        return {"backbone": arguments.backbone}
    chosen = dataclasses.asdict(options_from_spec(reference.spec))
    return {name: value for name, value in chosen.items() if value}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Embed, compare, write the page, and return the report."""
    store = forget_others(arguments)  # first: after an error the report names the source of this night
    reference = embedpipe.FeatureStore(arguments.reference)
    options: dict[str, Any] = {"prune": True, "force": True, **backbone_of(reference, arguments)}
    if arguments.text:
        options["text"] = arguments.text
    new = embedpipe.embed(arguments.source, store, **options)
    splits = (arguments.split,) if arguments.split else ()
    shift = embedpipe.shift(reference, new, splits=splits, alpha=arguments.alpha)
    page = arguments.to / "shift.html"
    shift.save(page)
    alarm = shift.shifted and shift.auc >= arguments.least_auc
    code = ExitCode.FAILED if alarm else new.summary.exit_code()
    return {
        "status": "shifted" if alarm else code.status,
        "exit_code": code,
        "embedded": {name: getattr(new.summary, name) for name in ("seen", "embedded", "failed", "pruned")},
        "page": str(page),
        **shift.to_dict(),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the report; an error becomes part of it, and one line on standard error."""
    try:
        with command_line():
            return compare(arguments)
    except (Exception, KeyboardInterrupt) as error:
        other = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.FAILED
        code = ExitCode(error.exit_code) if isinstance(error, EmbedpipeError) else other
        message = str(error) or code.status
        print(f"monitor: {message}", file=sys.stderr)
        return {
            "status": code.status,
            "exit_code": code,
            "error": {"type": type(error).__name__, "message": message},
        }


def main() -> int:
    """Run, report, and return the exit code."""
    arguments = parse_arguments()
    arguments.to.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"reference": arguments.reference, "split": arguments.split, "source": arguments.source}
    report = {**about, "started": started, "error": None, **run(arguments)}
    part = arguments.to / f".shift.json.{os.getpid()}.part"
    part.write_text(json.dumps(report, indent=2) + "\n")
    part.replace(arguments.to / "shift.json")
    if report["status"] == "shifted":
        expected = report["expected_accuracy"]
        forecast = "" if expected is None else f", accuracy to expect {expected:.1%}"
        print(f"SHIFTED: p={report['p_value']:.3f}, AUC {report['auc']:.3f}{forecast}: {report['page']}")
    return int(report["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
