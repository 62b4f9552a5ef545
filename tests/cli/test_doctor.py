"""The verb doctor: its table, its JSON and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from command import run
from conftest import TINY


def test_table_shows_every_finding_and_the_estimate(photos: Path) -> None:
    shown = run("doctor", photos, "--backbone", TINY, "--items", "1000000000", "--seconds", "0.1")
    assert shown.exit_code == 0, shown.output
    for words in ("devices", "cpu", "memory", "disk", "threads", "versions", "decoders", "accelerators", "extras"):
        assert f"\n{words} " in f"\n{shown.stdout}"
    assert "items a second, fp32, full decoding, on cpu by " in shown.stdout
    assert "1,000,000,000 items" in shown.stdout
    assert " hours" in shown.stdout
    assert run("doctor", "--seconds", "0", "-q").output == ""


def test_json_has_findings_and_estimates() -> None:
    diagnosis = json.loads(run("doctor", "--seconds", "0", "--json").stdout)
    assert diagnosis["ok"] is True
    assert {finding["name"] for finding in diagnosis["findings"]} >= {"cpu", "memory", "extras"}
    assert diagnosis["estimates"] == []


def test_backbone_that_was_not_measured_gives_exit_code_1() -> None:
    shown = run("doctor", "--backbone", "timm/resnet1800", "--seconds", "0.1", "-q")
    assert shown.exit_code == 1
    assert "timm/resnet1800 could not be measured: UnknownBackboneError" in shown.stdout


def test_wrong_arguments_give_exit_code_2() -> None:
    missing = run("doctor", "nowhere", "--backbone", TINY)
    assert missing.exit_code == 2
    assert "there is no file or folder 'nowhere'" in missing.stderr
    assert run("doctor", "--precision", "fp31").exit_code == 2
