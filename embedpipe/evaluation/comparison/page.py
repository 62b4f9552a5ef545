"""The HTML page of an evaluation: one file without scripts, which needs no network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison import charts, interval_charts
from embedpipe.evaluation.comparison.candidate_result import CandidateResult, RiskCoverage
from embedpipe.evaluation.comparison.evaluation_data import EvaluationData
from embedpipe.report.drawing import wording
from embedpipe.report.page import check_page, write_page
from embedpipe.report.pictures.confusion_matrix import Counts
from embedpipe.report.wrong_items import show_wrong_items
from embedpipe.statistics import unseen_share

#: Number of classes that are shown unfolded, those of the lowest F1.
WORST_CLASSES = 30
#: Largest number of classes for which the confusion matrix is shown.
MAX_MATRIX = 40
#: Number of confused pairs of classes that are shown instead of a larger matrix.
MAX_CONFUSED = 30
#: Number of reliability charts besides that of the best candidate.
MAX_RELIABILITY = 6
#: Coverages for which the error rate is listed.
COVERAGES = (1.0, 0.9, 0.8, 0.5)
#: Number of candidates that are named in one sentence.
MAX_NAMES = 6


def write_evaluation_page(evaluation: EvaluationData, path: str | Path, *, pictures: bool = True) -> Path:
    """Write an evaluation as one HTML page; see `embedpipe.Evaluation.to_html`."""
    path = check_page(path)
    if not evaluation.candidates:
        raise UsageError("an evaluation needs at least one candidate to be written as a page, got none")
    return write_page("evaluation.html", _facts(evaluation, path, pictures), path)


@dataclass(frozen=True)
class ConfusedPair:
    """Number of rows of one class that were predicted as another, and their share of the class."""

    actual: str
    predicted: str
    count: int
    share: float


def _facts(evaluation: EvaluationData, path: Path, pictures: bool) -> dict[str, Any]:
    """Return the variables of the template."""
    best = evaluation.best
    several = len(evaluation.candidates) > 1
    classes = sorted(best.per_class, key=lambda scores: (scores.f1, -scores.rows))
    counts = np.array(best.confusion, np.int64).reshape((len(best.confusion),) * 2)
    small = 0 < len(counts) <= MAX_MATRIX
    probable = [each for each in evaluation.candidates if each.calibration or each.calibrated]
    scaled = best.calibrated is not None
    metrics = dict.fromkeys(name for each in evaluation.candidates for name in each.estimates)
    return {
        "evaluation": evaluation,
        "best": best,
        "at": best.estimates[evaluation.metric],
        "metric": wording.metric_name(evaluation.metric),
        "verdicts": list(_verdict_groups(evaluation)) if several else [],
        "metrics": [evaluation.metric, *(name for name in metrics if name != evaluation.metric)],
        "tests": list(dict.fromkeys(each.difference.test for each in evaluation.candidates if each.difference)),
        "scores": interval_charts.draw_scores(evaluation),
        "differences": interval_charts.draw_differences(evaluation) if several else None,
        "costs": _costs(evaluation),
        "numbers": charts.draw_numbers(evaluation) if evaluation.task == "regression" else None,
        "probable": probable,
        "bins": _bins(probable[0]) if probable else [],
        "few_rows": charts.FEW_ROWS,
        "reliability": [
            (each, charts.draw_reliability(each.calibration, each.calibrated, f"reliability-{i}"))
            for i, each in enumerate(probable[: MAX_RELIABILITY + 1])
        ],
        "risk": charts.draw_risk(best.rejection, scaled=scaled) if best.rejection else None,
        "risks": [
            (
                charts.signal_name(curve, scaled=scaled),
                curve,
                [_risk_at(curve, share, counts.sum()) for share in COVERAGES],
            )
            for curve in best.rejection
        ],
        "coverages": COVERAGES,
        "worst": classes[:WORST_CLASSES],
        "other_classes": classes[WORST_CLASSES:],
        "matrix": list(_matrix(counts, evaluation.classes)) if small else [],
        "confused": [] if small else _confused(counts, evaluation.classes),
        "wrong": show_wrong_items(best.wrong, path, pictures=pictures),
        "wrong_rows": int(counts.sum() - np.trace(counts)),
        "version": __version__,
        "pairs": math.comb(len(evaluation.candidates), 2),
        "pooled": _pooled(evaluation),
        "error_rate": 1 - np.trace(counts) / counts.sum() if counts.any() else None,
        "now": datetime.now().astimezone(),
        "max_rows": interval_charts.MAX_ROWS,
    }


def _verdict_groups(evaluation: EvaluationData) -> Iterator[tuple[str, str, str]]:
    """Yield each verdict, its meaning, and the names of its candidates."""
    margin = wording.margin(evaluation.margin, evaluation.metric)
    meanings = {
        "better": "Significantly better",
        "equivalent": f"Practically equivalent: within {margin} with a probability of at least 95 %",
        "undecided": "Not distinguishable from the best on these data",
        "worse": "Significantly worse",
    }
    for verdict, meaning in meanings.items():
        names = [wording.clip(each.name) for each in evaluation.candidates[1:] if each.verdict == verdict]
        if names:
            others = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            yield verdict, meaning, ", ".join(names[:MAX_NAMES]) + others


def _costs(evaluation: EvaluationData) -> list[tuple[str, str, list[tuple[int, CandidateResult]]]]:
    """Return caption, chart and Pareto frontier of each known cost; numbers are those of the table."""
    costs = []
    for cost, caption in (
        ("fit_seconds", "Time of one fit, with all choices of the head"),
        ("size_bytes", "Size of the head"),
    ):
        if drawn := charts.draw_costs(evaluation, cost):
            svg, frontier = drawn
            costs.append((caption, svg, [(i + 1, evaluation.candidates[i]) for i in frontier]))
    return costs


def _pooled(evaluation: EvaluationData) -> str:
    """Return in words which rows are counted: those of the first repeat, in which each row is predicted once."""
    if evaluation.n_resamples == 1:
        return "of the test rows"
    folds = "of the first repeat" if evaluation.n_repeats > 1 else "of all folds"
    return f"{folds}, in which each row is predicted once"


def _bins(candidate: CandidateResult) -> list[tuple[str, float, float, int]]:
    """Return the bins of the reliability chart: before or after scaling, mean probability, accuracy and rows."""
    both = (("unscaled", candidate.calibration), ("after scaling", candidate.calibrated))
    return [(when, *row) for when, at in both if at for row in zip(at.confidence, at.accuracy, at.rows, strict=True)]


def _risk_at(curve: RiskCoverage, share: float, rows: float) -> str:
    """Return the error rate at a coverage; without errors, the smallest rate that so many rows can show."""
    risk = float(np.interp(share, curve.coverage, curve.risk))
    return wording.percent(risk) if risk else f"<\xa0{wording.percent(unseen_share(max(round(share * rows), 1)))}"


def _matrix(counts: Counts, classes: list[str]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each class with its row of the matrix: counts, and their shares of the row."""
    for name, row in zip(classes, counts, strict=True):
        total = max(1, int(row.sum()))
        yield name, [(int(count), int(count) / total) for count in row]


def _confused(counts: Counts, classes: list[str]) -> list[ConfusedPair]:
    """Return the most confused pairs of classes, in descending order."""
    wrong = counts - np.diag(np.diag(counts)) if counts.size else counts
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSED]
    pairs = [divmod(int(position), len(counts)) for position in order]
    return [
        ConfusedPair(classes[i], classes[j], int(wrong[i, j]), float(wrong[i, j] / counts[i].sum()))
        for i, j in pairs
        if wrong[i, j]
    ]
