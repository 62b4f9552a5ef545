"""Predicting images: the head loads its backbone, and gives one row per input, failures included."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore, Head, embed, fit
from embedpipe._utils.option_names import set_by
from embedpipe.errors import BackboneError, SourceError, SpecMismatchError, UsageError
from embedpipe.heads.predicting.fitted_rows import FittedRows

BROKEN = (b"", b"no image", b"\xff\xd8\xff\xe0 cut", b"\x89PNG\r\n\x1a\n", b"GIF89a")


@pytest.fixture
def head(photos: Path, tmp_path: Path) -> Head:
    for i in range(12, 36):
        write_photo(photos / ("cat", "dog", "owl")[i % 3] / f"{i:04d}.jpg", seed=i)
    return fit(embed(photos, tmp_path / "store", backbone=TINY), "knn", folds=0)


def test_300_good_and_30_broken_images_give_330_rows_and_30_errors(head: Head, tmp_path: Path) -> None:
    new = tmp_path / "new"
    good = {f"{i:04d}.jpg": write_photo(new / f"{i:04d}.jpg", seed=i % 36) for i in range(300)}
    for i in range(30):
        (new / f"broken-{i:02d}.jpg").write_bytes(BROKEN[i % len(BROKEN)])
    table = head.predict(new, trust=True)
    rows = {row["id"]: row for row in table.to_pylist()}
    assert table.num_rows == len(rows) == 330
    failed = {id for id, row in rows.items() if row["error"]}
    assert failed == {f"broken-{i:02d}.jpg" for i in range(30)}
    for id, row in rows.items():
        shares = [row[f"probability_{name}"] for name in ("cat", "dog", "owl")]
        if id in good:
            assert row["label"] in ("cat", "dog", "owl")
            assert sum(shares) == pytest.approx(1)
        else:
            assert row["label"] is None
            assert shares == [None] * 3
            assert row["error"].startswith("decode: ")


def test_folder_whose_name_is_not_utf8_is_predicted(head: Head, tmp_path: Path) -> None:
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    write_photo(Path(latin) / "1.jpg", seed=1)
    assert head.predict(latin, trust=True)["error"].to_pylist() == [None]


def test_labels_with_a_zero_byte_are_whole(tmp_path: Path) -> None:
    X, y = clusters(30)
    store = make_store(tmp_path / "store", X, label=[f"c\0{label}" for label in y])
    table = fit(store, "logreg", folds=0).predict(store)
    assert (
        {*table["label"].to_pylist()} == {*table["second"].to_pylist()} == {f"c\0{label}" for label in set(y.tolist())}
    )


def test_options_of_items_are_refused_beside_a_store(tmp_path: Path) -> None:
    X, y = clusters(30)
    store = make_store(tmp_path / "store", X, label=[f"c{label}" for label in y])
    head = fit(store, "centroid", folds=0)
    for name, value in (("label", "kind"), ("tiff_pages", "all"), ("prefix", "new")):
        with pytest.raises(UsageError, match=rf"^{name}=\.\.\. is for items .*, and '.*store' is a feature store"):
            head.predict(store.path, **{name: value})
    with set_by({"prefix": "EMBEDPIPE_PREFIX"}):
        assert len(head.predict(store, prefix="new", allow_root="/data")) == 30


def test_all_devices_are_refused_where_one_is_used(head: Head, photos: Path) -> None:
    with pytest.raises(UsageError, match=r"device='all' is for `embedpipe embed`: name one device"):
        head.predict(photos, device="all", trust=True)


def test_store_and_photos_give_the_same_predictions(head: Head, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for i in range(30):
        write_photo(new / f"{i:04d}.jpg", seed=i)
    (new / "broken.jpg").write_bytes(b"no image")
    by_photo = {row["id"]: row for row in head.predict(new, trust=True).to_pylist()}
    stored = head.predict(embed(new, tmp_path / "new.store", backbone=TINY))
    by_store = {row["id"]: row for row in stored.to_pylist()}
    assert by_store.keys() == by_photo.keys()
    assert {id for id, row in by_store.items() if row["error"]} == {"broken.jpg"}
    for id, row in by_photo.items():
        assert by_store[id]["label"] == row["label"]
        if row["label"]:
            assert by_store[id]["probability_cat"] == pytest.approx(row["probability_cat"], abs=1e-4)


def test_every_kind_of_source(head: Head, photos: Path, tmp_path: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    by_list = head.predict(paths, trust=True)
    assert by_list["id"].to_pylist() == paths
    images = [Image.open(path) for path in paths]
    assert head.predict(images, trust=True)["label"].to_pylist() == by_list["label"].to_pylist()
    assert head.predict(paths[0], trust=True)["label"].to_pylist() == by_list["label"].to_pylist()[:1]
    frame = pa.table({"id": ["a", "b"], "image": paths[:2], "label": ["cat", "owl"]})
    table = head.predict(frame, trust=True)
    assert table.column_names[:3] == ["id", "uri", "label"]
    assert table["actual"].to_pylist() == ["cat", "owl"]
    assert head.predict(str(tmp_path / "store"))["actual"].to_pylist() == [Path(path).parent.name for path in paths]


def test_scores_equal_those_of_the_estimator(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "s", backbone=TINY)
    X, y = store.to_numpy(label="label")
    three = fit(store, "centroid", folds=0)
    table = three.predict(store)
    scores = np.stack([table[f"score_{name}"].to_numpy() for name in ("cat", "dog", "owl")], axis=1)
    np.testing.assert_allclose(scores, three.estimator.decision_function(X))
    pairs = [(id, "cat" if label == "cat" else "other") for id, label in zip(store.ids(), y, strict=True)]
    store.label(pa.table({"id": [i for i, _ in pairs], "kind": [k for _, k in pairs]}), label="kind", into="kind")
    two = fit(store, SVC(), label="kind", folds=0)
    table = two.predict(store)
    assert table.column_names == [
        "id",
        "uri",
        "kind",
        "second",
        "margin",
        "score_other",
        "actual",
        "fitted_on",
        "error",
    ]
    np.testing.assert_allclose(table["score_other"].to_numpy(), two.estimator.decision_function(X))


def test_python_backbone_needs_trust_and_a_changed_one_is_refused(
    head: Head, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackboneError, match="names Python code to run"):
        head.predict(photos)
    module = tmp_path / "changing.py"
    code = "import tiny_backbone\n\ndef make():\n    net = tiny_backbone.make()\n    return net\n"
    module.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    other = fit(embed(photos, tmp_path / "other", backbone="python:changing.make"), "knn", folds=0)
    import changing

    def brighter() -> object:
        network = changing.tiny_backbone.make()
        network.conv1.bias.data += 1
        return network

    monkeypatch.setattr(changing, "make", brighter)
    from embedpipe.backbones import load

    load._cache.clear()
    with pytest.raises(SpecMismatchError, match=r"weights_sha256: '\w{64}' in the head, '\w{64}' loaded"):
        other.predict(photos, trust=True)


def test_wrong_arguments_are_refused(head: Head, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'batch_size'"):
        head.predict(tmp_path, batchsize=3)
    with pytest.raises(SourceError, match="there is no file or folder"):
        head.predict(tmp_path / "nowhere", trust=True)


def test_default_backbone_from_images_to_predictions(tmp_path: Path) -> None:
    from skimage import data

    for name, photo in (("cat", data.chelsea()), ("coffee", data.coffee())):
        for i in range(6):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo[20 * i : 20 * i + 180, 30 * i : 30 * i + 240]).save(
                tmp_path / f"photos/{name}/{i}.png"
            )
    store = embedpipe.embed(tmp_path / "photos", tmp_path / "store")
    head = fit(store, "logreg", to=tmp_path / "head", folds=3)
    assert np.mean(head.report.metrics["accuracy"]) > 0.8
    Image.fromarray(data.chelsea()).save(tmp_path / "whole cat.png")
    table = embedpipe.load_head(tmp_path / "head").predict(tmp_path / "whole cat.png")
    assert table["label"].to_pylist() == ["cat"]


def test_unreadable_file_is_not_predicted_from_its_old_vector(head: Head, photos: Path, tmp_path: Path) -> None:
    (photos / "cat/0000.jpg").write_bytes(b"no image any more")
    store = embed(photos, tmp_path / "store", backbone=TINY)
    assert (len(store), store.summary.failed) == (36, 1)
    rows = {row["id"]: row for row in head.predict(store).to_pylist()}
    assert len(rows) == 36
    assert rows["cat/0000.jpg"]["label"] is None
    assert rows["cat/0000.jpg"]["error"].startswith("decode: ")
    assert not head.is_of(embed([Image.new("RGB", (40, 40))], tmp_path / "another", backbone=TINY))


class Words(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts 'ok' unless the first feature is high, as a list of Python strings, as some estimators do."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Words:
        self.classes_, self.n_features_in_, self.limit_ = np.unique(y), X.shape[1], np.median(X[:, 0])
        return self

    def predict(self, X: np.ndarray) -> list[str]:
        return ["defective" if value > self.limit_ else "ok" for value in X[:, 0]]


def test_labels_of_any_length_are_kept_across_batches(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "s", backbone=TINY)
    ids = store.ids()
    order = np.argsort(store.to_numpy()[:, 0])
    words = np.where(np.arange(12)[np.argsort(order)] < 6, "ok", "defective").tolist()
    store.label(pa.table({"id": ids, "state": words}), label="state", into="state")
    head = fit(store, Words(), label="state", folds=0)
    table = head.predict(photos, trust=True, batch_size=1)
    assert table["state"].to_pylist() == words
    assert "actual" not in table.column_names  # the folders' names are not what was learned
    assert head.predict(store)["actual"].to_pylist() == words


def test_label_column_with_the_name_of_a_score_becomes_prediction(tmp_path: Path) -> None:
    X, y = clusters(30)
    store = make_store(tmp_path / "s", X, probability_a=np.array(["a", "b", "c"])[y])
    table = fit(store, "knn", label="probability_a", folds=0).predict(store)
    assert table.column_names == [
        "id",
        "uri",
        "prediction",
        *("confidence", "second", "margin"),
        *(f"probability_{name}" for name in "abc"),
        *("actual", "fitted_on"),
        "error",
    ]
    assert table["prediction"].to_pylist() == table["actual"].to_pylist()
    assert set(table["prediction"].to_pylist()) == {"a", "b", "c"}


def test_contents_of_the_heads_store_are_read_once_for_many_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = clusters(12)
    contents = [f"{row + 1}" * 64 for row in range(9)] + ["a" * 64, "b" * 64, "c" * 64]
    store = make_store(tmp_path / "store", X, label=y.tolist(), content_hash=contents)
    reads = 0

    def counted(self: embedpipe.FeatureStore) -> object:
        nonlocal reads
        reads += 1
        return to_dataset(self)

    to_dataset = embedpipe.FeatureStore.to_dataset
    monkeypatch.setattr(embedpipe.FeatureStore, "to_dataset", counted)
    rows = FittedRows(len(store), store.path, store.table_id, store.version, "label", "folds")
    new = pa.table({"content_hash": ["f" * 64, None]})
    assert [rows.among(new, None) for _ in range(3)] == [None] * 3
    assert reads == 1
    known = pa.table({"content_hash": ["f" * 64, "b" * 64]})
    assert rows.among(known, None).to_pylist() == [False, True]
    changed = store.to_arrow().slice(0, 1).drop_columns("content_hash").append_column("content_hash", [["f" * 64]])
    store.write(changed)
    assert rows._replace(version=store.version).among(new, None).to_pylist() == [True, False]


def test_a_head_of_images_advises_nothing_for_texts(head: Head, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a text")
    (tmp_path / "texts.csv").write_text("body\na text\n")
    for source in ("texts", "texts.csv"):
        with pytest.raises(SourceError, match=r"; the head takes images$"):
            head.predict(tmp_path / source, trust=True)
    with pytest.raises(SourceError, match="the head takes images: leave it out"):
        head.predict(tmp_path / "texts.csv", text="body", trust=True)
    (error,) = head.predict(["a text"], trust=True)["error"].to_pylist()
    assert error.endswith("; the head takes images")
    with pytest.raises(SourceError, match="to embed texts, name their column"):
        embed(tmp_path / "texts.csv", tmp_path / "other", backbone=TINY)


@pytest.mark.parametrize("column", ["label", "excluded"])
def test_a_store_that_has_lost_all_fitted_rows_is_predicted(tmp_path: Path, column: str) -> None:
    X, y = clusters(30)
    store = make_store(tmp_path / "s", X, label=[f"class {number}" for number in y])
    fitted = fit(store, "centroid", folds=0)
    if column == "label":
        store.label(pa.table({"id": store.ids(), "label": pa.nulls(30, pa.string())}))
    else:
        store.exclude(pa.table({"id": store.ids(), "excluded": ["blurred"] * 30}))
    store.vacuum(older_than_hours=0)
    table = fitted.predict(FeatureStore(store.path))
    assert table["error"].null_count == 30
    assert not any(table["fitted_on"].to_pylist())


def test_a_label_that_is_nan_is_no_actual_label(tmp_path: Path) -> None:
    X, y = clusters(30, spread=0.01)
    fitted = fit(make_store(tmp_path / "s", X, label=y.astype(float)), "centroid", folds=0)
    labels = np.where(np.arange(30) < 10, np.nan, y)
    table = fitted.predict(make_store(tmp_path / "new", X, label=labels))
    assert table["actual"].to_pylist() == [*[None] * 10, *y[10:].tolist()]
