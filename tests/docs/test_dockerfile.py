"""The Dockerfile: what it copies exists and is let in, its arguments are those of the docs. Nothing is built here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from documents import ROOT

TEXT = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/how-to/docker.md").read_text(encoding="utf-8")
LINES = re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def test_arguments_have_the_defaults_of_the_docs() -> None:
    defaults = dict(argument.split("=", 1) for argument in instructions("ARG"))
    documented = dict(re.findall(r"^\| `([A-Z]+)` \| `?([^|`]*)`? \|", PAGE, re.MULTILINE))
    assert {name: value or "none" for name, value in defaults.items()} == {
        name: value.strip() for name, value in documented.items()
    }
    for given in re.findall(r"--build-arg ([A-Z]+)=", TEXT + PAGE):
        assert given in defaults
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in [defaults["EXTRAS"], *re.findall(r"--build-arg EXTRAS=(\S+)", TEXT + PAGE)]:
        assert extras.keys() >= {*names.split(",")}


def test_only_what_is_copied_is_let_in() -> None:
    copied = {source for line in instructions("COPY") for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


def test_the_pinned_cuda_is_that_of_the_docs() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    major, minor = re.findall(r"^cuda-toolkit==(\d+)\.(\d+)", constraints, re.MULTILINE)[0]
    assert {*re.findall(r"TORCH=(cu\d+)", TEXT + PAGE)} == {f"cu{major}{minor}"}


def test_image_does_not_run_as_root() -> None:
    (user,) = instructions("USER")
    assert int(user) > 0
    assert LINES.index(f"USER {user}") > max(i for i, line in enumerate(LINES) if "pip install" in line)
    folders = {value for line in instructions("ENV") for value in re.findall(r"=(/\w+)", line)}
    assert folders | {*instructions("VOLUME"), *instructions("WORKDIR")} == {"/cache", "/data", "/weights"}
    assert all(f"`{folder}`" in PAGE for folder in folders)
    assert Path(instructions("FROM")[0]).name.startswith("python:")
