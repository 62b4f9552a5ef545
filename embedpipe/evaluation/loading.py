"""`load_evaluation`: read the results that `Evaluation.save` wrote, checked field by field; no code is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpipe._utils.checksums import read_json
from embedpipe._utils.version import other_format
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.candidate_result import CandidateResult
from embedpipe.evaluation.comparison.result import Evaluation
from embedpipe.evaluation.grid import EvaluationGrid
from embedpipe.evaluation.metrics import METRICS
from embedpipe.evaluation.protocols.measure import ProtocolEvaluation
from embedpipe.evaluation.records import from_record
from embedpipe.evaluation.saving import FORMAT

KINDS: dict[str, type[Evaluation | EvaluationGrid | ProtocolEvaluation]] = {
    "evaluation": Evaluation,
    "datasets": EvaluationGrid,
    "protocol": ProtocolEvaluation,
}
VERDICTS = ("better", "equivalent", "undecided", "worse")
SIGNALS = ("probability", "distance")


def load_evaluation(path: str | Path) -> Evaluation | EvaluationGrid | ProtocolEvaluation:
    """Load what `Evaluation.save` or ``embedpipe evaluate --to results.json`` wrote.

    The result is equal to what was saved: it can be written again as a page or a table, without the stores.

    Parameters
    ----------
    path : str or path-like
        A ``.json`` file.

    Returns
    -------
    Evaluation, EvaluationGrid or ProtocolEvaluation
        Whatever was saved.

    Raises
    ------
    UsageError
        If the file is missing, is no file of results, is damaged or was edited, or its values do not fit each other.

    Notes
    -----
    Nothing in the file is run. Pictures of a page are read from where the results say that the items are, as those of a
    feature store are; ``to_html(pictures=False)`` reads none.

    Examples
    --------
    >>> import embedpipe
    >>> evaluation = embedpipe.evaluate("photos.features", heads=["lda", "knn"], repeats=1)
    >>> evaluation.save("results.json")
    []
    >>> embedpipe.load_evaluation("results.json") == evaluation
    True
    """
    name = repr(str(path))
    try:
        values = read_json(Path(path))
    except FileNotFoundError:
        raise UsageError(f"{name} must be a file of saved results, and there is no such file") from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be read as saved results, it is damaged or was edited: {error}; evaluate again"
        ) from error
    if not isinstance(values.get("format"), int) or values.get("kind") not in KINDS:
        raise UsageError(f"{name} must hold results of `embedpipe evaluate --to`, and holds something else")
    if values["format"] != FORMAT:
        raise UsageError(f"{name} {other_format(values['format'], FORMAT, values.get('embedpipe'))}. Or evaluate again")
    try:
        results = from_record(KINDS[values["kind"]], values.get("results"), "results")
        _check(results)
    except (ValueError, RecursionError, OverflowError) as error:
        raise UsageError(f"{name} holds results that do not fit each other: {error}; evaluate again") from error
    loaded: Evaluation | EvaluationGrid | ProtocolEvaluation = results
    return loaded


def _check(results: Evaluation | EvaluationGrid | ProtocolEvaluation) -> None:
    """Raise ValueError where values do not fit each other, which tables and pages rely on."""
    if isinstance(results, ProtocolEvaluation):
        _require(bool(results.layers), "layers must not be empty")
        _require(all(layer.results for layer in results.layers), "every layer must have results")
        return
    if isinstance(results, EvaluationGrid):
        _require(bool(results.datasets), "datasets must not be empty")
        for evaluation in results.datasets.values():
            _check(evaluation)
        return
    known = METRICS[results.task]
    _require(results.metric in known, f"metric must be one of {', '.join(known)}")
    _require(results.n_repeats > 0 and results.n_folds > 0, "n_repeats and n_folds must be positive")
    _require(bool(results.candidates), "candidates must not be empty")
    _require(bool(results.classes) == (results.task == "classification"), "classes must be those of the task")
    names = [candidate.name for candidate in results.candidates]
    _require(len({*names}) == len(names), "names of candidates must be unique")
    for i, candidate in enumerate(results.candidates):
        _check_candidate(candidate, results, f"candidates[{i}]")
        _require(bool(candidate.difference) == bool(i), "every candidate but the first must have a difference")
    _check_predictions(results.predictions, names, len(results.classes))


def _check_candidate(candidate: CandidateResult, results: Evaluation, place: str) -> None:
    known, count = METRICS[results.task], len(results.classes)
    _require(results.metric in candidate.estimates, f"{place} must have an estimate of {results.metric}")
    _require(candidate.estimates.keys() == candidate.metrics.keys() <= known.keys(), f"{place} has unknown metrics")
    lengths = {len(values) for values in candidate.metrics.values()}
    _require(lengths == {results.n_resamples}, f"{place}.metrics must have a value for each resample")
    _require(
        all(at.low <= at.value <= at.high for at in candidate.estimates.values()), f"{place}.estimates are no intervals"
    )
    if candidate.difference is not None:
        _require(candidate.difference.verdict in VERDICTS, f"{place}.difference has an unknown verdict")
    _require([len(row) for row in candidate.confusion] == [count] * count, f"{place}.confusion must be square")
    _require(all(n >= 0 for row in candidate.confusion for n in row), f"{place}.confusion must be counts")
    named = [scores.name for scores in candidate.per_class]
    _require(named == results.classes, f"{place}.per_class must be the classes")
    for at in (candidate.calibration, candidate.calibrated):
        _require(at is None or len(at.confidence) == len(at.accuracy) == len(at.rows) > 0, f"{place} has wrong bins")
        _require(at is None or min(at.rows) >= 0, f"{place} must count rows")
    for curve in candidate.rejection:
        _require(curve.signal in SIGNALS, f"{place}.rejection has an unknown signal")
        _require(len(curve.coverage) == len(curve.risk) > 0, f"{place}.rejection has curves of several lengths")


def _check_predictions(predictions: pa.Table, names: list[str], classes: int) -> None:
    if not predictions.num_columns:
        return
    wanted = ["candidate", "resample", "id", "actual", "predicted", *(["probabilities"] if classes else [])]
    _require(predictions.column_names == wanted, f"predictions must have the columns {', '.join(wanted)}")
    _require({*predictions["candidate"].to_pylist()} <= {*names}, "predictions must be those of the candidates")
    if classes:
        lengths = {len(row) for row in predictions["probabilities"].to_pylist() if row is not None}
        _require(lengths <= {classes}, "probabilities must have a value for each class")


def _require(holds: Any, message: str) -> None:
    if not holds:
        raise ValueError(message)
