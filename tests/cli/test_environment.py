"""Options from the environment: ``--batch-size`` is also ``EMBEDPIPE_BATCH_SIZE``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import run
from conftest import TINY
from documents import PAGES, ROOT
from stored import clusters, make_store
from typer.main import get_command

import embedpipe
from embedpipe.cli import app
from embedpipe.cli.running.environment import NEVER, READ_ELSEWHERE, options_from_environment, variable_of
from embedpipe.errors import UsageError

VERBS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    X, y = clusters(30)
    return make_store(tmp_path_factory.mktemp("env") / "store", X, label=[f"class {number}" for number in y]).path


def fitted(store: str, *arguments: str) -> tuple[int, int]:
    """Return folds and seed of a fit that a job makes or a command."""
    values = json.loads(run("fit", store, "--head", "centroid", "--json", *arguments).stdout)
    return values["n_folds"], values["exit_code"]


def test_every_option_has_a_variable_and_no_variable_has_two_names() -> None:
    names: dict[str, set[str]] = {}
    for command in VERBS.values():
        for option in command.params:
            name = max(option.opts, key=len)
            if option.param_type_name == "option" and name not in NEVER:
                names.setdefault(variable_of(option) or name, set()).add(name)
    assert names.pop("--allow-root") == {"--allow-root"}  # its variable is read in Python too
    assert all(len(options) == 1 for options in names.values())
    assert not names.keys() & {*READ_ELSEWHERE}
    assert {
        "EMBEDPIPE_BATCH_SIZE",
        "EMBEDPIPE_PRUNE",
        "EMBEDPIPE_TO",
        "EMBEDPIPE_LOG",
        "EMBEDPIPE_RUNNER",
    } <= names.keys()


def test_variables_that_are_named_exist() -> None:
    known = {variable_of(option) for command in VERBS.values() for option in command.params} | {*READ_ELSEWHERE}
    pages = [page for page in PAGES if page.name != "changelog.md"]
    for path in [*ROOT.glob("embedpipe/**/*.py"), *pages]:
        for name in re.findall(r"(?<!_)\bEMBEDPIPE_[A-Z_]+\b(?!=tcp)", path.read_text(encoding="utf-8")):
            assert name in known or name in ("EMBEDPIPE_", "EMBEDPIPE_PORT"), (path, name)


def test_the_command_line_goes_before_the_environment(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted(store) == (5, 0)
    monkeypatch.setenv("EMBEDPIPE_FOLDS", "3")
    assert fitted(store) == (3, 0)
    assert fitted(store, "--folds", "4") == (4, 0)
    monkeypatch.setenv("EMBEDPIPE_FOLDS", "")
    assert fitted(store) == (5, 0)


@pytest.mark.parametrize(("text", "prunes"), [("1", True), ("yes", True), ("TRUE", True), ("0", False), ("off", False)])
def test_a_switch_is_on_or_off(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, prunes: bool
) -> None:
    monkeypatch.setenv("EMBEDPIPE_PRUNE", text)
    monkeypatch.setenv("EMBEDPIPE_TO", str(tmp_path / "s"))
    monkeypatch.setenv("EMBEDPIPE_SHARD", "1/2")
    message = "--shard" if prunes else "--backbone"  # pruning needs the whole source
    monkeypatch.setenv("EMBEDPIPE_BACKBONE", "nonsense")
    result = run("embed", photos)
    assert ("EMBEDPIPE_PRUNE needs the whole source" in result.output) is prunes, message


def test_repeated_options_are_separated_by_commas(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDPIPE_LAYER", "features,features")
    result = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY)
    assert "EMBEDPIPE_LAYER must name each layer once, got ['features', 'features']" in result.output


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("EMBEDPIPE_FOLDS", "many", "Invalid value for EMBEDPIPE_FOLDS"),
        ("EMBEDPIPE_FOLDS", "1", "EMBEDPIPE_FOLDS must be >= 2"),
        ("EMBEDPIPE_TASK", "sorting", "Invalid value for EMBEDPIPE_TASK"),
        ("EMBEDPIPE_CALIBRATE", "perhaps", "Invalid value for EMBEDPIPE_CALIBRATE"),
        ("EMBEDPIPE_REJECT_BY", "distance", "EMBEDPIPE_REJECT_BY needs a share of rows to reject: add --reject-share"),
    ],
)
def test_a_wrong_value_is_refused_with_the_variable(
    store: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = run("fit", store)
    assert result.exit_code == 2
    assert message in result.output
    assert "--" + variable.removeprefix("EMBEDPIPE_").lower() not in result.output


def test_unknown_variables_are_warned_of(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_SERVICE_HOST", "10.0.0.1")  # of Kubernetes, as the next two
    monkeypatch.setenv("EMBEDPIPE_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("EMBEDPIPE_VIEW_PORT_8000_TCP_ADDR", "10.0.0.1")
    assert run("info", store, "--quiet").exit_code == 0
    monkeypatch.setenv("EMBEDPIPE_BATCHSIZE", "hunter2")
    with pytest.warns(UserWarning, match=r"EMBEDPIPE_BATCHSIZE; did you mean EMBEDPIPE_BATCH_SIZE\?") as warned:
        run("info", store, "--quiet")
    assert "hunter2" not in str(warned[0].message)


def test_python_takes_no_option_from_the_environment(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_FOLDS", "3")
    assert embedpipe.fit(store, "centroid", progress=False).report.n_folds == 5


def test_variables_do_not_keep_saved_results_from_being_printed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--heads", "centroid", "--folds", "2", "--repeats", "1", "-q"]
    assert run("evaluate", store, *few, "--to", tmp_path / "x.json").exit_code == 0
    monkeypatch.setenv("EMBEDPIPE_SEED", "3")
    assert run("evaluate", tmp_path / "x.json").exit_code == 0
    refused = run("evaluate", tmp_path / "x.json", "--seed", "3")
    assert "saved results are measured already" in refused.stderr


def test_events_can_be_asked_for(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_LOG", "json")
    monkeypatch.setenv("EMBEDPIPE_FOLDS", "many")
    for line in run("fit", store).stderr.splitlines():
        assert json.loads(line)["event"] in ("start", "error", "end")


def test_a_job_goes_before_the_environment_and_the_command_line_before_it(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job.toml"
    text = f'[fit]\nstore = "{store}"\nto = "x.head"\nhead = "centroid"\n'

    def folds(*arguments: str) -> int:
        values = json.loads(run("run", job, "--json", *arguments).stdout)
        return values["steps"][0]["result"]["n_folds"]

    monkeypatch.setenv("EMBEDPIPE_FOLDS", "3")
    job.write_text(text)
    assert folds() == 3
    job.write_text(f"{text}folds = 4\n")
    assert folds() == 4
    assert folds("--set", "fit.folds=2", "--set", "fit.label=label") == 2
    job.write_text(text)
    monkeypatch.setenv("EMBEDPIPE_FOLDS", "1")
    result = run("run", job)
    assert f"{job}, [fit]: EMBEDPIPE_FOLDS must be >= 2" in result.stderr
    assert "--set must be TABLE.OPTION=VALUE" in run("run", job, "--set", "folds=2").stderr


def test_a_wrong_value_for_a_job_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_PRUNE", "perhaps")
    with pytest.raises(UsageError, match=r"wrong value of EMBEDPIPE_PRUNE: .*boolean"):
        options_from_environment(get_command(app), "embed")
