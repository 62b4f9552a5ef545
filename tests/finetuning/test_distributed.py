"""Training in several processes gives the weights of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from coloured import noise
from conftest import TINY
from safetensors.torch import load_file

import embedpipe
from embedpipe.errors import UsageError
from embedpipe.finetuning.training.distributed import Workers

#: A launcher of two processes, which finds a free port.
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ARGUMENTS = [
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--accumulate",
    "3",
    "--learning-rate",
    "0.003",
    "--near-duplicates",
    "off",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of noise in two classes, one image of which has been deleted."""
    root = tmp_path_factory.mktemp("noise")
    embedpipe.embed(noise(root / "photos", 75), root / "store", backbone=TINY)
    (root / "photos" / "a" / "000.png").unlink()
    return root / "store"


def train(store: Path, to: Path, launcher: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `embedpipe finetune` under a launcher."""
    command = [sys.executable, *launcher, "-m", "embedpipe", "finetune", str(store), "--to", str(to), *ARGUMENTS]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--trust", "--device", "cpu"], env=env, capture_output=True, text=True, timeout=120
    )


@pytest.mark.long
def test_two_processes_train_the_weights_of_one(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the extra finetune is not installed")
    alone = train(store, tmp_path / "one", [])
    both = train(store, tmp_path / "two", TWO)
    assert alone.returncode == 3, alone.stderr  # one image is left out
    assert "2 x cpu" in both.stdout, both.stderr
    assert both.stdout.count("read once") == 1
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    before = embedpipe.load_backbone(TINY).network.module.state_dict()
    largest_change = max(float((one[name] - before[name]).abs().max()) for name in one)
    difference = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert largest_change > 1e-3
    assert difference < 0.01 * largest_change
    first, second = (embedpipe.load_head(tmp_path / name / "head") for name in ("one", "two"))
    for name, values in first.report.metrics.items():
        assert second.report.metrics[name] == pytest.approx(values, abs=1e-3)


@pytest.mark.long
def test_error_in_two_processes_is_printed_once(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the extra finetune is not installed")
    nowhere = train(tmp_path / "nowhere", tmp_path / "run", TWO)
    assert nowhere.returncode == 1
    assert nowhere.stderr.count("there is no file or folder") == 1, nowhere.stderr
    assert list((tmp_path / "run").glob("features*")) == []


@pytest.mark.parametrize("value", ["", "abc", "0", "-1"])
def test_invalid_world_size_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(UsageError, match=f"WORLD_SIZE must be a number of processes, got '{value}'"):
        Workers.launched(None)


def test_incomplete_launcher_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"WORLD_SIZE=2 .* needs RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT too"):
        Workers.launched(None)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables of the first of two processes."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")


@pytest.mark.usefixtures("launched")
def test_one_gpu_for_two_processes_is_refused() -> None:
    with pytest.raises(UsageError, match="device must have no number if 2 processes train, got 'cuda:1'"):
        Workers.launched("cuda:1")


@pytest.mark.usefixtures("launched")
def test_verbs_for_one_process_refuse_several(store: Path) -> None:
    with pytest.raises(UsageError, match="`benchmark` must run in one process, got 2"):
        embedpipe.benchmark(store, to=store.parent / "bench")
    with pytest.raises(UsageError, match="`advise` must run in one process, got 2"):
        embedpipe.advise(store)
