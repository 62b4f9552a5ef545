"""The `bash` and `python` blocks of the README and of the docs, run in order, one folder and one test a page."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command import run
from documents import PAGES, Block, blocks_of, commands_of, name_of, starts_with

RUN = {"bash", "python"}
NOT_RUN = {"console", "dockerfile", "ini", "text", "toml", "yaml"}
RUNNING = [page for page in PAGES if any(block.language in RUN for block in blocks_of(page))]


def run_shell(block: Block, where: str) -> None:
    """Run the commands of a block: those of embedpipe in this process, which saves their imports, others by bash.

    A bound of the memory counts what the process holds, and this one holds what other tests needed.
    """
    for command in commands_of(block.text):
        if command.startswith("embedpipe ") and "--memory" in command:
            subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True)
        elif command.startswith("embedpipe "):
            result = run(*shlex.split(command)[1:])
            assert result.exit_code == 0, f"{where}\n{command}\n{result.output}"
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)


@pytest.fixture
def run_page(open_folder: Callable[[list[str]], Path]) -> Callable[[Path], dict[str, Any]]:
    """Return a function that runs a page's blocks and returns the names that its Python blocks define."""

    def run_blocks(page: Path) -> dict[str, Any]:
        open_folder(starts_with(page))
        names: dict[str, Any] = {"__name__": "page"}
        for block in blocks_of(page):
            where = f"{name_of(page)}:{block.line}"
            if block.language == "bash":
                run_shell(block, where)
            elif block.language == "toml" and block.text.startswith("# "):  # a file, with its name in the first line
                Path(block.text.partition("\n")[0].removeprefix("# ")).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        return names

    return run_blocks


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_known_languages(page: Path) -> None:
    languages = {block.language for block in blocks_of(page)}
    assert {language for language in languages if not language.startswith("{")} <= RUN | NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_other_programs_parse(page: Path) -> None:
    """Those of Kubernetes and Slurm are not run."""
    for block in blocks_of(page):
        if block.language == "yaml":
            assert {"apiVersion", "kind", "metadata", "spec"} <= set(yaml.safe_load(block.text))
        elif block.text.startswith("#!/bin/bash"):
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


#: Pages whose blocks measure this machine, fine-tune, fit many heads or load many backbones.
LONG = {
    f"docs/how-to/{name}.md"
    for name in ("calibrate-and-reject", "compare-and-choose", "fine-tune", "own-backbone", "speed")
}
LONG.add("docs/reference/backbones.md")


def mark_long(page: Path) -> Any:
    name = name_of(page)
    return pytest.param(page, id=name, marks=[pytest.mark.long] if name in LONG else [])


@pytest.mark.no_cover
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [mark_long(page) for page in RUNNING])
def test_blocks_run_in_order(page: Path, run_page: Callable[[Path], dict[str, Any]]) -> None:
    names = run_page(page)
    if check := CHECKS.get(name_of(page)):
        check(names)


def check_readme(names: dict[str, Any]) -> None:
    assert names["X"].shape == (24, 1280)
    assert names["head"].predict("new_photos")["label"].to_pylist() == ["cat", "coffee"]
    assert pd.read_csv("predictions.csv")["label"].tolist() == ["cat", "coffee"]


def check_photos(names: dict[str, Any]) -> None:
    assert set(names["y"]) == {"cat", "coffee"}
    assert names["store"].summary.reused == 24
    for picture in ("confusion.png", "similar.png", "map.png"):
        assert Path(picture).stat().st_size > 5_000


def check_texts(names: dict[str, Any]) -> None:
    assert pd.read_csv("decisions.csv")["label"].tolist() == ["spam", "ham"]
    assert names["model"].score(names["sms"], names["sms"]["category"]) == 1.0


def check_labels(names: dict[str, Any]) -> None:
    assert "opinion" in names["store"].refresh().data_columns


#: What came of a page's blocks, where that says more than that they ran.
CHECKS = {
    "README.md": check_readme,
    "docs/tutorials/photos.md": check_photos,
    "docs/tutorials/texts.md": check_texts,
    "docs/how-to/read-a-store.md": check_labels,
}
