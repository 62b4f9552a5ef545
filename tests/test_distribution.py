"""What `make dist` builds: the package and nothing else, small, and without paths of the machine that built it."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import embedpipe

ROOT = Path(embedpipe.__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
#: What a wheel holds beside the package.
ABOUT = ("METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "RECORD", "licenses/LICENSE")
#: Files of the repository that an sdist holds beside the package.
BESIDE = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md", "constraints.txt"}
BESIDE |= {"pyproject.toml"}
#: The most that a wheel and an sdist may weigh, in bytes.
LARGEST = 2_000_000


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Return the files that belong to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs the git repository")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a wheel and an sdist of the repository's files."""
    folder = tmp_path_factory.mktemp("distribution")
    for name in tracked:
        if name.startswith(("embedpipe/", "tests/test_")) or "/" not in name:
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    for kind in ("build_sdist", "build_wheel"):
        command = [sys.executable, "-W", "ignore", "-c", BUILD, kind, str(folder)]
        subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    return folder


def in_wheel(built: Path) -> dict[str, bytes]:
    (path,) = built.glob("*.whl")
    assert path.stat().st_size < LARGEST
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.long
def test_a_wheel_holds_every_file_of_the_package_and_no_other(built: Path, tracked: list[str]) -> None:
    about = f"embedpipe-{embedpipe.__version__}.dist-info"
    package = {name for name in tracked if name.startswith("embedpipe/")}
    assert {*in_wheel(built)} == package | {f"{about}/{name}" for name in ABOUT}
    assert {"embedpipe/py.typed", "embedpipe/__init__.pyi", "embedpipe/serving/static/index.html"} <= package


@pytest.mark.long
def test_an_sdist_holds_the_package_and_its_papers(built: Path, tracked: list[str]) -> None:
    (path,) = built.glob("*.tar.gz")
    assert path.stat().st_size < LARGEST
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in names if name.startswith("embedpipe.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - made == {name for name in tracked if name.startswith("embedpipe/")} | BESIDE


@pytest.mark.long
def test_nothing_in_a_wheel_names_the_machine_that_built_it(built: Path) -> None:
    private = re.compile(rb"/(?:home|root|work|Users)/\w|" + re.escape(str(built).encode()))
    named = {name: found[0] for name, data in in_wheel(built).items() if (found := private.search(data))}
    assert named == {}


@pytest.mark.long
def test_the_metadata_say_what_installers_need(built: Path) -> None:
    files = in_wheel(built)
    about = f"embedpipe-{embedpipe.__version__}.dist-info"
    metadata = email.message_from_bytes(files[f"{about}/METADATA"])
    assert metadata["Version"] == embedpipe.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert b"embedpipe = embedpipe.__main__:main" in files[f"{about}/entry_points.txt"]


def test_the_newest_version_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[({re.escape(embedpipe.__version__)}|Unreleased)\]", text, re.MULTILINE)


def test_the_licence_of_every_dependency_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    users = [each for name, parts in extras.items() if name not in ("docs", "lint", "test") for each in parts]
    names = {re.split(r"[\[<>=]", each)[0] for each in [*project["dependencies"], *users]}
    page = (ROOT / "docs/reference/licences.md").read_text()
    assert {name for name in names if f"`{name}` | " not in page} == set()
