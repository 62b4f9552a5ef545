"""The nightly job: exit codes and JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from filelock import FileLock
from script import run_script

import embedpipe

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "nightly_embedding.py"


Night = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Night:
    """Return a function that runs one night, and gives the exit code, the report and standard error."""

    def run(source: Path | str, store: Path | str, *options: str) -> tuple[int, dict[str, Any], str]:
        words = [str(source), str(store), "--backbone", TINY, *options]
        done = run_script(SCRIPT, words, monkeypatch, capsys)
        return done.code, json.loads(done.out) if done.out else {}, done.err

    return run


def test_first_night_embeds_everything_and_writes_the_summary(night: Night, photos: Path, tmp_path: Path) -> None:
    store, summary = tmp_path / "photos.features", tmp_path / "logs" / "summary.json"
    code, first, _ = night(photos, store, "--summary", str(summary), "--lock")
    assert (code, first["exit_code"], first["status"]) == (0, 0, "done")
    assert (first["embedded"], first["rows"], first["failed"], first["failures"]) == (12, 12, 0, [])
    assert json.loads(summary.read_text()) == first
    assert list(summary.parent.iterdir()) == [summary]
    assert first["seconds"] > 0
    assert first["rate"] > 0
    assert first["error"] is None


def test_later_nights_embed_changes_and_prune_deleted_items(night: Night, photos: Path, tmp_path: Path) -> None:
    store, summary = tmp_path / "photos.features", tmp_path / "logs" / "summary.json"
    night(photos, store)
    gone, *_, broken = sorted(photos.rglob("*.jpg"))
    gone.unlink()
    broken.write_bytes(b"not a photo")
    code, second, _ = night(photos, store, "--summary", str(summary), "--lock")
    assert (code, second["exit_code"], second["status"]) == (3, 3, "partly failed")
    assert (second["embedded"], second["reused"], second["failed"], second["pruned"]) == (0, 10, 1, 1)
    [failure] = second["failures"]
    expected = (broken.relative_to(photos).as_posix(), "decode", True)
    assert (failure["id"], failure["stage"], failure["message"] != "") == expected
    assert json.loads(summary.read_text()) == second
    assert gone.relative_to(photos).as_posix() not in embedpipe.FeatureStore(store).ids()


def test_a_photo_that_stays_broken_fails_the_first_night_only(night: Night, photos: Path, tmp_path: Path) -> None:
    store, broken = tmp_path / "photos.features", min(photos.rglob("*.jpg"))
    night(photos, store)
    broken.write_bytes(b"not a photo")
    (first, _, _), (code, second, _) = night(photos, store), night(photos, store)
    assert (first, code, second["status"], second["failed"], second["failed_new"]) == (3, 0, "done", 1, 0)
    assert not second["failures"][0]["new"]
    assert [night(photos, store, "--max-failed", limit)[0] for limit in ("0", "10%")] == [3, 0]

    broken.unlink()
    code, last, _ = night(photos, store, "--no-prune")
    assert (code, last["gone"], last["pruned"]) == (0, 1, 0)


def test_bad_usage_gives_exit_code_2_and_the_reason(night: Night, photos: Path, tmp_path: Path) -> None:
    store, summary = tmp_path / "photos.features", tmp_path / "summary.json"
    code, report, errors = night(tmp_path / "nowhere", store, "--summary", str(summary))
    assert (code, report["exit_code"], report["status"]) == (2, 2, "refused")
    assert "nowhere" in report["error"]["message"]
    assert json.loads(summary.read_text()) == report
    assert "Traceback" not in errors
    assert errors.count("\n") == 1

    embedpipe.embed(photos, to=store, backbone="python:tiny_backbone.make", layer=("conv1",))
    code, report, _ = night(photos, store)
    assert (code, report["error"]["type"]) == (2, "SpecMismatchError")


def test_an_empty_mount_prunes_nothing(night: Night, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "photos.features"
    embedpipe.embed(photos, to=store, backbone=TINY)
    photos.rename(tmp_path / "elsewhere")
    photos.mkdir()
    code, report, _ = night(photos, store)
    assert code == 2
    assert report["error"]["type"] in {"PruneRefusedError", "SourceError"}
    assert len(embedpipe.FeatureStore(store)) == 12


def test_large_prune_is_refused_until_it_is_forced_as_the_message_says(
    night: Night, photos: Path, tmp_path: Path
) -> None:
    store = tmp_path / "photos.features"
    embedpipe.embed(photos, to=store, backbone=TINY)
    for path in sorted(photos.rglob("*.jpg"))[3:]:
        path.unlink()
    code, report, errors = night(photos, store)
    assert (code, report["error"]["type"]) == (2, "PruneRefusedError")
    assert "--force" in errors
    code, report, _ = night(photos, store, "--force")
    assert (code, report["pruned"], report["rows"]) == (0, 9, 3)


def test_a_crash_is_exit_code_1_with_the_error_in_the_summary(night: Night, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "photos.features"
    embedpipe.embed(photos, to=store, backbone=TINY)
    for file in store.glob("*.parquet"):
        file.write_bytes(b"torn")
    code, report, _ = night(photos, store)
    assert (code, report["status"]) == (1, "failed")
    assert "damaged" in report["error"]["message"]


def test_night_does_nothing_while_the_previous_one_is_active(night: Night, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "photos.features"
    with FileLock(tmp_path / "photos.features.lock"):
        code, report, _ = night(photos, store, "--lock")
    assert (code, report["status"]) == (0, "already running")
    assert not store.exists()


def test_many_small_files_are_merged(night: Night, photos: Path, tmp_path: Path) -> None:
    store = embedpipe.embed(photos, to=tmp_path / "photos.features", backbone=TINY)
    rows = store.to_arrow()
    for i in range(20):
        store.write(rows.slice(i % 12, 1).set_column(0, "id", [[f"extra/{i}"]]))
    assert len(store.refresh().table.files) > 16
    code, report, _ = night(photos, Path(store.path), "--no-prune")
    assert code == 0
    assert report["files_merged"] > 16
    assert len(store.refresh().table.files) == 1


def test_help_lists_the_exit_codes() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 done" in done.stdout
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("script", sorted(SCRIPT.parent.glob("*.py")), ids=lambda path: path.stem)
def test_pipelines_are_short_and_use_the_public_api(script: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) <= 155
    imports = re.findall(r"^(?:from|import) (embedpipe\S*)", text, re.MULTILINE)
    assert all(name.count(".") < 2 for name in imports), "a pipeline imports from packages, not from their modules"
