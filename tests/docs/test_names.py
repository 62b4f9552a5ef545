"""What the docs name exists: verbs, options, names of the package, files, links."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from documents import PAGES, ROOT, blocks_of, commands_of, name_of

from embedpipe.cli import app

VERBS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {
    verb: {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for verb, command in VERBS.items()
}
ALL_OPTIONS = set().union(*OPTIONS.values()) | {"--help", "--version"}
#: Options of other programs, where the docs name them outside of a command.
OTHERS = {"--standalone", "--nproc-per-node", "--to", "--source", "--target", "--summary", "--lock", "--least-auc"}
#: Pages about the past, which name what is gone.
CURRENT = [page for page in PAGES if page.name != "changelog.md"]


def commands(page: Path) -> list[tuple[str, set[str]]]:
    """Return each command of embedpipe in a page's blocks: its verb, and its options."""
    commands = []
    for block in blocks_of(page):
        for command in commands_of(block.text) if block.language in ("bash", "console") else ():
            words = shlex.split(command.rstrip(" &"), comments=True)
            if "embedpipe" in words and (rest := words[words.index("embedpipe") + 1 :]):
                commands.append((rest[0], {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}))
    return commands


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_commands_use_known_verbs_and_options(page: Path) -> None:
    for verb, options in commands(page):
        if not verb.startswith("-"):
            assert verb in OPTIONS
            assert options <= OPTIONS[verb] | {"--help"}, verb


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_options_in_the_text_exist(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    mentioned = [
        span for span in spans if not re.match(r"(python|pip|uv|make|docker|git|pytest|pipelines|benchmarks)\b", span)
    ]
    options = {option for span in mentioned for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
    assert options <= ALL_OPTIONS | OTHERS


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_names_of_the_package_exist(page: Path) -> None:
    for dotted in set(re.findall(r"\bembedpipe((?:\.[A-Za-z_]\w*)+)", page.read_text(encoding="utf-8"))):
        value: Any = importlib.import_module("embedpipe")
        for name in dotted[1:].split("."):
            if not hasattr(value, name):
                importlib.import_module(f"{value.__name__}.{name}")
            value = getattr(value, name)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "RESULTS.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\b((?:pipelines|tests|benchmarks|embedpipe|docs)/[\w./-]*\w/?)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_local_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_is_shown_in_a_command(verb: str) -> None:
    assert any(shown == verb for page in PAGES for shown, _ in commands(page))


def test_changelog_names_options_as_they_are_now() -> None:
    rows = re.findall(r"^  \|(.*)\|(.*)\|.*\|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    before, now = ({option for row in rows for option in re.findall(r"--[a-z][a-z-]*", row[i])} for i in (0, 1))
    assert now <= ALL_OPTIONS
    assert before & ALL_OPTIONS == {"--to"}
