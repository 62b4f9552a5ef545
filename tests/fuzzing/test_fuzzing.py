"""Random inputs of every kind are read or refused; inputs that once were neither stay so."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fuzzing.runner import fuzz
from fuzzing.targets import TARGETS
from isolated import READING, Isolated

#: What the targets import when they read: imported once, and not by each fork.
IMPORTS = (*READING, "fuzzing.worker", "pyarrow.dataset", "tiny_backbone", "torch")


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    with Isolated(IMPORTS) as process:
        yield process


def _pickle_of(opcodes: bytes) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        path = folder / "made.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", opcodes)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
        return path.read_bytes()

    return make


#: Inputs that ended the process, took too long, or raised another exception -> what refuses them.
FAULTS: dict[str, tuple[str, bytes | Callable[[Path], bytes], str]] = {
    "a row of null": ("jsonl", b'null\n{"id": "a", "text": "one"}\n', "refused: SourceError"),
    "a URL that is no text": ("list", b"file:///\x80.jpg\n", "refused: SourceError"),
    "a list that is no text": ("list", b"a.jpg\n../\0.jpg\n", "refused: SourceError"),
    "a stack that is empty": ("pth", _pickle_of(b"\x80\x020."), "refused: WeightsError"),
    "a spec nested deeply": ("spec", b'{"layers":' + b"[" * 60_000, "refused: StoreError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_inputs_that_were_faults_are_refused(isolated: Isolated, tmp_path: Path, name: str) -> None:
    target, data, expected = FAULTS[name]
    (tmp_path / "input").write_bytes(data if isinstance(data, bytes) else data(tmp_path))
    answer = isolated.call("fuzzing.worker:run_one", target, str(tmp_path / "input"), str(tmp_path), seconds=0)
    assert not answer.died, answer.output
    assert answer.value.startswith(expected), answer.value


#: Targets that need neither a network nor a fitted head.
FAST = (
    "jpeg", "png", "tiff", "pictures", "text", "email", "csv", "jsonl", "parquet", "arrow", "coco", "yolo", "yaml",
    "tar", "list", "pth", "log",
)  # fmt: skip


@pytest.mark.parametrize(("targets", "each"), [(FAST, 0.03), pytest.param((*TARGETS,), 4.0, marks=pytest.mark.long)])
def test_random_inputs_are_read_or_refused(
    isolated: Isolated, tmp_path: Path, targets: tuple[str, ...], each: float
) -> None:
    rounds = list(fuzz(isolated, targets, 0, "tests", tmp_path / "faults", each))
    assert [done.target for done in rounds] == [*targets]
    assert all(done.inputs for done in rounds)
    assert not {done.target: done.faults for done in rounds if done.faults}
