"""Commands whose reader ends first, such as `embedpipe backbones | head -1`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from stored import clusters, make_store

from embedpipe.cli.app import main
from embedpipe.cli.options import BROKEN_PIPE


def into_closed_pipe(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command whose output nobody reads, and return its exit code."""
    read, write = os.pipe()
    os.close(read)
    stream = io.TextIOWrapper(os.fdopen(write, "wb"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["embedpipe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    stream.close()  # as at the end of a process: raises if something is left to be written
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        ["backbones", "--json"], ["info", "STORE"], ["info", "STORE", "--json"], ["--help"],
        ["fit", "--help"], ["fit", "STORE"], ["fit", "STORE", "--json"],
        ["evaluate", "STORE", "--heads", "centroid", "--repeats", "1", "--json"],
        ["rank", "STORE"], ["search", "STORE", "row-000"], ["--version"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_closed_output_ends_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    X, y = clusters(30)
    store = make_store(tmp_path / "store", X, label=[f"class {number}" for number in y])
    assert (
        into_closed_pipe(monkeypatch, *(store.path if word == "STORE" else word for word in arguments)) == BROKEN_PIPE
    )
    assert "roken pipe" not in capfd.readouterr().err


def test_other_codes_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for arguments, code in ((["info", str(tmp_path / "none")], 2), (["nonsense"], 2), (["--version"], 0)):
        monkeypatch.setattr(sys, "argv", ["embedpipe", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code


def test_broken_connection_is_an_error_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe", "s3://bucket")

    monkeypatch.setattr("embedpipe.store.FeatureStore.__init__", broken)
    monkeypatch.setattr(sys, "argv", ["embedpipe", "info", "s3://bucket"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "s3://bucket" in capsys.readouterr().err
