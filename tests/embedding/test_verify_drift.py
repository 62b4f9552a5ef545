"""`embedpipe.verify`: drift of a cheaper precision or decoding, on stores of a small network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from command import run
from conftest import TINY
from tiny_text_backbone import TINY_TEXT

import embedpipe
from embedpipe.errors import UsageError


@pytest.fixture
def store(make_photos: Callable[..., Path], tmp_path: Path) -> embedpipe.FeatureStore:
    return embedpipe.embed(make_photos(36), tmp_path / "store", backbone=TINY)


def test_drift_of_bf16_is_measured(store: embedpipe.FeatureStore) -> None:
    report = embedpipe.verify(store, precision="bf16", trust=True)
    assert report.drift is not None
    (layer,) = report.drift.layers
    assert (report.drift.precision, report.drift.decode, report.drift.rows, layer.k) == ("bf16", "full", 36, 10)
    assert 0 < layer.median <= layer.p95 <= layer.largest < 0.01
    assert layer.neighbours_kept is not None
    assert 0.8 < layer.neighbours_kept <= 1
    assert layer.head is not None
    assert (layer.head.rows, layer.head.classes) == (36, 3)


def test_checks_use_the_precision_of_the_store(store: embedpipe.FeatureStore) -> None:
    report = embedpipe.verify(store, precision="bf16", trust=True)
    assert report.ok
    assert report.compared == 36
    assert report.min_cosine == pytest.approx(1)
    assert json.loads(json.dumps(report.to_dict()))["drift"]["layers"][0]["head"]["metric"] == "accuracy"


def test_drift_of_a_bf16_store_is_measured_by_default(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    store = embedpipe.embed(make_photos(15), tmp_path / "half", backbone=TINY, precision="bf16")
    report = embedpipe.verify(store, trust=True)
    assert report.ok
    assert report.drift is not None
    assert report.drift.layers[0].median > 0
    assert embedpipe.verify(store, trust=True, sample=0).drift is None


def test_scaled_decoding_of_small_images_has_no_drift(store: embedpipe.FeatureStore) -> None:
    report = embedpipe.verify(store, decode="scaled", sample=8, trust=True)
    assert report.drift is not None
    layer = report.drift.layers[0]
    assert (report.drift.precision, report.drift.decode) == ("fp32", "scaled")
    assert (layer.largest, layer.neighbours_kept, layer.nearest_kept) == (0, 1, 1)
    assert report.drift.no_head is not None
    assert "larger sample" in report.drift.no_head


def test_heads_use_the_given_label_column(store: embedpipe.FeatureStore) -> None:
    ids = store.ids()
    table = pa.table({"id": ids[:30], "label": [float(i) + 0.5 for i in range(30)]})
    store.label(table, into="weight")
    report = embedpipe.verify(store, precision="bf16", label="weight", trust=True)
    assert report.drift is not None
    head = report.drift.layers[0].head
    assert head is not None
    assert (head.metric, head.rows, head.left_out) == ("r2", 30, {"without a weight": 6})


def test_texts_without_labels_have_no_decode_and_no_heads(tmp_path: Path) -> None:
    words = [f"{a} {b} {c}" for a in ("red", "blue") for b in ("big", "small") for c in ("cat", "dog", "owl")]
    for i, text in enumerate(words):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{i}.txt").write_text(text)
    store = embedpipe.embed(tmp_path / "texts", tmp_path / "store", backbone=TINY_TEXT, modality="text")
    report = embedpipe.verify(store, precision="fp16", trust=True)
    assert report.drift is not None
    assert (report.drift.rows, report.drift.decode) == (12, None)
    assert report.drift.no_head is not None
    with pytest.raises(UsageError, match="decode is for stores of images"):
        embedpipe.verify(store, decode="scaled", trust=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp32"}, "is the reference of the drift"),
        ({"label": "label"}, "needs a cheaper setting"),
        ({"precision": "bf16", "label": "lable"}, "did you mean 'label'"),
        ({"precision": "bf16", "sample": 0}, "sample must be >= 1 to measure a drift, got 0"),
        ({"precision": "bf17"}, "bf17"),
        ({"decode": "scald"}, "did you mean 'scaled'"),
    ],
)
def test_invalid_arguments_of_drift_are_refused(
    store: embedpipe.FeatureStore, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        embedpipe.verify(store, trust=True, **options)


def test_command_prints_the_drift(store: embedpipe.FeatureStore) -> None:
    shown = run("verify", store.path, "--precision", "bf16", "--decode", "scaled", "--trust")
    assert shown.exit_code == 0, shown.output
    assert "drift of bf16, scaled decoding from fp32, full decoding, on 36 items" in shown.stdout
    for words in ("1 - cosine  median", "of the 10 nearest stay", "points (95 % interval", "36 items, 3 classes"):
        assert words in shown.stdout
    as_json = run("verify", store.path, "--precision", "bf16", "--trust", "--json")
    assert json.loads(as_json.stdout)["drift"]["precision"] == "bf16"
    assert "drift" not in run("verify", store.path, "--trust").stdout
