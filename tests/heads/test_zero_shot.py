"""Heads from class names: texts by word vectors that have a meaning, photos by a CLIP of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command import run
from stored import clusters, make_store
from tiny_clip import write_clip
from word_vector_file import write_vectors

from embedpipe import FeatureStore, embed, evaluate, fit, load_head
from embedpipe.backbones import load_backbone
from embedpipe.errors import UsageError
from embedpipe.heads.zero_shot.prompts import TEMPLATES, class_words, prompts_of

MESSAGES = {
    "animals": ["the cat and the dog", "cat cat dog", "a dog", "the cat", "dog and cat and dog", "cat"],
    "money": ["win a cash prize", "a loan from the bank", "cash", "the bank", "prize and cash", "bank loan"],
    "weather": ["rain and wind", "snow storm", "the storm", "wind", "snow and rain", "rain"],
}
CLASSES = "animals=cat dog,money=cash bank,weather=rain snow"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vectors(tmp_path_factory.mktemp("vectors") / "topics.txt")


@pytest.fixture
def texts(tmp_path: Path, vectors: Path) -> FeatureStore:
    """Return a store of messages without labels."""
    rows = [(f"{name}-{i}", text) for name, each in MESSAGES.items() for i, text in enumerate(each)]
    table = pa.table({"id": [id for id, _ in rows], "text": [text for _, text in rows]})
    return embed(table, tmp_path / "texts", backbone=f"word-vectors/{vectors}")


def labelled(store: FeatureStore) -> FeatureStore:
    store.label(pa.table({"id": store.ids(), "label": [id.partition("-")[0] for id in store.ids()]}))
    return store.refresh()


def test_words_of_classes() -> None:
    assert class_words((), ["T-Shirt", "ice_cream"]) == {"T-Shirt": "T-Shirt", "ice_cream": "ice cream"}
    assert class_words(("ham=a note, spam",), ["ham"]) == {"ham": "a note", "spam": "spam"}
    assert class_words((), ["a=b", "c"]) == {"a=b": "a=b", "c": "c"}
    assert prompts_of(["owl"], ["an {} at night"], "image") == [["an owl at night"]]
    assert len(prompts_of(["owl"], [], "image")[0]) == len(TEMPLATES["image"])


def test_no_label_is_needed(texts: FeatureStore, vectors: Path, tmp_path: Path) -> None:
    head = fit(texts, "zero-shot", classes=CLASSES, weights=str(vectors), to=tmp_path / "head")
    assert (head.name, head.report.rows, head.report.protocol) == ("zero-shot", 0, "not measured")
    assert head.report.notes == ["there are no labels: the head is not measured, and its temperature is the usual 0.05"]
    table = load_head(tmp_path / "head").predict(texts)
    assert table["label"].to_pylist() == [id.partition("-")[0] for id in table["id"].to_pylist()]
    assert "fitted_on" not in table.column_names


@pytest.mark.parametrize("name", ["zero-shot", "text-prior"])
def test_labels_calibrate_and_measure(texts: FeatureStore, vectors: Path, name: str) -> None:
    head = fit(labelled(texts), name, classes=CLASSES, weights=str(vectors), folds=3)
    assert head.name == name
    assert np.mean(head.report.metrics["accuracy"]) == 1
    assert head.report.chosen["temperature"] != 0.05
    assert head.predict(texts)["fitted_on"].to_pylist() == [True] * 18
    more = fit(texts.refresh(), name, classes=f"{CLASSES},food=loan", weights=str(vectors), folds=3)
    assert more.classes is not None
    assert more.classes.tolist() == ["animals", "food", "money", "weather"]
    assert np.mean(more.report.metrics["accuracy"]) > 0.8


def test_evaluate_compares_names_with_labels(texts: FeatureStore, vectors: Path) -> None:
    options: dict[str, Any] = {"classes": CLASSES, "weights": str(vectors), "repeats": 1, "folds": 3}
    options["near_duplicates"] = "off"
    result = evaluate(labelled(texts), heads=["zero-shot", "text-prior", "centroid"], **options)
    assert {each.name for each in result.candidates} == {"zero-shot", "text-prior", "centroid"}
    assert {each.estimates["accuracy"].value for each in result.candidates if each.name != "centroid"} == {1.0}
    with pytest.raises(UsageError, match="is for the heads zero-shot and text-prior: leave it out"):
        evaluate(texts, heads="centroid", **options)
    with pytest.raises(UsageError, match="must be classes that are measured, and no row has food"):
        evaluate(texts, heads="zero-shot", **{**options, "classes": f"{CLASSES},food"})


def test_photos_are_compared_with_the_text_encoder_of_their_backbone(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    clip = write_clip(tmp_path / "clip")
    store = embed(photos, tmp_path / "store", backbone=f"open_clip/local-dir:{clip}")
    head = fit(store, "zero-shot", templates=["a photo of a {}", "the {}"], weights=str(clip), folds=2)
    backbone = load_backbone(f"open_clip/local-dir:{clip}", modality="text", device="cpu")
    for name, coef in zip(head.estimator.classes_, head.estimator.coef_, strict=True):
        sentences = [f"a photo of a {name}", f"the {name}"]
        rows = backbone.forward([backbone.prepare(text).value for text in sentences])["embedding"].astype(np.float64)
        expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(coef * head.estimator.temperature_, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "zero-shot"}, "has no labels in 'label': name the classes"),
        ({"head": "zero-shot", "classes": "cat"}, "needs two classes"),
        ({"head": "zero-shot", "classes": "cat,cat"}, "words for each class once, got 'cat'"),
        ({"head": "zero-shot", "classes": "cat=,dog"}, "words for each class once, got 'cat='"),
        ({"head": "zero-shot", "classes": "cat,dog", "templates": "a photo"}, r"must have \{\} once"),
        ({"head": "zero-shot", "classes": "cat,dog", "task": "regression"}, "'zero-shot' is not for regression"),
        ({"head": "zero-shot", "classes": "cat,dog", "remove_components": 1}, "leave remove_components out"),
        ({"head": "logreg", "classes": "cat,dog"}, "is for the heads zero-shot and text-prior: leave it out"),
        (
            {"head": "zero-shot", "classes": "cat,dog"},
            "class names are texts, and photos embedded by .* cannot be searched by words",
        ),
    ],
)
def test_impossible_settings_are_reported(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(make_store(tmp_path / "s", clusters(20)[0]), **options)


def test_labels_that_are_not_classes_or_not_words_are_refused(tmp_path: Path) -> None:
    X, y = clusters(20)
    with pytest.raises(UsageError, match="must have all labels of the store, and lacks owl"):
        fit(make_store(tmp_path / "s", X, label=["cat", "owl"] * 10), "zero-shot", classes="cat,dog")
    with pytest.raises(UsageError, match="needs labels that are words, and column 'label' holds int64"):
        fit(make_store(tmp_path / "t", X, label=y), "zero-shot")
    with pytest.raises(UsageError, match="unknown head 'zero-shoot'; did you mean 'zero-shot'"):
        fit(make_store(tmp_path / "u", X, label=y), "zero-shoot")


def test_the_command_line_fits_without_labels(texts: FeatureStore, vectors: Path) -> None:
    command = ["fit", texts.path, "--head", "zero-shot", "--classes", CLASSES, "--weights", str(vectors)]
    result = run(*command, "--templates", "the {}", "--templates", "{}")
    assert result.exit_code == 0, result.stderr
    assert "note: there are no labels: the head is not measured" in result.stdout
    heads = ["--heads", "zero-shot,centroid", "--classes", CLASSES, "--weights", str(vectors)]
    few = ["--repeats", "1", "--folds", "3", "--near-duplicates", "off"]
    result = run("evaluate", labelled(texts).path, *heads, *few)
    assert result.exit_code == 0, result.stderr
    assert "best: zero-shot with 100.0 %" in result.stdout
    result = run("evaluate", texts.path, "--heads", "centroid", "--weights", str(vectors), *few)
    assert "need backbones to embed with" in result.stderr
    result = run("fit", texts.path, "--classes", "cat,dog")
    assert result.exit_code == 2
    assert "--classes cat,dog is for the heads zero-shot and text-prior: leave it out" in result.stderr
