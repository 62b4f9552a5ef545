"""An evaluation as one HTML page that holds all it shows: it loads nothing, runs nothing, and can be sent by mail."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison import charts, interval_charts
from embedpipe.evaluation.comparison.item_previews import preview_items
from embedpipe.evaluation.comparison.result import CandidateResult, Evaluation, RiskCoverage
from embedpipe.report.drawing import wording
from embedpipe.report.page import check_page, write_page
from embedpipe.report.pictures.confusion_matrix import Counts

MAX_WRONG = 24
#: Classes of the worst F1 that are shown before the rest, and the most that a confusion matrix has on a page.
WORST_CLASSES, MAX_MATRIX = 30, 40
MOST_CONFUSED = 30
#: Reliability plots besides the best's.
MAX_RELIABILITY = 6
#: Shares of rows answered at which a risk is written out.
COVERAGES = (1.0, 0.9, 0.8, 0.5)
#: Names of candidates in one sentence.
MAX_NAMES = 6


def write_evaluation(evaluation: Evaluation, to: str | Path, *, pictures: bool = True) -> Path:
    """Write an evaluation as one HTML page, readable without a network and below 3 MB.

    Parameters
    ----------
    evaluation : Evaluation
    to : str or path-like
        The page to write, atomically; its name ends in .html. Folders on the way are made.
    pictures : bool
        Read the items that were most confidently wrong, and show them: pictures as small JPEGs within the page, of
        texts their beginnings. Else only their ids.

    Returns
    -------
    pathlib.Path
        ``to``.

    Raises
    ------
    UsageError
        If the name of the page is of another kind, or there is no candidate to report.
    """
    to = check_page(to)
    if not evaluation.candidates:
        raise UsageError("the evaluation has no candidates: there is nothing to report")
    return write_page("evaluation.html", _facts(evaluation, pictures), to)


@dataclass(frozen=True)
class Confused:
    """How many of one class were taken for another, and which share of that class."""

    actual: str
    predicted: str
    count: int
    share: float


def _facts(evaluation: Evaluation, pictures: bool) -> dict[str, Any]:
    """Return what the template shows."""
    best = evaluation.best
    several = len(evaluation.candidates) > 1
    wrong = best.wrong[:MAX_WRONG]
    classes = sorted(best.per_class, key=lambda one: (one.f1, -one.rows))
    counts = np.array(best.confusion, np.int64).reshape((len(best.confusion),) * 2)
    small = 0 < len(counts) <= MAX_MATRIX
    probable = [one for one in evaluation.candidates if one.calibration or one.calibrated]
    scaled = best.calibrated is not None
    draws = _draws(evaluation.protocol)
    resamples = len(best.metrics.get(evaluation.metric, []))
    named = dict.fromkeys(name for one in evaluation.candidates for name in one.estimates)
    return {
        "evaluation": evaluation,
        "best": best,
        "at": best.estimates[evaluation.metric],
        "metric": wording.metric_name(evaluation.metric),
        "groups": list(_groups(evaluation)) if several else [],
        "metrics": [evaluation.metric, *(name for name in named if name != evaluation.metric)],
        "tests": list(dict.fromkeys(one.difference.test for one in evaluation.candidates if one.difference)),
        "scores": interval_charts.draw_scores(evaluation),
        "differences": interval_charts.draw_differences(evaluation) if several else None,
        "costs": _costs(evaluation),
        "numbers": charts.draw_numbers(evaluation) if evaluation.task == "regression" else None,
        "probable": probable,
        "bins": _bins(probable[0]) if probable else [],
        "few": charts.FEW,
        "reliability": [
            (one, charts.draw_reliability(one.calibration, one.calibrated, f"reliability-{i}"))
            for i, one in enumerate(probable[: MAX_RELIABILITY + 1])
        ],
        "risk": charts.draw_risk(best.rejection, scaled=scaled) if best.rejection else None,
        "risks": [
            (charts.signal_name(curve, scaled=scaled), curve, [_risk_at(curve, share) for share in COVERAGES])
            for curve in best.rejection
        ],
        "coverages": COVERAGES,
        "worst": classes[:WORST_CLASSES],
        "other_classes": classes[WORST_CLASSES:],
        "matrix": list(_matrix(counts, evaluation.classes)) if small else [],
        "confused": [] if small else _confused(counts, evaluation.classes),
        "wrong": wrong,
        "previews": preview_items(wrong) if pictures else [],
        "version": __version__,
        "resamples": resamples,
        "draws": draws,
        "pairs": math.comb(len(evaluation.candidates), 2),
        "pooled": _pooled(draws, resamples),
        "share_wrong": 1 - np.trace(counts) / counts.sum() if counts.any() else None,
        "now": datetime.now().astimezone(),
        "max_rows": interval_charts.MAX_ROWS,
    }


def _groups(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Yield a verdict, what it means, and who has it, in words."""
    margin = wording.number(evaluation.margin, evaluation.best.estimates[evaluation.metric].value)
    meanings = {
        "better": "Better beyond chance",
        "equivalent": f"As good in practice, at least 95 % sure to be within {margin}",
        "undecided": "Not told apart from the best by these data",
        "worse": "Worse beyond chance",
    }
    for word, meaning in meanings.items():
        names = [wording.clip(one.name) for one in evaluation.candidates[1:] if one.verdict == word]
        if names:
            rest = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            yield word, meaning, ", ".join(names[:MAX_NAMES]) + rest


