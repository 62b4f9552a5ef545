"""How good are probabilities that few labels have calibrated, by how much each row may belong to another class?

    python benchmarks/calibration_of_few.py [STORE...] [--label LABEL] [--json FILE]

Made-up rows of five classes, nearly all of which heads predict rightly (easy) or four of five (middle), and the last
layer of stores. A head is fitted on some rows and calibrated on their out-of-fold predictions; the log-loss is that of
1,000 other rows, 1,500 of a store, of which none costs more than 36. Means over draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import make_parser, markdown_table, write_json
from scipy.special import log_softmax

from embedpipe import FeatureStore
from embedpipe.estimators import FaissKNNClassifier, ShrunkenLDA, TunedLogisticRegression, TunedRidgeClassifier
from embedpipe.estimators.wrappers import calibration

HEADS: dict[str, Callable[[], Any]] = {
    "logreg": lambda: TunedLogisticRegression([0.1]),
    "lda": ShrunkenLDA,
    "ridge": lambda: TunedRidgeClassifier([100.0]),
    "knn": lambda: FaissKNNClassifier(10, weights="softmax", metric="cosine"),
}
#: Name -> the share of a row that may belong to another class, by the number of rows.
DOUBTS: dict[str, Callable[[int], float]] = {
    "none": lambda n: 0.0,
    "1/(4n+4)": lambda n: 0.25 / (n + 1),
    "1/(2n+2)": lambda n: 0.5 / (n + 1),
    "1/(n+2)": lambda n: 1 / (n + 2),
}
#: Rows that are drawn, and draws.
DRAWS = {20: 4, 40: 3, 60: 4, 100: 4}
#: What a probability of 0 costs.
MOST = 36.04

Drawn = tuple[Any, Any, Any, Any]


def made_up(distance: float) -> Callable[[int, int], Drawn]:
    """Return what draws training rows, their classes, test rows and their classes around centres."""

    def draw(seed: int, rows: int) -> Drawn:
        rng = np.random.default_rng(seed)
        centres = distance * rng.standard_normal((5, 64))

        def around(count: int) -> tuple[Any, Any]:
            y = rng.permutation(np.arange(count) % 5)
            return (centres[y] + 1.5 * rng.standard_normal((count, 64))).astype(np.float32), y

        return (*around(rows), *around(1000))

    return draw


def of_store(path: Path, label: str) -> Callable[[int, int], Drawn]:
    """Return what draws rows of a store, with two classes of two training rows or more."""
    store = FeatureStore(path)
    X, y = store.to_numpy(label, layer=[*store.layers][-1])

    def draw(seed: int, rows: int) -> Drawn:
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(y))
            train, test = order[:rows], order[rows : rows + 1500]
            if (np.unique(y[train], return_counts=True)[1] > 1).sum() > 1:
                return X[train], y[train], X[test], y[test]

    return draw


def losses(make: Callable[[], Any], drawn: Drawn) -> list[float]:
    """Return the log-loss of test rows with each of `DOUBTS`."""
    X, y, new, truth = drawn
    given: list[Any] = []
    plain = calibration.best_temperature

    def keep(logits: Any, labels: Any, weights: Any, *, doubt: float) -> float:
        given[:] = logits, labels
        return plain(logits, labels, weights, doubt=doubt)

    with (
        mock.patch.object(calibration, "best_temperature", keep),
        mock.patch.object(calibration, "FLOORS", (calibration.DEFAULT_FLOOR,)),
    ):
        model = calibration.TemperatureCalibratedClassifier(make()).fit(X, y)
    known = np.isin(truth, model.classes_)
    logits = calibration._logits(calibration._outputs(model.estimator_, new[known]), model.floor_)
    at = np.arange(len(logits)), np.searchsorted(model.classes_, truth[known])
    temperatures = [plain(*given, None, doubt=doubt(len(given[1]))) for doubt in DOUBTS.values()]
    return [float(np.minimum(-log_softmax(logits / each, axis=1)[at], MOST).mean()) for each in temperatures]


def main() -> int:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", type=Path, nargs="*", metavar="STORE")
    parser.add_argument("--label", default="label", help="column of the labels (default: label)")
    options = parser.parse_args()
    data = {"easy": (made_up(1.0), (20, 40, 100)), "middle": (made_up(0.6), (40,))}
    data |= {path.stem: (of_store(path, options.label), (20, 60)) for path in options.stores}
    rows, results = [["data", "rows", "head", *DOUBTS]], []
    for name, (draw, counts) in data.items():
        for count in counts:
            for head, make in HEADS.items():
                measured = [losses(make, draw(seed, count)) for seed in range(DRAWS[count])]
                means = np.mean(measured, axis=0).tolist()
                results.append({"data": name, "rows": count, "head": head, **dict(zip(DOUBTS, means, strict=True))})
                rows.append([name, str(count), head, *(f"{value:.3f}" for value in means)])
    print(markdown_table(rows, left=(0, 2)))
    write_json(options, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
