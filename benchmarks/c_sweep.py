"""How much faster is the choice of C than with scikit-learn's defaults, and how much memory does each take?

    python benchmarks/c_sweep.py [--rows 50000] [--dim 512] [--classes 10 100] [--rounds 1] [--once] [--device cuda]
        [--json FILE]

Both standardise float32 features, fit every C of the same seven on the same 5 stratified folds, choose by held-out
log-loss, and refit on all rows: `TunedLogisticRegression`, and `GridSearchCV` over `VarianceFloorScaler` and
`LogisticRegression` with their defaults (except max_iter 1000, without which it does not converge). Each runs in a
process of its own, one after the other, in turns. Memory is the peak of that process minus what was resident with the
matrix loaded, plus the matrix. Test accuracy is measured on 10,000 rows that neither saw. With ``--once`` scikit-learn
only fits all rows with the C that embedpipe chose, 1 fit of its 36, for sizes where its sweep takes hours: the ratio
then compares that single fit with the whole sweep of embedpipe.

With ``--device`` embedpipe is measured on that device too, from the matrix in memory to a model of NumPy arrays. The
time to load torch and start the device is printed separately. The largest difference of a test probability is that from
embedpipe on the processor. For a GPU: `--rows 100000 --dim 1024 --classes 50 --device cuda`.

The features are synthetic: columns are correlated like those of networks (a power-law spectrum), and classes are linear
functions of them plus noise, so that the best C lies inside the grid.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from common import make_parser, run_self, write_json

CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS, TEST = 5, 10_000
EMBEDPIPE, SKLEARN, ON_DEVICE = METHODS = ("embedpipe", "scikit-learn", "embedpipe on the device")


def make_data(rows: int, dim: int, classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors with a power-law spectrum, float32 (rows, dim), and classes that are linear in them plus noise."""
    rng = np.random.default_rng(0)
    mix = np.linalg.qr(rng.standard_normal((dim, dim)))[0] * (np.arange(1, dim + 1) ** -0.6)[:, None]
    X = rng.standard_normal((rows, dim), np.float32) @ mix.astype(np.float32)
    X += np.abs(rng.standard_normal(dim)).astype(np.float32)
    directions = rng.standard_normal((dim, classes)).astype(np.float32) / np.sqrt(dim)
    scores = (X - X.mean(axis=0)) / X.std(axis=0) @ directions
    y = (scores * 3 / scores.std() + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return X, y


def run(
    method: str, rows: int, dim: int, classes: int, device: str | None, C: float | None, probabilities: Path
) -> dict[str, Any]:
    """Choose C and refit in this process; save the test probabilities; return seconds, memory, accuracy and C."""
    X, y = make_data(rows + TEST, dim, classes)
    train, test = slice(0, rows), slice(rows, None)
    matrix = X[train].nbytes
    process, stop, peak = psutil.Process(), threading.Event(), [0]

    def watch_memory() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    from sklearn.model_selection import StratifiedKFold

    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X[train, :1], y[train]))
    start = time.perf_counter()
    if method != SKLEARN:
        from embedpipe.estimators import TunedLogisticRegression

        model: Any = TunedLogisticRegression(CS, cv=folds, device=device if method == ON_DEVICE else None)
        if method == ON_DEVICE:
            from embedpipe.estimators.solvers.torch_matrix import usable_device

            usable_device(str(device))  # starts the device by a computation
    else:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline

        from embedpipe import VarianceFloorScaler

        pipeline = make_pipeline(VarianceFloorScaler(), LogisticRegression(C=C or 1.0, max_iter=1000))
        model = (
            pipeline if C else GridSearchCV(pipeline, {"logisticregression__C": CS}, scoring="neg_log_loss", cv=folds)
        )
    start_seconds = time.perf_counter() - start
    before = process.memory_info().rss
    thread = threading.Thread(target=watch_memory)
    thread.start()
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X[train], y[train])
    seconds = time.perf_counter() - start
    stop.set()
    thread.join()
    chosen = model.C_ if method != SKLEARN else C or model.best_params_["logisticregression__C"]
    np.save(probabilities, model.predict_proba(X[test]))
    return {
        "seconds": seconds,
        "start seconds": start_seconds,
        "memory": (peak[0] - before + matrix) / matrix,
        "accuracy": float((model.predict(X[test]) == y[test]).mean()),
        "C": chosen,
    }


def main() -> None:
    """Print the ratios for each number of classes."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="training rows (default: 50,000)")
    parser.add_argument("--dim", type=int, default=512, help="number of features (default: 512)")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100], help="numbers of classes (10 and 100)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each method (default: 1)")
    parser.add_argument("--once", action="store_true", help="scikit-learn fits once, with the C that embedpipe chose")
    parser.add_argument("--device", help="measure embedpipe on this device too: cuda")
    parser.add_argument("--run", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--fixed-c", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--probabilities", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.rows, options.dim, options.classes[0])
    if options.run:
        print(json.dumps(run(options.run, *size, options.device, options.fixed_c, options.probabilities)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run all methods in turns, each in a process of its own."""
    methods = METHODS if options.device else METHODS[:2]
    results: dict[str, Any] = {}
    for classes in options.classes:
        runs: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
        for _ in range(options.rounds):
            for method in methods:
                arguments = ["--rows", options.rows, "--dim", options.dim, "--classes", classes, "--run", method]
                arguments += ["--probabilities", folder / f"{method}.npy"]
                arguments += ["--device", options.device] if options.device else []
                if options.once and method == SKLEARN:
                    arguments += ["--fixed-c", runs[EMBEDPIPE][-1]["C"]]
                runs[method].append(run_self(__file__, *arguments))
        result: dict[str, Any] = {**runs}
        results[f"{classes} classes"] = result
        for method in methods:
            if method != SKLEARN:
                pairs = zip(runs[method], runs[SKLEARN], strict=True)
                ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in pairs)
                result[f"{method}: times as fast"] = ratio
                print(f"{options.rows:,} x {options.dim}, {classes} classes, {method}: {ratio:.1f} times as fast")
        reference = np.load(folder / f"{EMBEDPIPE}.npy")
        for method in methods:
            first = runs[method][0]
            distance = float(np.abs(np.load(folder / f"{method}.npy") - reference).max())
            first["largest difference of a probability"] = distance
            print(
                f"  {method}: {first['seconds']:.1f} s after {first['start seconds']:.1f} s to start, peak "
                f"{first['memory']:.2f} x the matrix, C = {first['C']:g}, accuracy {first['accuracy']:.4f}, "
                f"probabilities within {distance:.1e}",
                flush=True,
            )
    write_json(options, results)


if __name__ == "__main__":
    main()
