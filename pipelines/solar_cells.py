"""Defective or not: 2,624 electroluminescence photos of solar cells, one frozen network, one linear model.

The photos and the experts' defect probabilities are PyPI's elpv-dataset
(Buerhop-Lutz et al., EU PVSEC 2018; CC BY-NC-SA).

    python pipelines/solar_cells.py [--output demo-output]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import embedpipe

#: Chosen beforehand for a few thousand rows of 1,280 features, not tuned on these photos.
C = 0.01
FOLDS = 5


def find_photos() -> pa.Table:
    """Return one row a photo: id, image (path), label, the experts' defect probability and the cell type."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise SystemExit("elpv-dataset is not installed: run `make install`, or `pip install elpv-dataset`")
    data = Path(package.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines() if line.strip()]
    paths, probabilities, types = zip(*rows, strict=True)
    return pa.table(
        {
            "id": list(paths),
            "image": [str(data / path) for path in paths],
            "label": [{0: "intact", 1: "defective"}.get(float(value), "in doubt") for value in probabilities],
            "defect_probability": [float(value) for value in probabilities],
            "cell_type": list(types),
        }
    )


def cross_validate(X: npt.NDArray[np.float32], y: npt.NDArray[np.bool_]) -> dict[str, list[float]]:
    """Return accuracy, ROC AUC and the majority class's accuracy on each held-out fold."""
    scores: dict[str, list[float]] = {"accuracy": [], "ROC AUC": [], "majority": []}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y)
    for train, test in track(folds, "cross-validating", FOLDS, console=Console(stderr=True), transient=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
        chance = model.fit(X[train], y[train]).predict_proba(X[test])[:, 1]
        scores["accuracy"].append(accuracy_score(y[test], chance > 0.5))
        scores["ROC AUC"].append(roc_auc_score(y[test], chance))
        majority = y[train].mean() > 0.5
        scores["majority"].append(float((y[test] == majority).mean()))
    return scores


def score_table(scores: dict[str, list[float]], rows: int) -> Table:
    """Lay out the scores: mean and standard deviation over the folds."""
    table = Table(title=f"Defective or not: {rows:,} photos, {FOLDS}-fold cross-validation")
    for heading in ("", "accuracy", "ROC AUC"):
        table.add_column(heading, justify="left" if not heading else "right")

    def cell(name: str) -> str:
        return f"{np.mean(scores[name]):.3f} ± {np.std(scores[name], ddof=1):.3f}"

    table.add_row("logistic regression on frozen features", cell("accuracy"), cell("ROC AUC"), style="bold")
    table.add_row("always the majority class", cell("majority"), "0.500")
    return table


def main() -> None:
    """Embed, cross-validate, draw the map, and say how to go on with other photos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for store and map")
    output = parser.parse_args().output
    out = Console(highlight=False, soft_wrap=True)
    start = time.perf_counter()

    features = output / "solar-cells.features"
    out.print("[bold]1. Embed[/] the photos of elpv-dataset once, with the default backbone")
    store = embedpipe.embed(find_photos(), to=features, progress=True)
    run = store.summary
    counts = f"{run.embedded:,} embedded, {run.reused:,} reused, {run.failed:,} failed"
    out.print(f"   {counts}, in {run.seconds:.1f} s ({store.spec.provider}/{store.spec.name} on {run.device})")
    out.print(f"   the store: {features}, {len(store):,} rows, version {store.version}\n")

    out.print("[bold]2. Fit[/] scikit-learn's logistic regression on the stored features")
    X, label = store.to_numpy(label="label")
    sure = label != "in doubt"
    scores = cross_validate(X[sure], label[sure] == "defective")
    out.print(score_table(scores, int(sure.sum())))
    out.print(
        f"   Probability 1 against 0; {int((~sure).sum()):,} photos that the experts were in doubt about are left out."
    )
    out.print("   Mean and spread over the folds. Cells of one solar module may be on both sides of a split,")
    out.print("   so expect somewhat less on modules never seen.\n")

    picture = output / "solar-cells.png"
    out.print("[bold]3. Draw[/] a map of the store, coloured by defect probability")
    embedpipe.draw_map(store, picture, label="defect_probability", progress=True)
    out.print(f"   {picture}\n")

    out.print(f"Done in {time.perf_counter() - start:.0f} s. The same on your own folder of photos:\n")
    for words in ("embed PHOTOS --to my.features", "info my.features", "map my.features --to map.png"):
        out.print(f"   .venv/bin/embedpipe {words}")
    out.print("   .venv/bin/embedpipe verify my.features")


if __name__ == "__main__":
    main()
