"""The verbs finetune, benchmark and advise: for people, for programs, and their exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import run
from conftest import TINY
from PIL import Image

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.cli.finetuning import default_folder

FAST = ("--epochs", "1", "--batch-size", "8", "--near-duplicates", "off", "--trust")
LOG = ("--log", "json")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 48 images of two colours, a few of them with the wrong label."""
    root = tmp_path_factory.mktemp("cli")
    for i in range(48):
        colour = (200, 40 + i, 40) if (i % 2) ^ (i % 11 == 0) else (40, 40 + i, 200)
        path = root / "photos" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (36, 34), colour).save(path)
    embedpipe.embed(root / "photos", root / "store", backbone=TINY)
    return root / "store"


def test_finetune_prints_commands_that_work(store: Path, tmp_path: Path) -> None:
    command = ("finetune", store, "--to", tmp_path / "tuned", *FAST)
    shown = run(*command)
    assert shown.exit_code == 0, shown.output
    for words in ("initial check on", "test rows, read once: linear probe", "to embed with it:", "--weights"):
        assert words in shown.stdout
    answer = json.loads(run(*command, "--json").stdout)
    assert answer["test"]["rows"] == 10
    assert [epoch["number"] for epoch in answer["epochs"]] == [0, 1]
    line = next(line for line in shown.stdout.splitlines() if "to predict with it:" in line)
    again = line.split("embedpipe ")[1].split()
    again = [str(store.parent / "photos") if word == "DATA" else word for word in again]
    again[again.index("predictions.csv")] = str(tmp_path / "predictions.csv")
    assert run(*again, "--trust").exit_code == 0
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 49


def test_finetune_writes_a_page_and_says_what_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "FIRST_SECONDS", 0.0)
    command = ("finetune", store, "--to", tmp_path / "tuned", "--page", tmp_path / "page.html", *FAST)
    shown = run(*command)
    assert shown.exit_code == 0
    for step in ("loading the network", "fitting the linear probe", "checking the network", "measuring on the test"):
        assert step in shown.stderr
    # The latest epoch near the best is kept, which need not be the best.
    assert ("* kept: the latest epoch" in shown.stdout) == (", kept so far" in shown.stderr)
    written = (tmp_path / "page.html").read_text()
    assert written.count("<svg") == 2
    assert "On 10 test rows, read once" in written
    (tmp_path / "page.html").unlink()
    assert run(*command).exit_code == 0  # the finished run is loaded
    assert "On 10 test rows, read once" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("verb", ["finetune", "benchmark", "advise"])
def test_options_of_embed_in_a_message_are_said_to_be_its_own(tmp_path: Path, verb: str) -> None:
    (tmp_path / "table.csv").write_text("body of the mail,label\na,b\n")
    shown = run(verb, tmp_path / "table.csv", "--to", tmp_path / "runs")
    assert shown.exit_code == 2
    assert "(--text COLUMN) (options of `embedpipe embed`: embed the items first, and give the store" in shown.stderr
    assert not (tmp_path / "runs").exists()


def test_missing_photos_are_reported_with_exit_code_3(store: Path, tmp_path: Path) -> None:
    moved = store.parent / "photos" / "b"
    moved.rename(tmp_path / "b")
    try:
        shown, logged = (run("finetune", store, "--to", tmp_path / "tuned", *FAST, *log) for log in ((), LOG))
    finally:
        (tmp_path / "b").rename(moved)
    assert (shown.exit_code, logged.exit_code) == (3, 3)
    lines = shown.stderr.splitlines()
    assert sum(line.startswith("embedpipe: left out: b/") for line in lines) == 3
    result = json.loads((tmp_path / "tuned" / "result.json").read_bytes())
    assert f"... and {len(result['failed']) - 3} more: 'failed' in {tmp_path / 'tuned' / 'result.json'}" in lines
    events = [json.loads(line) for line in logged.stderr.splitlines()]
    assert sum(event["event"] == "item_failed" for event in events) == len(result["failed"])
    assert "no training image of 'b' could be read" in result["notes"]


def test_benchmark_prints_a_table_or_json(store: Path, tmp_path: Path) -> None:
    options = [
        "--seeds",
        "2",
        "--label-counts",
        "16",
        "--severities",
        "3",
        "--corruptions",
        "fog",
    ]
    command = ("benchmark", store, "--to", tmp_path / "runs", *options, "--learners", "linear-probe,lp-ft", *FAST)
    shown = run(*command, "--page", tmp_path / "page.html", "-v")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["labels", "linear-probe", "lp-ft"] in lines
    assert any(line[:3] == ["16", "lp-ft", "linear-probe"] for line in lines)
    for words in ("lp-ft 16 seed 1:", "2 seeds are too few for intervals", "s of training and measuring"):
        assert words in shown.stdout
    assert "<svg" in (tmp_path / "page.html").read_text()
    values = json.loads(run(*command, "--json").stdout)
    assert (values["label_counts"], values["seeds"], len(values["cells"])) == ([16], [0, 1], 4)


def test_advise_prints_the_verdict_and_the_next_step(store: Path) -> None:
    shown = run("advise", store, *FAST, "--min-gain", 0.06)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("recommendation: FIND OUT FIRST")
    assert "Proved at 95 %: can't tell yet." in shown.stdout
    assert "minus logreg, points" in shown.stdout
    description, command = shown.stdout.rstrip().splitlines()[-2:]
    assert re.fullmatch(r"next: \d networks? on \d+ labels, less than a minute, decides with .*", description)
    assert command.startswith(f"embedpipe advise {store}")
    assert "--time-budget 2min" in command


@pytest.mark.long
def test_advise_prints_json(store: Path) -> None:
    values = json.loads(run("advise", store, *FAST, "--min-gain", "0.9", "--json").stdout)
    assert values["verdict"]["decision"] == "not worth it"
    assert values["frozen_baselines"]["n_folds"] == 5
    assert values["benchmarks"] == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/photos.features/", "photos.tuned"),
        ("photos", "photos.tuned"),
        ("v1.2", "v1.2.tuned"),
        (".", "here.tuned"),
        ("photos/..", "here.tuned"),
        ("s3://bucket/photos.features/", "photos.tuned"),
    ],
)
def test_a_run_without_a_name_has_that_of_its_data(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert default_folder(source, ".tuned") == Path(name)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("finetune", "nowhere", "--to", "new"), "nowhere"),
        (("finetune", "STORE", "--to", "new", "--page", "page.pdf"), "must end in .html"),
        (("finetune", "STORE", "--to", "new", "--optimizer", "adam"), "'adam' is not one of 'adamw'"),
        (("benchmark", "STORE", "--to", "new", "--learners", "prob"), "did you mean 'linear-probe'"),
        (("benchmark", "STORE", "--to", "new", "--time-budget", "soon"), "such as 90s, 10min or 2h"),
        (("benchmark", "STORE", "--to", "new", "--page", "page.pdf"), "must end in .html"),
        (("advise", "STORE", "--page", "page.pdf"), "must end in .html"),
        (("advise", "STORE", "--time-budget", "1min"), "--to"),
    ],
)
def test_bad_usage_is_one_line_with_exit_code_2(
    store: Path, tmp_path: Path, command: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run(*[store if word == "STORE" else word for word in command], "-q")
    assert shown.exit_code == 2
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr
