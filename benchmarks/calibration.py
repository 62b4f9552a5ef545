"""How far can probabilities be taken at their word, before and after temperature scaling?

    python benchmarks/calibration.py [STORE...] [--label LABEL]

On each store, the heads logreg, lda and knn on every layer, by five folds with near-duplicates together. A store's own
split is not used, so that every row is tested once, by a head that did not see it, and the temperature is found
inside the training rows of each fold; figures are of all rows pooled. ECE has 15 bins of equal width; debiased, it is
less what is chance (`embedpipe.statistics.calibration_errors`). Brier is the sum over classes; log-loss counts
probabilities below 0.001 as that. Right answers are those of the class of highest probability.

Where the debiased ECE was above 2 %, scaling should at least halve it, and nowhere change how many answers are right.
Exits with 1 if it does not. The last line has all numbers as JSON. What was measured before, by `auto_head.py` too, is
taken from embedpipe's cache folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from auto_head import compare, divide
from common import make_parser, write_json
from heads import elpv

from embedpipe import FeatureStore
from embedpipe.evaluation.comparison.candidate_result import Reliability
from embedpipe.neighbours.near import NEAR_DUPLICATE_COSINE

HEADS = ("logreg", "lda", "knn")
#: The debiased ECE from which on it is to be halved.
HIGH = 0.02


def figures(pooled: Reliability | None) -> dict[str, float]:
    """Return what is compared; all of `HEADS` give probabilities."""
    assert pooled is not None
    return {
        "right": round(float(np.dot(pooled.accuracy, pooled.rows))),
        "ece": pooled.ece,
        "debiased ece": pooled.ece_debiased,
        "brier": pooled.brier,
        "log_loss": pooled.log_loss,
    }


def measure(store: FeatureStore, label: str) -> list[dict[str, Any]]:
    """Measure each head on each layer, before and after."""
    _, _, splits = divide(store, label, NEAR_DUPLICATE_COSINE)
    found = compare(store, label, HEADS, splits)
    rows = []
    for one in sorted(found.candidates, key=lambda each: each.name):
        before, after = figures(one.calibration), figures(one.calibrated)
        high = before["debiased ece"] > HIGH
        rows.append(
            {
                "name": one.name,
                "rows": found.rows,
                "before": before,
                "after": after,
                "halved": after["debiased ece"] <= before["debiased ece"] / 2 if high else None,
                "unchanged": after["right"] == before["right"],
            }
        )
    return rows


def markdown(results: dict[str, list[dict[str, Any]]]) -> str:
    """Lay out all heads of all stores as one Markdown table; figures before and after."""
    headings = ("store", "head", "right", "ECE, %", "debiased ECE, %", "Brier", "log-loss", "halved", "as many right")
    rows = [[*headings], ["---", "---", *["---:"] * 5, "---", "---"]]
    words = {True: "yes", False: "NO", None: "was low"}
    for name, heads in results.items():
        for one in heads:
            pairs = {key: (one["before"][key], one["after"][key]) for key in one["before"]}
            rows.append(
                [
                    name,
                    one["name"],
                    f"{' → '.join(str(right) for right in dict.fromkeys(pairs['right']))} of {one['rows']}",
                    *(" → ".join(f"{100 * value:.2f}" for value in pairs[key]) for key in ("ece", "debiased ece")),
                    *(" → ".join(f"{value:.4f}" for value in pairs[key]) for key in ("brier", "log_loss")),
                    words[one["halved"]],
                    words[one["unchanged"]],
                ]
            )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Measure, print, and exit with 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", type=Path, nargs="*", metavar="STORE", help="the solar cells where none is given")
    parser.add_argument("--label", default="label")
    options = parser.parse_args()
    options.stores = options.stores or [Path(elpv().path)]
    results = {path.stem: measure(FeatureStore(path), options.label) for path in options.stores}
    print(markdown(results))
    write_json(options, results)
    met = all(one["halved"] is not False and one["unchanged"] for heads in results.values() for one in heads)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
