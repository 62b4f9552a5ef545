"""What is said of a candidate's classes: calibration, confusions, what rejection gains, the most confidently wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from embedpipe.evaluation.comparison.measuring import Measured
from embedpipe.evaluation.comparison.result import CandidateResult, ClassScores, Reliability, RiskCoverage, WrongItem
from embedpipe.evaluation.comparison.rows import EvaluationRows
from embedpipe.evaluation.metrics import Answers
from embedpipe.neighbours import nearest_rows, normalised
from embedpipe.statistics import calibration_errors, risk_coverage

#: Neighbours whose mean distance says how unlike the training rows a row is.
NEIGHBOURS = 5
#: Of a candidate, the most confidently wrong.
MOST_WRONG = 24
#: Points of a curve that are kept.
POINTS = 200


def first_repeat(rows: EvaluationRows) -> list[int]:
    """Return the resamples of the first repeat, in which each row is tested once."""
    seed = rows.splits.resamples[0].seed
    return [i for i, one in enumerate(rows.splits.resamples) if one.seed == seed]


def distances_to_training_rows(X: npt.NDArray[np.float32], rows: EvaluationRows) -> list[npt.NDArray[np.float64]]:
    """Return 1 - mean cosine to the nearest training rows, for the test rows of the first repeat."""
    unit, found = normalised(X), []
    for i in first_repeat(rows):
        one = rows.splits.resamples[i]
        cosines, _ = nearest_rows(unit[one.test], unit[one.train], min(NEIGHBOURS, len(one.train)), "cosine")
        found.append(1 - cosines.mean(axis=1))
    return found


def add_class_details(
    result: CandidateResult,
    rows: EvaluationRows,
    y: npt.NDArray[np.int64],
    classes: npt.NDArray[Any],
    measured: Sequence[Measured],
    distances: Sequence[npt.NDArray[np.float64]],
) -> None:
    """Add what is said of classes, pooled over the resamples of the first repeat.

    Parameters
    ----------
    y : int64 array (n_samples,)
    classes : array (n_classes,)
    measured : sequence of Measured
        Of the resamples of the first repeat.
    distances : sequence of float64 arrays
        As `distances_to_training_rows` gives them.
    """
    tested = np.concatenate([rows.splits.resamples[i].test for i in first_repeat(rows)])
    truth, predicted = y[tested], np.concatenate([one.predicted for one in measured])
    own = _pooled([one.probabilities for one in measured])
    calibrated = _pooled([one.calibrated for one in measured])
    result.calibration, result.calibrated = _reliability(own, truth), _reliability(calibrated, truth)
    names = [str(name) for name in classes.tolist()]
    each = precision_recall_fscore_support(truth, predicted, labels=np.arange(len(names)), zero_division=0)
    result.per_class = [
        ClassScores(name, int(count), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, count in zip(names, *each, strict=True)
    ]
    result.confusion = confusion_matrix(truth, predicted, labels=np.arange(len(names))).tolist()
    right = predicted == truth
    signals = {"distance": -np.concatenate(distances)}
    shares = own if calibrated is None else calibrated
    if shares is not None:
        sure = shares[np.arange(len(tested)), predicted]
        signals = {"probability": sure, **signals}
        wrong = np.flatnonzero(~right)
        ids = rows.ids.take(pa.array(tested))
        result.wrong = [
            WrongItem(
                ids[int(i)].as_py(),
                rows.uris[tested[i]],
                names[truth[i]],
                names[predicted[i]],
                float(sure[i]),
                rows.texts[tested[i]],
            )
            for i in wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_WRONG]
        ]
    for signal, confidence in signals.items():
        curve = risk_coverage(confidence, right)
        kept = np.unique(np.linspace(0, len(curve.coverage) - 1, POINTS).round().astype(int))
        result.rejection.append(
            RiskCoverage(signal, curve.coverage[kept].tolist(), curve.risk[kept].tolist(), curve.area)
        )


def _pooled(parts: Sequence[npt.NDArray[np.float64] | None]) -> npt.NDArray[np.float64] | None:
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if len(given) == len(parts) else None


def _reliability(shares: npt.NDArray[np.float64] | None, truth: npt.NDArray[np.int64]) -> Reliability | None:
    if shares is None:
        return None
    found = calibration_errors(shares, truth)
    said = Answers(truth, shares.argmax(axis=1), shares, n_classes=shares.shape[1]).figures()
    return Reliability(
        found.confidence.tolist(),
        found.accuracy.tolist(),
        found.rows.tolist(),
        found.ece,
        found.debiased,
        said["brier"],
        said["log_loss"],
    )
