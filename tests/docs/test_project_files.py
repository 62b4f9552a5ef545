"""Files that other programs read: workflows, templates, hooks, the citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import README, ROOT

YAML_FILES = [
    *sorted((ROOT / ".github").rglob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path) -> None:
    assert isinstance(load(path), dict)


def test_workflow_names_what_exists() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    for path in re.findall(r"\btests/[\w./]+", text):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets


def test_workflow_installs_the_extras_of_make_install() -> None:
    extras = load(ROOT / ".github" / "workflows" / "ci.yml")["env"]["EXTRAS"]
    assert f"'.[{extras}]'" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_job_of_the_workflow_has_steps() -> None:
    for job in load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"].values():
        assert all("run" in step or "uses" in step for step in job["steps"])


def test_hooks_run_the_tools_of_the_environment() -> None:
    repositories = load(ROOT / ".pre-commit-config.yaml")["repos"]
    local = next(repository for repository in repositories if repository["repo"] == "local")
    assert all(hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])


def test_every_dependency_is_named_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for names in (project["dependencies"], *project["optional-dependencies"].values()):
        bare = [re.split(r"[\[<>=]", name)[0] for name in names]
        assert len(bare) == len(set(bare))


def test_readme_is_short_and_its_picture_is_small() -> None:
    assert README.stat().st_size < 8_000
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300_000


def test_citation_has_what_its_format_wants() -> None:
    """See https://github.com/citation-file-format, version 1.2.0."""
    citation = load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "type", "license", "abstract", "keywords"} <= citation.keys()
    assert citation["type"] == "software"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    for author in citation["authors"]:
        assert author.keys() in ({"name"}, {"family-names", "given-names"})
    assert not {"doi", "identifiers"} & citation.keys(), "no release has a DOI yet"
