"""Details of a result: calibration, confusions, rejection curves, and the errors: the surest, or the largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from embedpipe.evaluation.comparison.cached_results import ResampleResult
from embedpipe.evaluation.comparison.candidate_result import (
    CandidateResult,
    ClassScores,
    Reliability,
    RiskCoverage,
)
from embedpipe.evaluation.comparison.rows import EvaluationRows
from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.neighbours import nearest_rows, normalised
from embedpipe.report.drawing.wording import number
from embedpipe.report.wrong_items import WrongItem
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.statistics import calibration_errors, risk_coverage

#: Number of nearest training rows whose mean distance is the rejection signal ``distance``.
NEIGHBOURS = 5
#: Number of misclassified rows that are kept for each candidate.
MAX_WRONG = 10_000
#: Number of rows with the largest errors that are kept of numbers.
MAX_ERRORS = 100
#: Number of points that are kept of a risk-coverage curve.
CURVE_POINTS = 200


def first_repeat(rows: EvaluationRows) -> list[int]:
    """Return the numbers of the resamples of the first repeat, in which each row is tested once."""
    seed = rows.splits.resamples[0].seed
    return [i for i, resample in enumerate(rows.splits.resamples) if resample.seed == seed]


def distances_to_training_rows(
    X: npt.NDArray[np.float32] | MappedRows, rows: EvaluationRows
) -> list[npt.NDArray[np.float64]]:
    """Return 1 minus the mean cosine to the nearest training rows, for the test rows of the first repeat.

    The list is empty for rows that stay on disk: there are too many pairs of them to compare.
    """
    if isinstance(X, MappedRows):
        return []
    unit, distances = normalised(X), []
    for i in first_repeat(rows):
        resample = rows.splits.resamples[i]
        k = min(NEIGHBOURS, len(resample.train))
        cosines, _ = nearest_rows(unit[resample.test], unit[resample.train], k, "cosine")
        distances.append(1 - cosines.mean(axis=1))
    return distances


def add_class_details(
    result: CandidateResult,
    rows: EvaluationRows,
    y: npt.NDArray[np.int64],
    classes: npt.NDArray[Any],
    results: Sequence[ResampleResult],
    distances: Sequence[npt.NDArray[np.float64]],
) -> None:
    """Add the details, pooled over the resamples of the first repeat.

    Parameters
    ----------
    y : int64 array (n_samples,)
    classes : array (n_classes,)
    results : sequence of ResampleResult
        Those of the first repeat.
    distances : sequence of float64 arrays
        Result of `distances_to_training_rows`; none if it was not computed.
    """
    tested = np.concatenate([rows.splits.resamples[i].test for i in first_repeat(rows)])
    truth, predicted = y[tested], np.concatenate([each.predicted for each in results])
    probabilities = _pooled([each.probabilities for each in results])
    calibrated = _pooled([each.calibrated for each in results])
    result.calibration, result.calibrated = _reliability(probabilities, truth), _reliability(calibrated, truth)
    names = [str(name) for name in classes.tolist()]
    scores = precision_recall_fscore_support(truth, predicted, labels=np.arange(len(names)), zero_division=0)
    result.per_class = [
        ClassScores(name, int(count), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, count in zip(names, *scores, strict=True)
    ]
    result.confusion = confusion_matrix(truth, predicted, labels=np.arange(len(names))).tolist()
    correct = predicted == truth
    signals = {"distance": -np.concatenate(distances)} if distances else {}
    best_probabilities = probabilities if calibrated is None else calibrated
    if best_probabilities is not None:
        certainty = best_probabilities[np.arange(len(tested)), predicted]
        signals = {"probability": certainty, **signals}
    scores_of_all = best_probabilities if best_probabilities is not None else _pooled([each.scores for each in results])
    order = np.flatnonzero(~correct)
    if scores_of_all is not None:
        order = order[np.argsort(-scores_of_all[order, predicted[order]], kind="stable")]
    result.wrong = [
        _wrong_item(
            rows,
            tested[i],
            names[truth[i]],
            names[predicted[i]],
            None if best_probabilities is None else float(best_probabilities[i, predicted[i]]),
        )
        for i in order[:MAX_WRONG]
    ]
    for signal, confidence in signals.items():
        curve = risk_coverage(confidence, correct)
        kept = np.unique(np.linspace(0, len(curve.coverage) - 1, CURVE_POINTS).round().astype(int))
        result.rejection.append(
            RiskCoverage(signal, curve.coverage[kept].tolist(), curve.risk[kept].tolist(), curve.area)
        )


def largest_errors(
    rows: EvaluationRows, y: npt.NDArray[np.float64], results: Sequence[ResampleResult]
) -> list[WrongItem]:
    """Return the rows whose numbers are predicted worst, of the first repeat, whose results are given."""
    tested = np.concatenate([rows.splits.resamples[i].test for i in first_repeat(rows)])
    truth, predicted = y[tested], np.concatenate([each.predicted for each in results])
    errors = np.abs(predicted - truth)
    return [
        _wrong_item(rows, tested[i], number(float(truth[i])), number(float(predicted[i])), None)
        for i in np.argsort(-errors, kind="stable")[:MAX_ERRORS]
        if errors[i] > 0
    ]


def _wrong_item(rows: EvaluationRows, row: int, actual: str, predicted: str, probability: float | None) -> WrongItem:
    item = rows.items.slice(row, 1).to_pylist()[0]
    return WrongItem(rows.ids[int(row)].as_py(), item["uri"], actual, predicted, probability, item.get("text"))


def _pooled(parts: Sequence[npt.NDArray[np.float64] | None]) -> npt.NDArray[np.float64] | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if len(arrays) == len(parts) else None


def _reliability(probabilities: npt.NDArray[np.float64] | None, truth: npt.NDArray[np.int64]) -> Reliability | None:
    if probabilities is None:
        return None
    errors = calibration_errors(probabilities, truth)
    predictions = PredictedRows(truth, probabilities.argmax(axis=1), probabilities, n_classes=probabilities.shape[1])
    metrics = predictions.metrics()
    return Reliability(
        errors.confidence.tolist(),
        errors.accuracy.tolist(),
        errors.rows.tolist(),
        errors.ece,
        errors.debiased,
        metrics["brier"],
        metrics["log_loss"],
    )
