"""How accurate is each head on the default backbone's frozen features, and how long does it take to fit?

    python benchmarks/heads.py [--clothing FOLDER] [--stores FOLDER] [--results benchmarks/RESULTS.md] [--json FILE]

elpv: probability 0 against 1 by 5 shuffled stratified folds, and all probabilities as regression. Clothing, a folder
with class folders below train, validation and test: penalties are chosen on validation, the head is fitted on train and
validation, and test is measured once. Stores are kept in --stores, so that a second run is quick.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common import CLOTHING, STORES, elpv_store, make_parser, markdown_table, replace_table, write_json

import embedpipe

CLASSIFIERS = ("logreg", "ridge", "lda", "centroid", "knn")
REGRESSORS = ("ridge", "knn")
BASELINE = "majority or mean"


@dataclass(frozen=True)
class Job:
    """The label column of a store, the heads that learn it, and metric -> heading of the table."""

    label: str
    task: Literal["classification", "regression"]
    heads: tuple[str, ...]
    headings: dict[str, str]


JOBS = {
    "elpv": Job(
        "label", "classification", CLASSIFIERS, {"accuracy": "elpv 0 or 1: accuracy", "roc_auc": "elpv 0 or 1: ROC AUC"}
    ),
    "clothing": Job("label", "classification", CLASSIFIERS, {"accuracy": "clothing: test accuracy"}),
    "elpv regression": Job(
        "defect_probability", "regression", REGRESSORS, {"r2": "elpv probability: R2", "mae": "elpv probability: MAE"}
    ),
}

#: Head -> metric -> a value for each fold, or one value for the split.
Scores = dict[str, dict[str, list[float]]]


def measure(store: embedpipe.FeatureStore, job: Job) -> Scores:
    """Fit and measure every head of a job."""
    scores: Scores = {}
    for name in job.heads:
        report = embedpipe.fit(store, name, label=job.label, task=job.task).report
        scores[name] = {metric: report.metrics.get(metric, []) for metric in job.headings}
        scores[name]["seconds"] = [report.seconds]
        scores[BASELINE] = {metric: report.baseline[metric] for metric in job.headings}
        print(f"  {name}: {report.protocol}, {report.rows} rows, chosen {report.chosen}", flush=True)
    return scores


def cell(values: list[float], digits: int) -> str:
    """Return the mean, with the standard deviation if there are several values."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def markdown(results: dict[str, Scores]) -> str:
    """Return one Markdown table of all results, with a row for each head."""
    headings = ["head"]
    lines = [[name if name == BASELINE else f"`{name}`"] for name in (*CLASSIFIERS, BASELINE)]
    for job_name, scores in results.items():
        job = JOBS[job_name]
        headings += [*job.headings.values(), "seconds"]
        for name, line in zip((*CLASSIFIERS, BASELINE), lines, strict=True):
            values = scores.get(name, {})
            line += [cell(values.get(metric, []), 3) for metric in job.headings]
            line.append(cell(values.get("seconds", []), 1))
    return markdown_table([headings, *lines])


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--clothing", type=Path, default=CLOTHING, help="folder of clothing photos (default: %(default)s)"
    )
    parser.add_argument("--stores", type=Path, default=STORES, help="folder of the stores (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="also write the table between the markers of this file")
    options = parser.parse_args()
    has_clothing = options.clothing.is_dir()
    if not has_clothing and options.results:
        parser.error(f"the table of {options.results} needs the clothing photos: no folder {options.clothing}")
    cells = elpv_store(options.stores)
    results: dict[str, Scores] = {}
    for name, job in JOBS.items():
        if name == "clothing" and not has_clothing:
            print(f"clothing is left out: no folder {options.clothing}. Name one with --clothing")
            continue
        print(name, flush=True)
        is_clothing = name == "clothing"
        store = embedpipe.embed(options.clothing, options.stores / "clothing.features") if is_clothing else cells
        results[name] = measure(store, job)
    table = markdown(results)
    print(table)
    write_json(options, results)
    if options.results:
        replace_table(options.results, "heads", table)


if __name__ == "__main__":
    main()
