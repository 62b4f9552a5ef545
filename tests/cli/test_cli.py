"""The command line: exit codes, JSON, and what people read."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import run
from conftest import TINY, write_photo

from embedpipe import FeatureStore
from embedpipe.backbones import BackboneOptions
from embedpipe.cli import app
from embedpipe.cli.options import with_options
from embedpipe.embedding import RunOptions
from embedpipe.sources import SourceOptions


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> Path:
    result = run("embed", photos, "--to", tmp_path / "store", "--backbone", TINY, "-q")
    assert (result.exit_code, result.output) == (0, "")
    return tmp_path / "store"


def test_embed_says_what_it_did(photos: Path, tmp_path: Path) -> None:
    (photos / "notes.txt").write_text("not a picture")
    result = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "-v")
    assert result.exit_code == 0
    assert "12 items: 12 embedded, 0 reused, 0 failed" in result.stdout
    assert "1 .txt" in result.stdout
    assert "device" in result.stdout
    again = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "--json")
    summary = json.loads(again.stdout)
    assert (summary["seen"], summary["reused"], summary["skipped"]) == (12, 12, {".txt": 1})


def test_failed_rows_give_exit_code_3(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    result = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY)
    assert result.exit_code == 3
    assert "cat/broken.jpg" in result.stderr
    listed = run("info", tmp_path / "s", "--failures", "--json")
    assert [row["id"] for row in json.loads(listed.stdout)["failures"]] == ["cat/broken.jpg"]
    write_photo(photos / "cat/broken.jpg", seed=5)
    assert run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY).exit_code == 0
    assert "no failures" in run("info", tmp_path / "s", "--failures").stdout


def test_names_are_shown_as_they_are(photos: Path, tmp_path: Path) -> None:
    for name in ("[bold]x.png", "a[/x].png", "new\nline.png", "\x1b[2J.png"):
        path = photos / "[red]cats" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    write_photo(photos / "[red]cats/good.jpg", seed=60)
    result = run("embed", photos, "--to", tmp_path / "[s]", "--backbone", TINY)
    assert result.exit_code == 3
    shown = run("info", tmp_path / "[s]", "--failures").stdout
    assert "[bold]x.png" in shown
    assert "a[/x" in shown
    assert "new\\nline.png" in shown
    assert "\x1b" not in shown
    assert "[red]cats 1" in run("info", tmp_path / "[s]").stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["embed", "nowhere", "--to", "s"], "nowhere"),
        (["embed", ".", "--to", "s", "--batch-size", "0"], "--batch-size must be an integer >= 1"),
        (["info", "nowhere"], "there is no feature store"),
        (["verify", "nowhere"], "there is no feature store"),
        (["nonsense"], "nonsense"),
        (["backbones", "timm/resnot18", "--layers", "--weights", "none"], "resnet18"),
    ],
)
def test_bad_usage_gives_exit_code_2(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_info_for_people_and_programs(store: Path) -> None:
    shown = run("info", store, "-v").stdout
    for fact in (
        "12",
        "cat 4, dog 4, owl 4",
        "features: 12 values, column embedding",
        "range auto, channels auto",
        "fingerprint",
        "commit",
    ):
        assert fact in shown
    facts = json.loads(run("info", store, "--json").stdout)
    assert facts["rows"] == 12
    assert facts["labels"] == {"cat": 4, "dog": 4, "owl": 4}
    assert facts["fingerprint"] == FeatureStore(store).spec.fingerprint()
    assert facts["last_run"]["device"] == "cpu"
    assert json.loads(run("info", store, "--version", "0", "--json").stdout)["rows"] == 0


def test_verify_passes_and_fails_by_exit_code(store: Path) -> None:
    result = run("verify", store, "--trust")
    assert result.exit_code == 0
    assert "12 embedded again" in result.stdout
    next(store.glob("*.parquet")).unlink()
    result = run("verify", store, "--trust", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


def test_label_compact_and_vacuum(store: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,kind\ncat/0000.jpg,lion\nowl/0002.jpg,owl\nnowhere.jpg,ant\n")
    result = run("label", store, table, "--id", "file", "--label", "kind", "--json")
    counts = json.loads(result.stdout)
    assert (counts["labelled"], counts["unchanged"], counts["unknown_ids"]) == (1, 1, 1)
    shown = run("info", store).stdout
    assert "lion 1" in shown
    assert "set by hand    label 2" in shown
    again = run("label", store, table, "--id", "file", "--label", "kind")
    assert "ids that are not in the store are left out, such as 'nowhere.jpg'" in again.stdout
    assert json.loads(run("compact", store, "--json").stdout)["files"] == 1
    assert json.loads(run("vacuum", store, "--older-than", "0", "--json").stdout)["deleted"]
    assert run("verify", store, "--trust", "-q").output == ""


def test_backbones_are_listed_with_their_layers() -> None:
    names = run("backbones", "resnet18").stdout.split()
    assert {"timm/resnet18", "torchvision/resnet18"} <= set(names)
    shown = run("backbones", "torchvision/resnet18", "--layers", "--weights", "none").stdout
    assert "layer4" in shown
    shown = run("backbones", "torchvision/resnet18", "--layers", "--weights", "none", "--json").stdout
    layers = json.loads(shown)["layers"]
    assert layers[-1]["dim"] == 512


def test_backbones_are_a_table_of_what_is_known_without_a_network() -> None:
    rows = json.loads(run("backbones", "torchvision/resnet?0", "--json").stdout)["backbones"]
    assert rows == [
        {
            "name": "torchvision/resnet50",
            "weights": rows[0]["weights"],
            "megabytes": pytest.approx(102.5, abs=0.1),
            "dim": 2048,
            "input_size": 224,
            "imagenet_accuracy": pytest.approx(0.80858),
        }
    ]
    shown = run("backbones", "timm/resnet18").stdout.splitlines()
    assert shown[0].split() == ["backbone", "weights", "MB", "dimensions", "input", "ImageNet,", "%"]
    assert next(line for line in shown if "resnet18.tv_in1k" in line).split()[2:] == ["47", "512", "224", "69.8"]


def test_backbones_that_are_here_need_no_download() -> None:
    rows = json.loads(run("backbones", "lite", "--here", "--json").stdout)["backbones"]
    assert {row["weights"] for row in rows} <= {"here"}
    assert "timm/tf_efficientnet_lite0" in [row["name"] for row in rows]
    result = run("backbones", "torchvision/vit_h_14", "--here")
    assert (result.exit_code, "omit --here" in result.stderr) == (2, True)


def test_every_verb_has_help_with_an_example() -> None:
    top = run("--help").stdout
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert name in top
        assert f"embedpipe {name}" in run(name, "--help").stdout, name


def test_help_lists_the_verbs_by_group() -> None:
    groups: dict[str, list[str]] = {}
    for line in run("--help").stdout.splitlines():
        if line.startswith("╭─ "):
            verbs = groups.setdefault(line.split()[1], [])
        elif line.startswith("│ ") and line[2] not in " -":
            verbs.append(line.split()[1])
    assert groups.pop("Options") == []
    assert groups == {
        "Store": [
            *("embed", "info", "verify", "compact", "repair", "vacuum", "forget"),
            *("import-vectors", "reduce", "push", "pull"),
        ],
        "Clean": ["clean", "shift", "next", "clusters", "label"],
        "Search": ["map", "export-table", "index", "search", "view"],
        "Learn": ["fit", "predict", "export", "serve"],
        "Compare": ["evaluate", "rank"],
        "Fine-tune": ["finetune", "benchmark", "advise"],
        "Jobs": ["run"],
        "Machine": ["backbones", "doctor", "cache"],
    }


def test_options_are_those_of_the_dataclasses() -> None:
    shown = run("embed", "--help").stdout
    for cls in (SourceOptions, BackboneOptions, RunOptions):
        for field in dataclasses.fields(cls):
            assert "--" + field.name.replace("_", "-") in shown
            assert field.metadata["help"]


def test_help_groups_options_by_their_class() -> None:
    lines = run("finetune", "--help").stdout.splitlines()
    heads = {line.split()[1]: number for number, line in enumerate(lines) if line.startswith("╭")}
    assert list(heads) == ["Arguments", "Options", "Training", "Splits", "Backbone's"]

    def place(option: str) -> int:
        return next(number for number, line in enumerate(lines) if f" {option} " in line and line.startswith("│"))

    assert heads["Options"] < place("--to") < place("--page") < place("--help") < heads["Training"]
    assert heads["Training"] < place("--epochs") < place("--seed") < heads["Splits"] < place("--group")
    assert place("--near-duplicates") < heads["Backbone's"] < place("--trust")
    for verb, names in (("benchmark", "Label counts, seeds and corruptions"), ("advise", "Forecast")):
        assert f"╭─ {names} ─" in run(verb, "--help").stdout


def test_an_option_added_to_a_dataclass_reaches_the_command() -> None:
    @dataclasses.dataclass(frozen=True)
    class Extra:
        sort_by: str = dataclasses.field(default="size", metadata={"help": "How to sort."})

    def command(**options: object) -> dict[str, object]:
        return options

    made = with_options(Extra)(command)
    assert made(sort_by="time") == {"sort_by": "time"}


def test_the_command_runs_as_a_process_without_a_terminal(store: Path) -> None:
    command = [sys.executable, "-m", "embedpipe", "info", store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "cat 4, dog 4, owl 4" in done.stdout
    version = subprocess.run(
        [sys.executable, "-m", "embedpipe", "--version"], capture_output=True, text=True, timeout=60
    )
    assert version.stdout.strip().count(".") == 2
