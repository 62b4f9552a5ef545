"""How well calibrated are the heads' probabilities, before and after temperature scaling?

    python benchmarks/calibration.py [STORE...] [--label LABEL] [--json FILE]

Measured on each store: the heads logreg, lda and knn on every layer, by five folds with near-duplicates together. A
split column of the store is ignored, so that every row is tested once, by a head that was not fitted on it; the
temperature is fitted inside the training rows of each fold. All rows are pooled. ECE has 15 bins of equal width; the
debiased ECE subtracts the value expected by chance (`embedpipe.statistics.calibration_errors`). Brier is the sum over
classes. Log-loss clips probabilities below 0.001 to 0.001. A row is correct if its class has the highest probability.

Where the debiased ECE is above 2 %, scaling must at least halve it, and it must never change the number of correct
rows. The exit code is 1 otherwise. Earlier results, of `auto_head.py` too, are read from embedpipe's cache folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from auto_head import evaluate_heads, make_folds
from common import elpv_store, make_parser, markdown_table, write_json

from embedpipe import FeatureStore
from embedpipe.evaluation.comparison.candidate_result import Reliability
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE

HEADS = ("logreg", "lda", "knn")
#: Debiased ECE above which scaling must halve it.
HIGH = 0.02


def metrics_of(reliability: Reliability | None) -> dict[str, float]:
    """Return the metrics that are compared. All of `HEADS` give probabilities."""
    assert reliability is not None
    return {
        "correct": round(float(np.dot(reliability.accuracy, reliability.rows))),
        "ece": reliability.ece,
        "debiased ece": reliability.ece_debiased,
        "brier": reliability.brier,
        "log_loss": reliability.log_loss,
    }


def measure(store: FeatureStore, label: str) -> list[dict[str, Any]]:
    """Return the metrics of each head on each layer, before and after scaling."""
    _, _, splits = make_folds(store, label, NEAR_DUPLICATE_COSINE)
    evaluation = evaluate_heads(store, label, HEADS, splits)
    rows = []
    for candidate in sorted(evaluation.candidates, key=lambda candidate: candidate.name):
        before, after = metrics_of(candidate.calibration), metrics_of(candidate.calibrated)
        high = before["debiased ece"] > HIGH
        rows.append(
            {
                "name": candidate.name,
                "rows": evaluation.rows,
                "before": before,
                "after": after,
                "halved": after["debiased ece"] <= before["debiased ece"] / 2 if high else None,
                "unchanged": after["correct"] == before["correct"],
            }
        )
    return rows


def markdown(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return one Markdown table of all heads of all stores, with metrics before and after scaling."""
    headings = ("store", "head", "correct rows", "ECE, %", "debiased ECE, %", "Brier", "log-loss", "halved")
    rows = [[*headings, "correct rows unchanged"]]
    words = {True: "yes", False: "NO", None: "was low"}
    for name, heads in results.items():
        for head in heads:
            pairs = {key: (head["before"][key], head["after"][key]) for key in head["before"]}
            rows.append(
                [
                    name,
                    head["name"],
                    f"{' → '.join(str(count) for count in dict.fromkeys(pairs['correct']))} of {head['rows']}",
                    *(" → ".join(f"{100 * value:.2f}" for value in pairs[key]) for key in ("ece", "debiased ece")),
                    *(" → ".join(f"{value:.4f}" for value in pairs[key]) for key in ("brier", "log_loss")),
                    words[head["halved"]],
                    words[head["unchanged"]],
                ]
            )
    return markdown_table(rows, left=(0, 1, 7, 8))


def main() -> int:
    """Measure and print; return 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", type=Path, nargs="*", metavar="STORE", help="stores; default: elpv's solar cells")
    parser.add_argument("--label", default="label", help="column of the labels (default: label)")
    options = parser.parse_args()
    options.stores = options.stores or [Path(elpv_store().path)]
    results = {path.stem: measure(FeatureStore(path), options.label) for path in options.stores}
    print(markdown(results))
    write_json(options, results)
    met = all(head["halved"] is not False and head["unchanged"] for heads in results.values() for head in heads)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
