"""The protocol ``retrieval`` against plain definitions and scikit-learn; intervals, verdicts, table, page and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command import run
from sklearn.metrics import average_precision_score, ndcg_score
from stored import clusters, make_store

from embedpipe.errors import UsageError
from embedpipe.evaluation import evaluate, load_evaluation, run_protocol
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.protocols import retrieval
from embedpipe.evaluation.protocols.intervals import compare_layers

SPLIT = ["test" if i % 10 < 3 else "train" for i in range(120)]


def cosines(X: npt.NDArray[Any], gallery: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X.astype(float), gallery.astype(float))]
    return np.asarray(unit[0] @ unit[1].T)


@pytest.mark.parametrize("block", [1 << 25, 1 << 10], ids=["at once", "query by query"])
def test_metrics_are_those_of_scikit_learn_and_of_their_definitions(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    X, y = clusters(150, 4, spread=1.5)
    Q, y_test = clusters(40, 4, spread=1.5, seed=3)
    result = run_protocol("retrieval", X, y, Q, y_test)
    scores, relevant = cosines(Q, X), y_test[:, None] == y
    expected = {
        "map": [average_precision_score(row, score) for row, score in zip(relevant, scores, strict=True)],
        "ndcg_10": ndcg_score(relevant, scores, k=10),
        **{
            f"recall_{k}": [row[np.argsort(-score)[:k]].any() for row, score in zip(relevant, scores, strict=True)]
            for k in (1, 5, 10)
        },
    }
    assert result.metrics == pytest.approx({name: np.mean(values) for name, values in expected.items()})
    assert [row["k"] for row in result.details] == [1, 5, 10]
    assert result.details[0]["precision"] == result.metrics["recall_1"]


def test_copies_tie_and_the_lower_row_comes_first() -> None:
    X = np.array([[1.0, 2.0], [1.0, 2.0], [0.3, 1.0]], np.float32)
    values, nearest = retrieval.measure_queries(X[:1] * 3, np.array([1]), X, np.array([0, 1, 1]), [1, 2])
    assert nearest.tolist() == [0]
    assert values["map"].tolist() == [(1 / 2 + 2 / 3) / 2]
    assert values["recall_1"].tolist() == [0.0]
    assert values["ndcg_2"].tolist() == pytest.approx([(1 / np.log2(3)) / (1 + 1 / np.log2(3))])


def test_intervals_contain_the_truth_and_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(300)
    easy = rng.random(300)
    good, bad = (easy > 0.2).astype(float), (easy > 0.5).astype(float)
    (of_bad, worse), (of_good, best) = compare_layers([{"map": bad}, {"map": good}], rows, 0.01)
    assert best is None
    assert worse is not None
    assert worse.verdict == "worse"
    assert worse.estimate.value == pytest.approx(bad.mean() - good.mean())
    spread = of_good["map"].high - of_good["map"].low
    assert spread == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 300), rel=0.2)
    (grouped, _), *_ = compare_layers([{"map": good}], rows // 30, 0.01)
    assert grouped["map"].high - grouped["map"].low > 0.8 * spread
    assert of_bad["map"].low < 0.5 < of_bad["map"].high
    ((alike, _),) = compare_layers([{"map": np.ones(20)}], rows[:20], 0.01)
    assert (alike["map"].low, alike["map"].high) == (pytest.approx(0.8316, abs=1e-3), 1.0)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The retrieval of a store whose vectors are noisy, and of one whose are not."""
    folder = tmp_path_factory.mktemp("compared")
    X, y = clusters(120, spread=0.8)
    names = np.array(["cat", "dog", "owl"])[y]
    good = make_store(folder / "good", X, label=names, split=SPLIT)
    noise = np.random.default_rng(0).normal(size=X.shape)
    poor = make_store(folder / "poor", X + 4 * noise, "other", label=names, split=SPLIT)
    return evaluate([poor, good], protocol="retrieval", progress=False)


def test_layers_are_compared(compared: Any) -> None:
    records = compared.records()
    assert [record["verdict"] for record in records] == ["worse", "best"]
    for record in records:
        assert record["map_low"] < record["map"] < record["map_high"]


def test_table_and_page_show_the_metrics(compared: Any, tmp_path: Path) -> None:
    assert compared.to_table(tmp_path / "table.md") == []
    table = (tmp_path / "table.md").read_text()
    assert "| Backbone | mAP (%) | Recall@1 (%) |" in table
    assert f"**{100 * compared.records()[1]['map']:.1f}**" in table
    assert "bootstrap over the test rows" in table
    assert "recall@10" in compared.to_html(tmp_path / "page.html").read_text().lower()


def test_saved_result_is_loaded_and_printed(compared: Any, tmp_path: Path) -> None:
    compared.save(tmp_path / "results.json")
    assert load_evaluation(tmp_path / "results.json") == compared
    printed = run("evaluate", str(tmp_path / "results.json"))
    assert printed.exit_code == 0
    assert "verdict on mAP" in printed.stdout
    assert f"{100 * compared.records()[1]['map']:.1f} % (" in printed.stdout


def test_folds_query_each_other(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.5)
    result = evaluate(make_store(tmp_path / "s", X, label=y), protocol="retrieval", folds=3, progress=False)
    (layer,) = result.layers
    assert len(layer.results) == 3
    counts = [each.settings["queries"] for each in layer.results]
    pooled = np.average([each.metrics["map"] for each in layer.results], weights=counts)
    assert layer.metrics["map"] == pytest.approx(pooled)
    assert "verdict" not in result.records()[0]


@pytest.mark.parametrize("metric", ["map", "mAP", "recall@5", "ndcg_10"])
def test_metric_of_retrieval_is_pointed_at_its_protocol(metric: str) -> None:
    with pytest.raises(UsageError, match=f"metric='{metric}' is of retrieval, .* give protocol='retrieval'"):
        EvaluateOptions(metric=metric)
