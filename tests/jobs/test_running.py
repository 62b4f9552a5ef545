"""Running jobs: nothing twice, steps that need what failed, the worst exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from command import run
from conftest import TINY
from stored import clusters, make_store

import embedpipe
from embedpipe.errors import ExitCode
from embedpipe.jobs import done_before

FIT = """
[fit]
store = "x.features"
to = "x.head"
head = "centroid"
folds = 2
mistakes = "mistakes.csv"
"""
EVALUATE = """
[evaluate]
stores = "x.features"
to = "x.json"
heads = ["centroid"]
splits = "splits.parquet"
folds = 2
repeats = 1
page = "x.html"
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job on a store of vectors."""
    X, y = clusters(30)
    make_store(tmp_path / "x.features", X, label=[f"class {number}" for number in y])
    path = tmp_path / "job.toml"
    path.write_text(FIT)
    return path


CLEAN = """
[clean]
store = "x.features"
to = "findings.csv"
keep = "keep.csv"
near_duplicates = 0.9999
"""


def statuses(path: Path) -> list[str]:
    return [step.status for step in embedpipe.run_job(path, progress=False).steps]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_head_is_fitted_once(job: Path) -> None:
    assert statuses(job) == ["done"]
    made = times(job.parent)
    assert {"mistakes.csv", "manifest.json", "x.head.done"} <= {path.name for path in made}
    again = embedpipe.run_job(job, progress=False)
    assert "done before, from version 2 of" in again.steps[0].skipped
    assert (again.steps[0].status, again.exit_code) == ("skipped", 0)
    assert times(job.parent) == made


def test_a_head_is_fitted_again_after_any_change(job: Path) -> None:
    folder = job.parent
    store, head = folder / "x.features", folder / "x.head"
    new_label = pa.table({"id": ["row-000"], "label": ["class 2"]})
    changes: dict[str, Callable[[], object]] = {
        "nothing was made": lambda: None,
        "another option": lambda: job.write_text(FIT.replace("[fit]", "[fit]\nseed = 1")),
        "a file is gone": (folder / "mistakes.csv").unlink,
        "another head in its place": lambda: embedpipe.fit(store, "lda", to=head, progress=False),
        "another label": lambda: embedpipe.FeatureStore(store).label(new_label),
        "a damaged record": lambda: (folder / "x.head.done").write_text("damaged"),
    }
    after: dict[str, str] = {}
    for name, change in changes.items():
        change()
        [after[name]] = statuses(job)
    assert after == dict.fromkeys(changes, "done")
    assert statuses(job) == ["skipped"]


def test_other_code_fits_again(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert statuses(job) == ["done"]
    monkeypatch.setattr(done_before, "_code", lambda: "another version")
    assert statuses(job) == ["done"]
    assert statuses(job) == ["skipped"]


@pytest.mark.long
def test_an_evaluation_is_made_once_until_something_changes(job: Path) -> None:
    folder = job.parent
    job.write_text(EVALUATE)
    assert statuses(job) == ["done"]
    made = times(folder)
    assert {"x.html", "x.json", "splits.parquet"} <= {path.name for path in made}
    assert statuses(job) == ["skipped"]
    assert times(folder) == made
    (folder / "x.html").unlink()
    assert statuses(job) == ["done"]
    shutil.copy(folder / "x.html", folder / "x.json")
    assert statuses(job) == ["done"]
    (folder / "splits.parquet").unlink()
    assert statuses(job) == ["done"]
    assert statuses(job) == ["skipped"]


def test_options_that_are_the_defaults_change_nothing(job: Path) -> None:
    assert statuses(job) == ["done"]
    job.write_text(FIT.replace("[fit]", "[fit]\nseed = 0"))
    assert statuses(job) == ["skipped"]


def test_a_failed_step_leaves_the_others_and_the_worst_code_counts(job: Path) -> None:
    job.write_text(
        '[[fit]]\nstore = "x.features"\nto = "a.head"\nlabel = "species"\n' + FIT.replace("[fit]", "[[fit]]")
    )
    result = embedpipe.run_job(job, progress=False)
    assert [step.status for step in result.steps] == ["refused", "done"]
    assert result.exit_code == ExitCode.REFUSED
    assert "species" in str(result.steps[0].error)
    assert not (job.parent / "a.head.done").exists()


def embed_job(photos: Path, to: Path) -> Path:
    path = to / "embed.toml"
    text = f'[embed]\nsource = "{photos}"\nto = "p.features"\nbackbone = "{TINY}"\n'
    path.write_text(text + '[fit]\nto = "p.head"\nhead = "centroid"\nfolds = 0\n')
    return path


def test_what_needs_a_store_that_was_not_embedded_is_left_out(tmp_path: Path) -> None:
    result = embedpipe.run_job(embed_job(tmp_path / "nowhere", tmp_path), progress=False)
    assert [step.status for step in result.steps] == ["refused", "skipped"]
    assert "p.features was not written" in result.steps[1].skipped
    assert result.exit_code == ExitCode.REFUSED


def objects(path: Path) -> tuple[int, dict[str, Any]]:
    result = run("run", path, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_the_command_runs_a_job_and_its_exit_code_is_the_worst(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    job = embed_job(photos, tmp_path)
    assert run("run", job, "--dry-run").stdout.split() == [
        "embed",
        f"{tmp_path}/p.features",
        "fit",
        f"{tmp_path}/p.head",
    ]
    planned = json.loads(run("run", job, "--dry-run", "--json").stdout)["steps"]
    assert planned == [{"verb": "embed", "to": f"{tmp_path}/p.features"}, {"verb": "fit", "to": f"{tmp_path}/p.head"}]
    assert not (tmp_path / "p.features").exists()
    code, values = objects(job)
    assert (code, values["status"], values["exit_code"]) == (3, "partly failed", 3)
    assert [step["status"] for step in values["steps"]] == ["partly failed", "done"]
    assert values["steps"][0]["result"]["embedded"] == 12
    code, values = objects(job)  # the broken photo is no news
    assert code == 0
    assert [step["status"] for step in values["steps"]] == ["done", "skipped"]
    assert values["steps"][0]["result"]["embedded"] == 0


def test_the_command_prints_what_each_verb_prints(job: Path) -> None:
    result = run("run", job)
    assert result.exit_code == 0, result.output
    assert f"fit {job.parent}/x.head: done\ncentroid: classification of 'label'" in result.stdout
    (again,) = run("run", job).stdout.splitlines()
    assert "done before, from version 2 of" in again
    assert run("run", job, "--quiet").output == ""


def test_findings_are_made_once(job: Path) -> None:
    job.write_text(CLEAN + FIT)
    folder = job.parent
    shown = run("run", job)
    assert shown.exit_code == 0, shown.output
    assert "in 30 rows" in shown.stdout
    assert {"findings.csv", "findings.csv.done", "keep.csv"} <= {path.name for path in folder.iterdir()}
    made = times(folder)
    assert statuses(job) == ["skipped", "skipped"]
    assert times(folder) == made


def test_clusters_are_written_once(job: Path) -> None:
    job.write_text('[clusters]\nstore = "x.features"\nto = "groups.csv"\npage = "groups.html"\n')
    shown = run("run", job)
    assert shown.exit_code == 0, shown.output
    assert "of 30 rows" in shown.stdout
    assert {"groups.csv", "groups.csv.done", "groups.html"} <= {path.name for path in job.parent.iterdir()}
    assert statuses(job) == ["skipped"]
    (job.parent / "groups.html").unlink()
    assert statuses(job) == ["done"]
    job.write_text(job.read_text().replace(".csv", ".html"))
    assert "the name of the table must end in" in run("run", job).stderr


def test_findings_are_made_again_once_rows_are_excluded(job: Path) -> None:
    job.write_text(CLEAN + FIT)
    folder = job.parent
    assert run("run", job).exit_code == 0
    embedpipe.FeatureStore(folder / "x.features").exclude(pa.table({"id": ["row-000"], "excluded": ["blurred"]}))
    result = embedpipe.run_job(job, progress=False)
    assert [step.verb for step in result.steps] == ["clean", "fit"]
    assert [step.status for step in result.steps] == ["done", "done"]
    assert result.to_dict()["steps"][0]["result"]["rows"] == 29
    assert (folder / "keep.csv").read_text().splitlines()[1] == '"row-000","blurred"'


def test_unknown_kind_of_table_is_refused_before_the_job(job: Path) -> None:
    job.write_text(CLEAN.replace("findings.csv", "findings.pdf"))
    assert "findings.pdf" in run("run", job).stderr


def test_vectors_are_imported_and_fitted(tmp_path: Path) -> None:
    X, y = clusters(30)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data/v.npy", X)
    items = pa.table({"id": [f"item {row}" for row in range(len(X))], "kind": [f"class {number}" for number in y]})
    pa.csv.write_csv(items, tmp_path / "data/items.csv")
    text = '[import-vectors]\nvectors = "data/v.npy"\nids = "data/items.csv"\nlabels = "kind"\nto = "x.features"\n'
    path = tmp_path / "job.toml"
    path.write_text(text + 'name = "my/model"\n' + FIT.replace('store = "x.features"\n', ""))
    output = run("run", path).stdout
    assert f"import-vectors {tmp_path / 'x.features'}: done" in output
    assert f"{len(X)} vectors of {X.shape[1]} values: {len(X)} added" in output
    result = embedpipe.run_job(path, progress=False)
    assert [step.status for step in result.steps] == ["done", "skipped"]
    assert result.to_dict()["steps"][0]["result"]["unchanged"] == len(X)
    np.save(tmp_path / "data/v.npy", X[:-1])
    failed = embedpipe.run_job(path, progress=False)
    assert [step.status for step in failed.steps] == ["refused", "skipped"]
    assert failed.steps[1].skipped.endswith("x.features was not written")
