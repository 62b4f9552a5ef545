"""How much faster is the choice of C, and how much memory does it take, than with scikit-learn's defaults?

    python benchmarks/c_sweep.py [--rows 50000] [--dim 512] [--classes 10 100] [--rounds 1] [--once] [--device cuda]

Both standardise float32 features, fit every C of the same seven on the same 5 stratified folds, choose by held-out
log-loss, and refit on all rows: `TunedLogisticRegression`, and `GridSearchCV` around `VarianceFloorScaler` and
`LogisticRegression` with their defaults (max_iter 1000, or it would not converge). Each runs in a process of its own,
one after the other, in turns; memory is that process's peak above what it had with the matrix loaded, plus the
matrix. Test accuracy is of 10,000 rows that neither saw. With ``--once`` scikit-learn only fits all rows with the C
that ours chose, 1 fit of its 36, for where its sweep takes hours: the ratio is of that one fit to our whole sweep.

With ``--device`` a third way fits ours on that device, from the matrix in memory to a model of NumPy's arrays. Loading
torch and starting the device are told apart; the largest difference of a test probability is to ours on the processor.
A GPU's question: `--rows 100000 --dim 1024 --classes 50 --device cuda`.

The features are made up: columns correlated as those of networks are (a spectrum that falls as a power), classes as
linear functions of them with noise, so that the best C lies inside the grid.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from common import make_parser, write_json

CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS, TEST = 5, 10_000
OURS, THEIRS, DEVICE = WAYS = ("embedpipe", "scikit-learn", "embedpipe on the device")


def make_data(rows: int, dim: int, classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors of falling spectrum, float32 (rows, dim), and classes that are linear in them but for noise."""
    rng = np.random.default_rng(0)
    mix = np.linalg.qr(rng.standard_normal((dim, dim)))[0] * (np.arange(1, dim + 1) ** -0.6)[:, None]
    X = rng.standard_normal((rows, dim), np.float32) @ mix.astype(np.float32)
    X += np.abs(rng.standard_normal(dim)).astype(np.float32)
    directions = rng.standard_normal((dim, classes)).astype(np.float32) / np.sqrt(dim)
    scores = (X - X.mean(axis=0)) / X.std(axis=0) @ directions
    y = (scores * 3 / scores.std() + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return X, y


def run(
    way: str, rows: int, dim: int, classes: int, device: str | None, given: float | None, probabilities: Path
) -> dict[str, Any]:
    """Choose C and refit in this process; return seconds, memory, accuracy and C; save the test probabilities."""
    X, y = make_data(rows + TEST, dim, classes)
    train, test = slice(0, rows), slice(rows, None)
    matrix = X[train].nbytes
    process, stop, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    from sklearn.model_selection import StratifiedKFold

    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X[train, :1], y[train]))
    started = time.perf_counter()
    if way != THEIRS:
        from embedpipe.estimators import TunedLogisticRegression

        model: Any = TunedLogisticRegression(CS, cv=folds, device=device if way == DEVICE else None)
        if way == DEVICE:
            from embedpipe.estimators.solvers.torch_matrix import usable_device

            usable_device(str(device))  # which computes on it
    else:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline

        from embedpipe import VarianceFloorScaler

        pipeline = make_pipeline(VarianceFloorScaler(), LogisticRegression(C=given or 1.0, max_iter=1000))
        model = (
            pipeline
            if given
            else GridSearchCV(pipeline, {"logisticregression__C": CS}, scoring="neg_log_loss", cv=folds)
        )
    started = time.perf_counter() - started
    before = process.memory_info().rss
    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X[train], y[train])
    seconds = time.perf_counter() - start
    stop.set()
    thread.join()
    chosen = model.C_ if way != THEIRS else given or model.best_params_["logisticregression__C"]
    np.save(probabilities, model.predict_proba(X[test]))
    return {
        "seconds": seconds,
        "starting": started,
        "memory": (peak[0] - before + matrix) / matrix,
        "accuracy": float((model.predict(X[test]) == y[test]).mean()),
        "C": chosen,
    }


def main() -> None:
    """Print a line for each number of classes, and all numbers as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--once", action="store_true", help="scikit-learn fits once, with the C that ours chose")
    parser.add_argument("--device", help="fit ours there, too: cuda")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--given", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--probabilities", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.rows, options.dim, options.classes[0])
    if options.run:
        print(json.dumps(run(options.run, *size, options.device, options.given, options.probabilities)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run all ways in turns, each in a process of its own."""
    ways = WAYS if options.device else WAYS[:2]
    found: dict[str, Any] = {}
    for classes in options.classes:
        each: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way in ways:
                arguments = ["--rows", options.rows, "--dim", options.dim, "--classes", classes, "--run", way]
                arguments += ["--probabilities", folder / f"{way}.npy"]
                arguments += ["--device", options.device] if options.device else []
                if options.once and way == THEIRS:
                    arguments += ["--given", each[OURS][-1]["C"]]
                done = subprocess.run(
                    [sys.executable, __file__, *map(str, arguments)], check=True, capture_output=True, text=True
                )
                each[way].append(json.loads(done.stdout))
        found[f"{classes} classes"] = about = {**each}
        for way in ways:
            if way != THEIRS:
                pairs = zip(each[way], each[THEIRS], strict=True)
                about[f"{way}: times as fast"] = ratio = statistics.median(
                    b["seconds"] / a["seconds"] for a, b in pairs
                )
                print(f"{options.rows:,} x {options.dim}, {classes} classes, {way}: {ratio:.1f} times as fast")
        for way in ways:
            one = each[way][0]
            apart = np.abs(np.load(folder / f"{way}.npy") - np.load(folder / f"{OURS}.npy")).max()
            one["largest difference of a probability"] = float(apart)
            print(
                f"  {way}: {one['seconds']:.1f} s after {one['starting']:.1f} s of starting, peak {one['memory']:.2f} "
                f"x the matrix, C = {one['C']:g}, accuracy {one['accuracy']:.4f}, probabilities within {apart:.1e}",
                flush=True,
            )
    write_json(options, found)


if __name__ == "__main__":
    main()
