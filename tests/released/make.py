"""Write what this version of embedpipe leaves on disk into ``tests/released/VERSION``: once for each release.

Run ``PYTHONPATH=tests python tests/released/make.py``. Later versions must read it for ever: `test_released.py`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore

NAMES = np.array(["cat", "dog", "owl"])
#: What tells of this machine is not kept: the place of the store.
STORE = "photos.features"


def make(to: Path) -> None:
    """Write a store of 24 rows with a failure, an index, two heads, splits and an evaluation into a folder."""
    shutil.rmtree(to, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STORE
        X, y = clusters(24)
        store = make_store(path, X, label=NAMES[y], price=np.round(X[:, 0] + y, 2))
        store.label(pa.table({"id": ["row-000"], "label": ["dog"]}))
        store.refresh()
        store.compact()
        store = FeatureStore(path)
        expected = {"ids": store.ids(), "labels": store.to_arrow(["label"])["label"].to_pylist()}
        expected["vectors"] = store.to_numpy().tolist()
        labels = np.array(expected["labels"])
        splits = embedpipe.make_splits(store.ids(), labels, task="classification", folds=3, repeats=1)
        splits.save(Path(folder) / "splits.parquet")
        result = embedpipe.evaluate([store], heads=["centroid"], splits=splits)
        result.save(Path(folder) / "evaluation.json")
        for name in ("logreg", "knn"):
            head = embedpipe.fit(store, name, folds=2)
            expected[name] = head.predict(store)["probability_cat"].to_pylist()
            head.report.seconds = 0.0
            dataclasses.replace(head, store=STORE).save(Path(folder) / f"{name}.head")
        (Path(folder) / "expected.json").write_text(json.dumps(expected))
        shutil.copytree(folder, to)


if __name__ == "__main__":
    make(Path(__file__).parent / embedpipe.__version__)
