"""What needs no network loads no torch: one new interpreter does one thing after the other."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from stored import clusters, make_store

from embedpipe.estimators import TunedRidge

MODULES = (
    "sources",
    "decoding",
    "store",
    "backbones.spec",
    "embedding.run",
    "backbones.pending",
    "backbones.reload",
    "heads.fit",
    "heads.saving",
    "querying.search",
    "finetuning.advice.verdict",
    "finetuning.benchmark.corruptions",
    "heads.conversion.linear_head",
    "jobs.running",
    "cli",
)
#: What is done, in this order; ``answer`` is looked at.
STEPS = {
    "load a pickled estimator": """
import pickle
with open("ridge.pickle", "rb") as file:
    answer = pickle.load(file).predict([[3.0]]).tolist()
""",
    "options of backbones": """
import embedpipe.backbones
embedpipe.backbones.BackboneOptions(), embedpipe.backbones.LayerSpec
""",
    **{f"import {name}": f"import embedpipe.{name}" for name in MODULES},
    "fit on the processor": """
import numpy as np
from embedpipe.estimators import ShrunkenLDA, TunedLogisticRegression, TunedRidgeClassifier
X, y = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 2
for kind in (TunedLogisticRegression, TunedRidgeClassifier, ShrunkenLDA):
    kind().fit(X, y)
""",
    "search an image store by words": """
try:
    embedpipe.search("1.features", "a red dress")
except embedpipe.EmbedpipeError as error:
    answer = str(error)
""",
    "rank stores": """
from pathlib import Path
embedpipe.rank([Path("1.features"), Path("2.features")], progress=False)
""",
}
RUN = """
import json, sys
steps, report = json.load(sys.stdin), {}
names = {}
for step, code in steps.items():
    names["answer"] = None
    exec(code, names)
    report[step] = [names["answer"], "torch" in sys.modules]
print(json.dumps(report))
"""


def fitted_ridge() -> TunedRidge:
    rows = np.arange(12.0)[:, None]
    return TunedRidge().fit(rows, rows[:, 0])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, bool]]:
    """The answer of each step, and whether torch was loaded after it."""
    folder = tmp_path_factory.mktemp("torch")
    for seed in (1, 2):
        X, y = clusters(60, seed=seed)
        make_store(folder / f"{seed}.features", X, f"spread{seed}", label=y.tolist())
    (folder / "ridge.pickle").write_bytes(pickle.dumps(fitted_ridge()))
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(STEPS), cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    answers: dict[str, tuple[Any, bool]] = json.loads(done.stdout)
    return answers


def test_nothing_without_a_network_loads_torch(report: dict[str, tuple[Any, bool]]) -> None:
    assert [step for step, (_, loaded) in report.items() if loaded] == []
    assert [*report] == [*STEPS]


def test_pickled_estimator_loads_in_a_new_process(report: dict[str, tuple[Any, bool]]) -> None:
    assert report["load a pickled estimator"][0] == fitted_ridge().predict([[3.0]]).tolist()


def test_words_are_refused_without_loading_a_network(report: dict[str, tuple[Any, bool]]) -> None:
    message = report["search an image store by words"][0]
    assert "cannot be searched by words: embed them with open_clip/MODEL:TAG" in message
