"""Heads on disk: equal in a new process and folder; damaged, changed and hostile heads are refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stored import clusters, make_store

from embedpipe import FaissKNNClassifier, FeatureStore, Head, fit, load_head
from embedpipe._utils.checksums import with_checksum
from embedpipe.errors import HeadError, SpecMismatchError, UsageError
from embedpipe.heads.registry import HEADS

NAMES = np.array(["cat", "dog", "ówl"])


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    X, y = clusters(90, spread=1.0)
    return make_store(tmp_path / "store", X, label=NAMES[y], weight=X[:, 0] + 0.25)


PREDICT = """
import sys, numpy, embedpipe
from pathlib import Path
for folder in Path(sys.argv[1]).iterdir():
    head = embedpipe.load_head(folder)
    table = head.predict(embedpipe.FeatureStore(sys.argv[2]))
    scores = [table[name].to_numpy() for name in table.column_names if name.startswith(("probability", "score"))]
    kind = "U" if head.classes is not None else float
    numpy.savez(f"{folder.name}.npz", label=table[head.label].to_numpy().astype(kind), scores=scores)
"""


@pytest.mark.long
def test_heads_predict_the_same_in_a_new_process_and_folder(store: FeatureStore, tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), FaissKNNClassifier(3, metric="cosine", weights="softmax"))
    made: dict[str, Any] = {name: (name, "label") for name in [*HEADS, "auto"]}
    made |= {"ridge-numbers": ("ridge", "weight"), "knn-numbers": ("knn", "weight"), "pipeline": (pipeline, "label")}
    heads = {
        name: fit(store, head, label=label, to=tmp_path / "here" / name, folds=0)
        for name, (head, label) in made.items()
    }
    moved = tmp_path / "some where else"
    shutil.move(tmp_path / "here", moved)
    shutil.copytree(store.path, tmp_path / "copy")
    subprocess.run([sys.executable, "-c", PREDICT, moved, tmp_path / "copy"], check=True, cwd=tmp_path)
    for name, head in heads.items():
        table = head.predict(store)
        arrays = np.load(tmp_path / f"{name}.npz")
        assert arrays["label"].tolist() == table[head.label].to_pylist()
        scores = [table[c].to_numpy() for c in table.column_names if c.startswith(("probability", "score"))]
        assert (arrays["scores"] == np.array(scores)).all()
        assert len(scores) == (0 if head.label == "weight" else 3)
        files = {path.name for path in (moved / name).iterdir()}
        neighbours = {"neighbours.faiss"} if name.startswith(("knn", "pipeline")) else set()
        assert (
            files - ({"neighbours.faiss"} if name == "auto" else set()) == {"manifest.json", "head.skops"} | neighbours
        )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"reject_share": 0.1}, marks=pytest.mark.long, id="reject"),
        pytest.param({"label": "weight", "interval_coverage": 0.9}, id="interval"),
    ],
)
def test_wrapped_auto_head_loads_without_trust(store: FeatureStore, tmp_path: Path, options: dict[str, Any]) -> None:
    head = fit(store, "auto", to=tmp_path / "head", folds=0, **options)
    assert load_head(tmp_path / "head").predict(store).equals(head.predict(store))


def test_manifest_holds_spec_report_versions_and_checksums(store: FeatureStore, tmp_path: Path) -> None:
    fit(store, "centroid", to=tmp_path / "head")
    manifest = json.loads((tmp_path / "head/manifest.json").read_text())
    assert manifest["classes"] == NAMES.tolist()
    assert manifest["fingerprint"] == store.spec.fingerprint()
    assert manifest["spec"]["layers"][0]["dim"] == 8
    assert manifest["store_version"] == store.version
    assert len(manifest["report"]["metrics"]["accuracy"]) == 5
    assert {"embedpipe", "scikit-learn", "numpy", "faiss-cpu", "skops"} <= manifest["libraries"].keys()
    sha256 = hashlib.sha256((tmp_path / "head/head.skops").read_bytes()).hexdigest()
    assert manifest["files"] == {"head.skops": sha256}
    again = load_head(tmp_path / "head")
    assert again.report.to_dict() == {"protocol": "5-fold cross-validation", **manifest["report"]}


def test_neighbours_file_is_a_faiss_index(store: FeatureStore, tmp_path: Path) -> None:
    import faiss

    head = fit(store, "knn", to=tmp_path / "head", folds=0)
    index = faiss.read_index(str(tmp_path / "head/neighbours.faiss"))
    assert (index.ntotal, index.d, index.metric_type) == (90, 8, faiss.METRIC_INNER_PRODUCT)
    assert (index.reconstruct_n(0, 90) == head.estimator.rows_).all()
    with zipfile.ZipFile(tmp_path / "head/head.skops") as state:
        assert sum(item.file_size for item in state.infolist()) < 90 * 8 * 4 + 20_000


def test_texts_that_look_like_lists_of_numbers_stay_as_they_are(tmp_path: Path) -> None:
    X, y = clusters(60, spread=0.1)
    store = make_store(tmp_path / "store", X, label=np.array(["[1,  2]", "[3,  4]", "[ 5 ]"])[y])
    head = fit(store, "lda", to=tmp_path / "head", folds=0)
    assert load_head(tmp_path / "head").predict(store).equals(head.predict(store))


# ------------------------------------------------------------------ damage and attack


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit(folder: Path, **changes: Any) -> None:
    """Change the manifest and correct its checksums, as an attacker would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.update(changes)
    for name in manifest["files"]:
        if (folder / name).exists():
            manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(with_checksum(manifest)))


