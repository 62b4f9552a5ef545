"""What the benchmarks share: their command line, where the example data lies, and how results are written."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

#: Example data beside the checkout; every benchmark takes another folder as an option.
DATA = Path("../shared/data")
PHOTOS, CLOTHING, SMS = DATA / "photos", DATA / "clothing", DATA / "sms" / "sms.tsv"


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring, with the option ``--json FILE``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here, as JSON")
    return parser


def write_json(options: argparse.Namespace, results: Any) -> None:
    """Write the results where ``--json`` says; do nothing without it."""
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
