"""Kills and full disks at any call that changes files, and many writers at once: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from interrupted.harness import Outcome, Workshop, build_shim, spread
from interrupted.verbs import VERBS
from interrupted.writers import run_all


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("interrupted")
    shim = build_shim(folder)
    if shim is None:
        pytest.skip("counting the calls of a verb needs Linux and a C compiler")
    made = Workshop(folder / "work", shim)
    yield made
    made.close()


def wrong(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.wrong]


@pytest.mark.long
def test_label_is_killed_and_finds_the_disk_full(workshop: Workshop) -> None:
    calls = workshop.calls("label")
    assert calls >= 10
    assert not wrong([workshop.kill("label", call) for call in spread(calls, 3)])
    outcomes = [workshop.fill("label", call) for call in spread(calls, 3)]
    assert not wrong(outcomes)
    assert any(outcome.message for outcome in outcomes)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("verb", VERBS)
def test_kills_lose_and_double_nothing(workshop: Workshop, verb: str) -> None:
    assert not wrong([workshop.kill(verb, call) for call in spread(workshop.calls(verb), -(-100 // len(VERBS)))])


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("verb", VERBS)
def test_full_disks_lose_and_double_nothing(workshop: Workshop, verb: str) -> None:
    outcomes = [workshop.fill(verb, call) for call in spread(workshop.calls(verb), 25)]
    assert not wrong(outcomes)
    assert any(outcome.message for outcome in outcomes) or not VERBS[verb].full


@pytest.mark.long
def test_a_small_disk_that_grows_ends_with_everything(workshop: Workshop, tmp_path: Path) -> None:
    """A file system of 160 KB, then of twice the size, until the store fits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        messages, size = workshop.grow("embed", disk)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert messages
    assert size > 160
    assert all(os.fspath(disk) in message for message in messages)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [180])
def test_writers_at_once_lose_and_double_nothing(tmp_path: Path, seconds: int) -> None:
    assert not run_all(tmp_path, seconds)
