"""A folder with odd and broken files among 300 good ones: good files are embedded, bad ones become failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from conftest import TINY, write_photo
from oddities import write_oddities
from typer.testing import CliRunner

import embedpipe
from embedpipe.cli.app import app


def test_good_files_are_embedded_and_bad_ones_become_failures(tmp_path: Path) -> None:
    photos, to = tmp_path / "photos", tmp_path / "store"
    expected = write_oddities(photos)
    good = {id for id, stage in expected.items() if stage is None}
    bad = {id: stage for id, stage in expected.items() if stage is not None}
    good |= {str(write_photo(photos / f"good/{i:03d}.jpg", seed=i).relative_to(photos)) for i in range(300)}
    assert len(bad) >= 30
    command = ["embed", str(photos), "--to", str(to), "--backbone", TINY, "--json"]

    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert (summary["embedded"], summary["reused"], summary["failed"]) == (len(good), 0, len(bad))
    assert summary["seen"] == len(good) + len(bad)
    store = embedpipe.FeatureStore(to)
    assert set(store.ids()) == good
    assert np.isfinite(store.to_numpy()).all()
    failures = {row["id"]: row for row in store.failures().to_pylist()}
    assert {id: row["stage"] for id, row in failures.items()} == bad
    assert all(row["exception"] and row["message"] for row in failures.values())

    again = json.loads(CliRunner().invoke(app, command).stdout)
    assert (again["embedded"], again["reused"], again["failed"]) == (0, len(good), len(bad))

    repaired = sorted(bad)[::2]
    for i, id in enumerate(repaired):
        path = photos / id
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        write_photo(tmp_path / "repaired.jpg", seed=1000 + i).rename(path)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert (summary["embedded"], summary["failed"]) == (len(repaired), len(bad) - len(repaired))
    store = embedpipe.FeatureStore(to)
    assert set(store.failures()["id"].to_pylist()) == set(bad) - set(repaired)
    assert set(store.ids()) == good | set(repaired)
