"""How good are the default backbone's frozen features? elpv 0 vs 1 by 5 folds, clothing by its own splits.

    python benchmarks/accuracy.py [--clothing FOLDER] [--stores FOLDER]

The clothing folder has train, validation and test class folders. C is chosen on the validation split alone, by
log-loss: accuracy on 341 photos is flat from C = 0.001 to 0.1. The test split is scored with that C
only. Stores are kept in --stores, so that a second run is quick.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import embedpipe

C_VALUES = (0.0001, 0.001, 0.01, 0.1, 1.0)


def head(C: float) -> Pipeline:
    """Return a scaler and a logistic regression."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))


def elpv(stores: Path) -> dict[str, float]:
    """Return the 5-fold accuracy on whole (0) against defective (1) solar cells."""
    data = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    table = pa.table(
        {
            "id": [row[0] for row in rows],
            "path": [str(data / row[0]) for row in rows],
            "label": [float(row[1]) for row in rows],
            "cell_type": [row[2] for row in rows],
        }
    )
    X, y = embedpipe.embed(table, stores / "elpv.features").to_numpy(label="label")
    sure = (y == 0) | (y == 1)
    X, y = X[sure], y[sure]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(head(0.01), X, y, cv=folds)
    areas = cross_val_score(head(0.01), X, y, cv=folds, scoring="roc_auc")
    majority = max(np.mean(y == 0), np.mean(y == 1))
    return {
        "rows": len(y),
        "majority": majority,
        "accuracy": scores.mean(),
        "accuracy_sd": scores.std(),
        "roc_auc": areas.mean(),
        "roc_auc_sd": areas.std(),
    }


def clothing(folder: Path, stores: Path) -> dict[str, float]:
    """Return the test accuracy with C chosen on the validation split."""
    store = embedpipe.embed(folder, stores / "clothing.features")
    splits = {name: store.to_numpy(label="label", split=name) for name in ("train", "validation", "test")}
    X, y = splits["validation"]
    models = {C: head(C).fit(*splits["train"]) for C in C_VALUES}
    losses = {C: log_loss(y, model.predict_proba(X)) for C, model in models.items()}
    best = min(losses, key=losses.__getitem__)
    return {
        "C": best,
        "validation_log_loss": losses[best],
        "validation": models[best].score(X, y),
        "test": models[best].score(*splits["test"]),
    }


def main() -> None:
    """Print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clothing", type=Path, default=Path("../shared/data/clothing"))
    parser.add_argument("--stores", type=Path, default=Path(tempfile.gettempdir()) / "embedpipe-accuracy")
    options = parser.parse_args()
    results = {"elpv": elpv(options.stores)}
    if options.clothing.is_dir():
        results["clothing"] = clothing(options.clothing, options.stores)
    else:
        print(f"clothing is left out: no folder {options.clothing}")
    for name, figures in results.items():
        print(name, ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
