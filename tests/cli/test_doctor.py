"""The verb doctor: for people, for programs, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

from command import run
from conftest import TINY


def test_doctor_for_people(photos: Path) -> None:
    shown = run("doctor", photos, "--backbone", TINY, "--items", "1000000000", "--seconds", "0.1")
    assert shown.exit_code == 0, shown.output
    for words in ("devices", "cpu", "memory", "disk", "threads", "versions", "decoders", "accelerators", "extras"):
        assert f"\n{words} " in f"\n{shown.stdout}"
    assert "items a second, fp32, full decoding, on cpu by " in shown.stdout
    assert "1,000,000,000 items" in shown.stdout
    assert " hours" in shown.stdout
    assert run("doctor", "--seconds", "0", "-q").output == ""


def test_doctor_for_programs() -> None:
    found = json.loads(run("doctor", "--seconds", "0", "--json").stdout)
    assert found["ok"] is True
    assert {finding["name"] for finding in found["findings"]} >= {"cpu", "memory", "extras"}
    assert found["estimates"] == []


def test_what_could_not_be_measured_is_said_with_exit_code_1() -> None:
    shown = run("doctor", "--backbone", "timm/resnet1800", "--seconds", "0.1", "-q")
    assert shown.exit_code == 1
    assert "timm/resnet1800 could not be measured: UnknownBackboneError" in shown.stdout


def test_bad_usage_has_exit_code_2() -> None:
    missing = run("doctor", "nowhere", "--backbone", TINY)
    assert missing.exit_code == 2
    assert "there is no file or folder 'nowhere'" in missing.stderr
    assert run("doctor", "--precision", "fp31").exit_code == 2
