"""Places of results: one that cannot be written is refused before the work, whose result would be lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from command import run
from conftest import TINY

from embedpipe.cli import app, show
from embedpipe.statistics import Estimate

#: A folder in which nobody can make a file, root neither.
NOWHERE = Path("/proc/sys")
#: Options that name a result.
OUTPUTS = {"--to", "--page", "--picture", "--table", "--predictions", "--mistakes", "--write-keep"}
#: Every verb with such an option. The store is not there: if the work had begun, its name would be in the message.
CASES = [
    ("fit no.features", "--to", "head"),
    ("fit no.features", "--picture", "confusion.png"),
    ("fit no.features", "--mistakes", "mistakes.html"),
    ("fit no.features", "--mistakes", "mistakes.csv"),
    ("predict no.head no", "--to", "predictions.csv"),
    ("search no.features no.jpg", "--to", "similar.csv"),
    ("search no.features no.jpg", "--picture", "similar.png"),
    ("map no.features", "--to", "map.html"),
    ("map no.features", "--to", "map.png"),
    ("export-table no.features", "--to", "rows.parquet"),
    ("evaluate no.features", "--to", "results.json"),
    ("evaluate no.features", "--table", "results.tex"),
    ("evaluate no.features", "--page", "evaluation.html"),
    ("evaluate no.features", "--predictions", "predictions.parquet"),
    ("evaluate no.features --protocol dino-knn", "--page", "evaluation.html"),
    ("rank no", "--to", "ranking.csv"),
    ("clean no.features", "--to", "findings.html"),
    ("clean no.features", "--to", "findings.csv"),
    ("clean no.features", "--write-keep", "keep.csv"),
    ("next no.features", "--to", "next.csv"),
    ("shift no.features no2.features", "--to", "shift.html"),
    ("clusters no.features", "--to", "clusters.csv"),
    ("clusters no.features", "--page", "clusters.html"),
    ("finetune no.features", "--to", "tuned"),
    ("finetune no.features", "--page", "tuned.html"),
    ("benchmark no.features", "--to", "bench"),
    ("benchmark no.features", "--page", "bench.html"),
    ("advise no.features --time-budget 1min", "--to", "advice"),
    ("advise no.features", "--page", "advice.html"),
    ("export no.head", "--to", "model"),
    ("embed photos --backbone " + TINY, "--to", "photos.features"),
    ("import-vectors no.npy --name a/b", "--to", "items.features"),
]

#: Stores, which may be at a URL.
STORES = {("--to", "photos.features"), ("--to", "items.features")}


@pytest.fixture
def folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(photos.parent)
    return photos.parent


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder in which nobody can make a file")
@pytest.mark.parametrize(("verb", "option", "name"), CASES)
def test_unwritable_place_is_refused_before_the_work(folder: Path, verb: str, option: str, name: str) -> None:
    result = run(*verb.split(), option, NOWHERE / name)
    assert result.exit_code in (1, 2)
    assert f"cannot write '{NOWHERE / name}'" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["photos"]


@pytest.mark.parametrize(("verb", "option", "name"), [case for case in CASES if case[1:] not in STORES])
def test_url_is_refused_where_a_result_is_a_local_file_or_folder(
    folder: Path, verb: str, option: str, name: str
) -> None:
    result = run(*verb.split(), option, f"s3://bucket/{name}")
    assert result.exit_code == 2
    assert f"got the URL 's3://bucket/{name}'" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["photos"]


def test_every_option_that_names_a_result_is_tried() -> None:
    group = typer.main.get_command(app)
    found = {
        (verb, option)
        for verb, command in group.commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in OUTPUTS & {*parameter.opts}
    }
    assert {(verb.split()[0], option) for verb, option, _ in CASES} == found


def test_differences_that_round_to_zero_have_no_minus() -> None:
    difference = Estimate(-0.0001, -0.0344, -0.00049)
    assert show.interval(difference, True, "+") == "+0.0 (-3.4 to +0.0)"
    assert show.interval(difference, False) == "0.000 (-0.034 to 0.000)"
