"""How good is each head on the default backbone's frozen features, and how long does it take?

    python benchmarks/heads.py [--clothing FOLDER] [--stores FOLDER] [--results benchmarks/RESULTS.md]

elpv: probability 0 against 1 by 5 shuffled stratified folds, and all probabilities as regression. Clothing, a folder
with train, validation and test class folders: penalties are chosen on validation, the head is fitted on train and
validation, and test is scored once. Stores are kept in --stores, so that a second run is quick.
"""

from __future__ import annotations

import importlib.resources
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from common import CLOTHING, make_parser, write_json

import embedpipe

CLASSIFIERS = ("logreg", "ridge", "lda", "centroid", "knn")
REGRESSORS = ("ridge", "knn")
BASELINE = "majority or mean"


@dataclass(frozen=True)
class Job:
    """Which column of a store is learned, by which heads, and which figures are shown under which headings."""

    label: str
    task: str
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

#: Head -> figure -> one value a fold, or one for the split.
Scores = dict[str, dict[str, list[float]]]


STORES = Path(tempfile.gettempdir()) / "embedpipe-accuracy"


def elpv(stores: Path = STORES) -> embedpipe.FeatureStore:
    """Embed the solar cells: label only where the experts were sure, defect_probability for all."""
    data = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    table = pa.table(
        {
            "id": [row[0] for row in rows],
            "path": [str(data / row[0]) for row in rows],
            "label": [{0.0: "intact", 1.0: "defective"}.get(float(row[1])) for row in rows],
            "defect_probability": [float(row[1]) for row in rows],
            "cell_type": [row[2] for row in rows],
        }
    )
    return embedpipe.embed(table, stores / "elpv-sure.features")


def measure(store: embedpipe.FeatureStore, job: Job) -> Scores:
    """Fit and measure every head of a job."""
    scores: Scores = {}
    for name in job.heads:
        report = embedpipe.fit(store, name, label=job.label, task=job.task).report
        scores[name] = {figure: report.metrics.get(figure, []) for figure in job.headings}
        scores[name]["seconds"] = [report.seconds]
        scores[BASELINE] = {figure: report.baseline[figure] for figure in job.headings}
        print(f"  {name}: {report.protocol}, {report.rows} rows, chosen {report.chosen}", flush=True)
    return scores


def cell(values: list[float], digits: int) -> str:
    """Write the mean, and the standard deviation where there are several."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def markdown(results: dict[str, Scores]) -> str:
    """Lay out all results as one Markdown table, a row a head."""
    headings = ["head"]
    lines = [[name if name == BASELINE else f"`{name}`"] for name in (*CLASSIFIERS, BASELINE)]
    for job_name, scores in results.items():
        job = JOBS[job_name]
        headings += [*job.headings.values(), "seconds"]
        for name, line in zip((*CLASSIFIERS, BASELINE), lines, strict=True):
            own = scores.get(name, {})
            line += [cell(own.get(figure, []), 3) for figure in job.headings]
            line.append(cell(own.get("seconds", []), 1))
    rows = [headings, ["---"] + ["---:"] * (len(headings) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def rewrite(results: Path, name: str, table: str) -> None:
    """Put the table between a file's two marker lines of that name."""
    first, last = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    before, begin, rest = results.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{results} lacks the lines {first} and {last}: add them where the table is to be")
    results.write_text(f"{before}{first}\n{table}\n{last}{after}", encoding="utf-8")


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--clothing", type=Path, default=CLOTHING)
    parser.add_argument("--stores", type=Path, default=STORES)
    parser.add_argument("--results", type=Path, help="write the table between this file's markers too")
    options = parser.parse_args()
    there = options.clothing.is_dir()
    if not there and options.results:
        parser.error(f"the table of {options.results} needs the clothing photos: no folder {options.clothing}")
    cells = elpv(options.stores)
    results: dict[str, Scores] = {}
    for name, job in JOBS.items():
        if name == "clothing" and not there:
            print(f"clothing is left out: no folder {options.clothing}")
            continue
        print(name, flush=True)
        is_clothing = name == "clothing"
        store = embedpipe.embed(options.clothing, options.stores / "clothing.features") if is_clothing else cells
        results[name] = measure(store, job)
    table = markdown(results)
    print(table)
    write_json(options, results)
    if options.results:
        rewrite(options.results, "heads", table)


if __name__ == "__main__":
    main()