def _costs(evaluation: Evaluation) -> list[tuple[str, str, list[tuple[int, CandidateResult]]]]:
    """Return of each known cost: what it is, its chart, and who is on its frontier, as the table numbers them."""
    costs = []
    for cost, words in (
        ("fit_seconds", "Time of one fit, its own choices included"),
        ("size_bytes", "Size of the head"),
    ):
        if drawn := charts.draw_costs(evaluation, cost):
            svg, frontier = drawn
            costs.append((words, svg, [(i + 1, evaluation.candidates[i]) for i in frontier]))
    return costs


def _draws(protocol: str) -> int:
    """Return how often the folds were drawn: what ``5 x 5-fold`` begins with."""
    found = re.match(r"(\d+) x ", protocol)
    return int(found[1]) if found else 1


def _pooled(draws: int, resamples: int) -> str:
    """Say which rows are counted wherever rows are: an evaluation keeps those of the first repeat."""
    if resamples == 1:
        return "of the test rows"
    return f"of {'the first draw of the folds' if draws > 1 else 'all folds'}, in which each row is predicted once"


def _bins(candidate: CandidateResult) -> list[tuple[str, float, float, int]]:
    """Return what the reliability plot shows: when, mean probability, share right and rows of each bin."""
    both = (("as they are", candidate.calibration), ("after scaling", candidate.calibrated))
    return [(when, *one) for when, at in both if at for one in zip(at.confidence, at.accuracy, at.rows, strict=True)]


def _risk_at(curve: RiskCoverage, share: float) -> float:
    """Return the share wrong of the rows answered, where that many are."""
    return float(np.interp(share, curve.coverage, curve.risk))


def _matrix(counts: Counts, classes: list[str]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each class with its row: counts and their shares of the row."""
    for name, row in zip(classes, counts, strict=True):
        total = max(1, int(row.sum()))
        yield name, [(int(count), int(count) / total) for count in row]


def _confused(counts: Counts, classes: list[str]) -> list[Confused]:
    """Return the pairs of classes that were mixed up most, the most first."""
    wrong = counts - np.diag(np.diag(counts)) if counts.size else counts
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [
        Confused(classes[i], classes[j], int(wrong[i, j]), float(wrong[i, j] / counts[i].sum()))
        for i, j in pairs
        if wrong[i, j]
    ]
