"""Heads in MLflow: logged with their metrics, loaded without running code, and predicted by pyfunc."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import write_photo
from stored import clusters, make_store
from word_vector_file import TOPICS, write_vectors

import embedpipe
import embedpipe.mlflow
from embedpipe import Head
from embedpipe.errors import HeadError, ReadError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MLflow, about type hints of its own
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    pytest.importorskip("mlflow.pyfunc", reason="needs the extra mlflow")

#: The environment variable that names the folder of a virtual environment with MLflow and its server.
VARIABLE = "TEST_MLFLOW"
TEXTS = [f"{a} and {b}" for words in TOPICS.values() for a in words[:5] for b in words[:5] if a != b]
LABELS = [topic for topic, words in TOPICS.items() for a in words[:5] for b in words[:5] if a != b]
NEW = ["a sun", "the horse", "you win"]
EXPECTED = ["weather", "animals", "money"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let MLflow track in files, which takes no server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def head(tmp_path: Path) -> Head:
    vectors = write_vectors(tmp_path / "topics.txt")
    table = pa.table({"id": [f"t{i}" for i in range(len(TEXTS))], "text": TEXTS, "label": LABELS})
    store = embedpipe.embed(table, tmp_path / "store", backbone=f"word-vectors/{vectors}")
    return embedpipe.fit(store, "logreg")


@pytest.fixture
def image_head(tmp_path: Path) -> Head:
    X, y = clusters(60)
    return embedpipe.fit(make_store(tmp_path / "images", X, label=np.array(["cat", "dog", "owl"])[y]), folds=0)


def test_a_logged_head_is_loaded_equal_and_predicts_by_pyfunc(head: Head, files: None, tmp_path: Path) -> None:
    info = embedpipe.mlflow.log_head(head, "topics", tags={"team": "news"})
    again = embedpipe.mlflow.load_head(info.model_uri)
    assert (again.report, again.spec, again.store_id) == (head.report, head.spec, head.store_id)
    expected = head.predict(NEW, weights=tmp_path / "topics.txt")
    assert expected["label"].to_pylist() == EXPECTED
    assert again.predict(NEW, weights=tmp_path / "topics.txt").equals(expected)
    model = mlflow.pyfunc.load_model(info.model_uri, model_config={"weights": str(tmp_path / "topics.txt")})
    inputs: list[Any] = [NEW, np.array(NEW), pd.DataFrame({"text": NEW})]
    for given in inputs:
        frame = model.predict(given)
        assert frame["label"].tolist() == EXPECTED
        assert frame["confidence"].tolist() == expected["confidence"].to_pylist()
    assert model.predict(NEW[0])["label"].tolist() == EXPECTED[:1]


def test_metrics_parameters_and_requirements_are_logged(head: Head, files: None) -> None:
    with mlflow.start_run() as run:
        info = embedpipe.mlflow.log_head(head)
    assert info.run_id == run.info.run_id
    model = mlflow.get_logged_model(info.model_id)
    assert model.params["head"] == "logreg"
    assert model.params["fingerprint"] == head.spec.fingerprint()
    assert float(model.params["C"]) == head.report.chosen["C"]
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["accuracy"] == np.mean(head.report.metrics["accuracy"])
    assert metrics["baseline_accuracy"] == np.mean(head.report.baseline["accuracy"])
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri))
    assert (folder / "requirements.txt").read_text().splitlines()[1:] == [
        f"embedpipe[mlflow,text]=={embedpipe.__version__}"
    ]


def test_load_head_imports_nothing_that_the_model_names(head: Head, files: None, tmp_path: Path) -> None:
    info = embedpipe.mlflow.log_head(head)
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path / "model")))
    (folder / "code").mkdir()
    (folder / "code/hostile.py").write_text("raise SystemExit('this ran')")
    text = (folder / "MLmodel").read_text()
    changed = text.replace("loader_module: embedpipe.mlflow", "loader_module: hostile").replace("null", "code")
    assert changed.count("hostile") == 1
    (folder / "MLmodel").write_text(changed)
    assert embedpipe.mlflow.load_head(str(folder)).name == "logreg"
    (folder / "data/head/head.skops").write_bytes(b"not a head")
    with pytest.raises(HeadError, match="does not have the SHA-256"):
        embedpipe.mlflow.load_head(str(folder))


@pytest.mark.parametrize(
    "given",
    [
        "/etc/passwd",
        "https://example.com/a.jpg",
        ["cat.jpg", "../elsewhere/cat.jpg"],
        np.array(["/etc/passwd"]),
        np.array([b"bytes", "/etc/passwd"], dtype=object),
        pd.DataFrame({"image": ["cat.jpg", "/etc/passwd"], "price": [1, 2]}),
        {"image": ["/etc/passwd"]},
    ],
    ids=str,
)
def test_a_request_reads_no_files_outside_of_the_working_folder(image_head: Head, given: Any) -> None:
    with pytest.raises(ReadError, match="is named by a request, which may name files below the working folder only"):
        embedpipe.mlflow.HeadModel(image_head, {}).predict(given)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 500) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"{url} does not answer")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Start a tracking server with SQLite on loopback, and yield its URL."""
    environment = os.environ.get(VARIABLE)
    if not environment:
        pytest.skip(f"needs a virtual environment with mlflow, whose folder {VARIABLE} names")
    port = free_port()
    place = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        f"{tmp_path}/artifacts",
    ]
    command = [f"{environment}/bin/mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen([*command, *place], cwd=tmp_path, env=clean, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_tracking_server_registers_a_head(server: str, head: Head, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        info = embedpipe.mlflow.log_head(head, "topics", registered_model_name="topics")
        assert int(info.registered_model_version) == 1
        assert embedpipe.mlflow.load_head("models:/topics/1").report == head.report
        model = mlflow.pyfunc.load_model("models:/topics/1", model_config={"weights": str(tmp_path / "topics.txt")})
    finally:
        mlflow.set_tracking_uri(before)
    assert model.predict(pd.DataFrame({"text": NEW}))["label"].tolist() == EXPECTED


@pytest.mark.long
def test_photos_below_the_working_folder_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(12):
        write_photo(tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.jpg", seed=i % 2)
    store = embedpipe.embed(tmp_path / "photos", tmp_path / "store", engine="torch")
    model = embedpipe.mlflow.HeadModel(embedpipe.fit(store, folds=0), {})
    monkeypatch.chdir(tmp_path)
    paths = ["photos/cat/0.jpg", str(tmp_path / "photos/dog/1.jpg")]
    by_path = model.predict(pd.DataFrame({"image": paths}))
    by_bytes = model.predict(pd.DataFrame({"image": [Path(path).read_bytes() for path in paths]}))
    assert by_path["label"].tolist() == by_bytes["label"].tolist() == ["cat", "dog"]
