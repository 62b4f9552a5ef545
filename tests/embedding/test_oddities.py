"""A folder with odd and broken files among 300 good ones: good files are embedded, bad ones become failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import TINY, write_photo
from oddities import write_oddities
from typer.testing import CliRunner

import embedpipe
from embedpipe.cli.app import app


class Oddities(NamedTuple):
    """A folder, the store to make, the ids of good files, and the failing stage of bad ones by id."""

    photos: Path
    store: Path
    good: set[str]
    bad: dict[str, str]


@pytest.fixture
def oddities(tmp_path: Path) -> Oddities:
    """Odd and broken files among 300 good ones."""
    photos = tmp_path / "photos"
    expected = write_oddities(photos)
    good = {id for id, stage in expected.items() if stage is None}
    good |= {str(write_photo(photos / f"good/{i:03d}.jpg", seed=i).relative_to(photos)) for i in range(300)}
    bad = {id: stage for id, stage in expected.items() if stage is not None}
    return Oddities(photos, tmp_path / "store", good, bad)


def run(oddities: Oddities) -> dict[str, Any]:
    """Embed the files on the command line, and return the summary. Failures of an earlier run give no exit code."""
    command = ["embed", str(oddities.photos), "--to", str(oddities.store), "--backbone", TINY, "--json"]
    result = CliRunner().invoke(app, command)
    summary = dict(json.loads(result.stdout))
    assert result.exit_code == (3 if summary["failed_new"] else 0)
    return summary


def test_good_files_are_embedded_and_bad_ones_become_failures(oddities: Oddities) -> None:
    good, bad = oddities.good, oddities.bad
    assert len(bad) >= 30
    summary = run(oddities)
    assert (summary["embedded"], summary["reused"], summary["failed"]) == (len(good), 0, len(bad))
    assert summary["seen"] == len(good) + len(bad)
    store = embedpipe.FeatureStore(oddities.store)
    assert set(store.ids()) == good
    assert np.isfinite(store.to_numpy()).all()
    failures = {row["id"]: row for row in store.failures().to_pylist()}
    assert {id: row["stage"] for id, row in failures.items()} == bad
    assert all(row["exception"] and row["message"] for row in failures.values())


def test_failures_are_tried_again_until_repaired(oddities: Oddities, tmp_path: Path) -> None:
    good, bad = oddities.good, oddities.bad
    run(oddities)
    again = run(oddities)
    assert (again["embedded"], again["reused"], again["failed"], again["failed_new"]) == (0, len(good), len(bad), 0)
    repaired = sorted(bad)[::2]
    for i, id in enumerate(repaired):
        path = oddities.photos / id
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        write_photo(tmp_path / "repaired.jpg", seed=1000 + i).rename(path)
    summary = run(oddities)
    assert (summary["embedded"], summary["failed"]) == (len(repaired), len(bad) - len(repaired))
    store = embedpipe.FeatureStore(oddities.store)
    assert set(store.failures()["id"].to_pylist()) == set(bad) - set(repaired)
    assert set(store.ids()) == good | set(repaired)