def edit_by_hand(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"label": "label"', '"label": "other"'))


class Exploit:
    """Runs code when a pickle of it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("exploited"),)


def pickled(folder: Path) -> None:
    (folder / "head.skops").write_bytes(pickle.dumps(Exploit()))
    edit(folder)


def joblibbed(folder: Path) -> None:
    joblib.dump(Exploit(), folder / "head.skops")
    edit(folder)


def smuggled(folder: Path) -> None:
    """A skops file that names another type: the state of an estimator becomes that of subprocess.Popen."""
    with zipfile.ZipFile(folder / "head.skops") as state:
        parts = {item.filename: state.read(item) for item in state.infolist()}
    schema = json.loads(parts["schema.json"])
    schema["__class__"], schema["__module__"] = "Popen", "subprocess"
    parts["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(folder / "head.skops", "w") as state:
        for name, content in parts.items():
            state.writestr(name, content)
    edit(folder)


def larger_index(folder: Path) -> None:
    """A FAISS file whose header promises more vectors than it holds."""
    content = bytearray((folder / "neighbours.faiss").read_bytes())
    content[8:16] = (1 << 40).to_bytes(8, "little")
    (folder / "neighbours.faiss").write_bytes(content)
    edit(folder, neighbours=[{"shape": [1 << 40, 8], "metric": "cosine"}])


def other_kind(folder: Path) -> None:
    content = (folder / "neighbours.faiss").read_bytes()
    (folder / "neighbours.faiss").write_bytes(b"IwPQ" + content[4:])
    edit(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: flip(f / "head.skops"), "does not have the SHA-256 of the manifest"),
        (lambda f: flip(f / "neighbours.faiss"), "does not have the SHA-256 of the manifest"),
        (lambda f: cut(f / "head.skops"), "does not have the SHA-256 of the manifest"),
        (lambda f: cut(f / "neighbours.faiss"), "does not have the SHA-256 of the manifest"),
        (lambda f: (f / "head.skops").unlink(), "has no head.skops"),
        (lambda f: cut(f / "manifest.json"), "manifest.json' is damaged"),
        (lambda f: (f / "manifest.json").write_text("[]"), "has format None"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), "manifest.json' is damaged"),
        (edit_by_hand, "manifest.json' is damaged or was edited"),
        (
            lambda f: edit(f, format=2),
            "format 2, and embedpipe .* reads format 1: install embedpipe .* or newer",
        ),
        (lambda f: edit(f, fingerprint="0" * 64), "its parts do not agree"),
        (lambda f: edit(f, spec={}), "not a backbone spec"),
        (lambda f: edit(f, files={"../secret": "0"}), "its parts do not agree"),
        (lambda f: edit(f, neighbours=[]), "its parts do not agree"),
        (lambda f: edit(f, neighbours=[{"shape": [3, 8], "metric": "cosine"}]), "not a flat cosine index of 3 vectors"),
        (lambda f: edit(f, classes=["a", "b", "c"]), "the estimator does not match the manifest"),
        (lambda f: edit(f, report={"x": 1}), "is damaged or was changed"),
        (lambda f: edit(f, label=5), "is damaged or was changed"),
        (lambda f: edit(f, spec=5), "is damaged or was changed"),
        (lambda f: (f / "manifest.json").write_text("[" * 100_000), "is damaged"),
        (pickled, "not a skops file"),
        (joblibbed, "not a skops file"),
        (smuggled, "subprocess.Popen"),
        (larger_index, "not a flat cosine index"),
        (other_kind, "not a flat cosine index"),
    ],
    ids=lambda value: None if callable(value) else value.replace(" ", "-"),
)
def test_damaged_or_hostile_head_is_refused(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(store, "knn", to="head", folds=0)
    harm(Path("head"))
    with pytest.raises(HeadError, match=message):
        load_head("head")
    assert not Path("exploited").exists()


def test_pickle_file_is_refused(tmp_path: Path) -> None:
    joblib.dump(Exploit(), tmp_path / "head.joblib")
    with pytest.raises(HeadError, match=r"head.joblib' is a file, and a head is a folder"):
        load_head(tmp_path / "head.joblib")
    with pytest.raises(HeadError, match=r"there is no head at .*nowhere'"):
        load_head(tmp_path / "nowhere")


def test_estimator_of_the_user_needs_trust(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from sklearn.linear_model import LogisticRegression\n\nclass Mine(LogisticRegression):\n    pass\n"
    (tmp_path / "my_heads.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from embedpipe.heads import load_estimator

    head = fit(store, load_estimator("my_heads:Mine"), to=tmp_path / "head", folds=0)
    assert head.name == "Mine"
    with pytest.raises(HeadError, match=r"types that may run code or end the process: my_heads.Mine; .*trust=True"):
        load_head(tmp_path / "head")
    trusted = load_head(tmp_path / "head", trust=True)
    assert trusted.predict(store).equals(head.predict(store))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sklearn.svm", "estimator must be module:Class"),
        ("no_such_module:X", "importing 'no_such_module' failed"),
        ("sklearn.svm:LinarSVC", "has no 'LinarSVC'; did you mean 'LinearSVC'"),
        ("sklearn.model_selection:GridSearchCV", r"GridSearchCV\(\) failed"),
    ],
)
def test_estimator_that_cannot_be_imported_or_made_is_refused(name: str, message: str) -> None:
    from embedpipe.heads import load_estimator

    with pytest.raises(UsageError, match=message):
        load_estimator(name)


def test_saving_replaces_only_a_head(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/precious.txt").write_text("mine")
    for place in ("folder", "folder/precious.txt"):
        with pytest.raises(UsageError, match="must be a new or empty folder, or a head"):
            fit(store, "centroid", to=tmp_path / place)
    with pytest.raises(UsageError, match="a head is saved in a local folder, got the URL"):
        fit(store, "centroid", to="s3://bucket/head")
    assert (tmp_path / "folder/precious.txt").read_text() == "mine"
    for name in ("knn", "centroid"):
        fit(store, name, to=tmp_path / "head", folds=0)
    assert load_head(tmp_path / "head").name == "centroid"
    assert {path.name for path in (tmp_path / "head").iterdir()} == {"manifest.json", "head.skops"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_saving_over_a_head_keeps_files_of_others(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/manifest.json").write_text("that of a web page")
    with pytest.raises(UsageError, match="must be a new or empty folder, or a head, and is a folder of other files"):
        fit(store, "centroid", to=tmp_path / "site", folds=0)
    fit(store, "centroid", to=tmp_path / "head", folds=0)
    (tmp_path / "head/.DS_Store").touch()
    fit(store, "centroid", to=tmp_path / "head", folds=0)
    (tmp_path / "head/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'notes\.txt' in it would be lost: move it elsewhere, or give a new folder"):
        fit(store, "centroid", to=tmp_path / "head", folds=0)
    assert (tmp_path / "head/notes.txt").read_text() == "mine"


def test_store_of_another_spec_is_refused_with_the_difference(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, "centroid", folds=0)
    other = make_store(tmp_path / "other", clusters(9)[0], name="another")
    with pytest.raises(SpecMismatchError) as raised:
        head.predict(other)
    message = str(raised.value)
    assert "name: 'made_up' in the head, 'another' in the store" in message
    for spec in (store.spec, other.spec):
        assert spec.fingerprint()[:16] in message
    wider = make_store(tmp_path / "wider", clusters(9, dim=9)[0])
    with pytest.raises(SpecMismatchError, match=r"layers\[0\].dim: 8 in the head, 9 in the store"):
        head.predict(wider)


def test_save_and_load_head(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, "lda", folds=0)
    assert head.save(tmp_path / "head") == tmp_path / "head"
    again = load_head(tmp_path / "head")
    assert isinstance(again, Head)
    assert again.predict(store).equals(head.predict(store))


def test_coefficients_of_the_wrong_shape_or_nan_are_refused(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, "ridge", folds=0)
    for wrong in (head.estimator.coef_[:, :3], head.estimator.coef_ * np.nan):
        whole, head.estimator.coef_ = head.estimator.coef_, wrong
        head.save(tmp_path / "head")
        head.estimator.coef_ = whole
        with pytest.raises(HeadError, match=r"coef_ (has shape|holds NaN)"):
            load_head(tmp_path / "head")


SAVE = """
import sys, time, embedpipe
head = embedpipe.load_head(sys.argv[1])
end = time.monotonic() + 2
while time.monotonic() < end:
    head.save(sys.argv[2])
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="folders change places in one step on Linux only")
def test_head_is_complete_at_any_moment_while_processes_save_it(store: FeatureStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    head = fit(store, "centroid", to=source, folds=0)
    head.save(target)
    writers = [subprocess.Popen([sys.executable, "-c", SAVE, source, target]) for _ in range(3)]
    reads = 0
    try:
        while writers[0].poll() is None or writers[1].poll() is None:
            assert load_head(target).name == "centroid"
            reads += 1
            if reads == 20:
                writers[2].kill()
    finally:
        codes = [writer.wait() for writer in writers]
    assert codes[:2] == [0, 0]
    assert reads > 20
    assert load_head(target).predict(store).equals(head.predict(store))


def test_link_to_a_head_stays_a_link(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(store, "centroid", to=tmp_path / "head", folds=0)
    (tmp_path / "link").symlink_to(tmp_path / "head")
    fit(store, "ridge", to=tmp_path / "link", folds=0)
    assert (tmp_path / "link").is_symlink()
    assert load_head(tmp_path / "head").name == "ridge"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fit(store, "lda", to=".", folds=0)
    assert load_head(tmp_path / "here").name == "lda"
