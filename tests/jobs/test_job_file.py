"""Job files: unknown tables and options, wrong values, paths and secrets."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from embedpipe.errors import UsageError
from embedpipe.jobs.job_file import read_job
from embedpipe.jobs.running import read_steps

EMBED = '[embed]\nsource = "photos"\nto = "photos.features"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[fitt]\n",
            r"job.toml: unknown table \[fitt\]; did you mean 'fit'\? Available: embed, import-vectors, clean",
        ),
        ("to = 'x'\n", r"job.toml: to must stand below the name of a table, such as \[embed\]"),
        ("fit = 'lda'\n", r"job.toml: fit must be a table, \[fit\], got 'lda'"),
        ("", r"job.toml must have a table: one of \[embed\], \[import-vectors\], \[clean\], \[clusters\]"),
        ("[fit\n", r"job.toml must be a TOML file in UTF-8: .*line 1"),
        (EMBED + "batch_sise = 3\n", r"job.toml, \[embed\]: unknown option 'batch_sise'; did you mean 'batch_size'\?"),
        (EMBED + "batch_size = '3'\n", r"job.toml, \[embed\]: batch_size must be an integer, got '3'"),
        (EMBED + "batch_size = 0\n", r"job.toml, \[embed\]: batch_size must be an integer >= 1, got 0"),
        (EMBED + "prune = 'yes'\n", r"job.toml, \[embed\]: prune must be true or false, got 'yes'"),
        (EMBED + "force = true\n", r"job.toml, \[embed\]: force = true needs prune = true as well"),
        (EMBED + "max_failed = 'few'\n", r"job.toml, \[embed\]: max_failed must be a number of items such as 10"),
        ("[embed]\nsourc = 'photos'\nto = 'x'\n", r"unknown option 'sourc'; did you mean 'source'\?"),
        ("[embed]\nto = 'x'\n", r"job.toml, \[embed\]: source is missing"),
        ("[fit]\nto = 'x.head'\n", r"job.toml, \[fit\]: store is missing, and there is no table \[embed\] or \[import"),
        (EMBED + "[fit]\nto = 'x.head'\nhead = 'logref'\n", r"job.toml, \[fit\]: unknown head 'logref'; .*'logreg'"),
        (EMBED + "[evaluate]\nto = 'x.json'\nrepeats = 0\n", r"folds must be >= 2 and repeats >= 1, got 5 and 0"),
        (EMBED + "[evaluate]\nto = 'x.json'\nprotocol = 'knn'\n", r"\[evaluate\]: unknown protocol 'knn'"),
        (EMBED + "[evaluate]\nto = 'x'\n", r"job.toml, \[evaluate\]: the name of saved results must end in .json"),
        (EMBED + "[evaluate]\nto = 'x.json'\npage = 'x.pdf'\n", r"\[evaluate\]: the name of an HTML page must end in"),
        (
            EMBED + "[[fit]]\nto = 'x.head'\n[[fit]]\nto = './x.head'\n",
            r"job.toml, \[\[fit\]\] number 2: '.*x.head' is written by .*job.toml, \[\[fit\]\] number 1 too",
        ),
        (
            EMBED + "[[embed]]\n",
            "must be a TOML file",
        ),
        (
            "[[embed]]\nsource='a'\nto='a.f'\n[[embed]]\nsource='b'\nto='b.f'\n[fit]\nto='x.head'\n",
            r"\[fit\]: store is missing, and the job writes the stores .*a.f, .*b.f",
        ),
        ("[embed]\nsource='a'\nto=''\n", r"\[embed\]: to must be a path or URL, got ''"),
        (
            "[import-vectors]\nvectors='a.txt'\nto='b'\n",
            r"\[import-vectors\]: vectors must be .*\.npy, .*got '.*a.txt'",
        ),
        ('[embed]\nsource="a\\u0000b"\nto="b"\n', r"\[embed\]: source must be a path or URL, got 'a\\x00b'"),
        ("[fit]\nstore=''\nto='b'\n", r"\[fit\]: store must be a path or URL, got ''"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_table(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_steps(write(tmp_path, text))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert [table.verb for table in read_job(write(tmp_path, "\ufeff[embed]\nsource='a'\nto='b'\n"))] == ["embed"]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"cannot read the job file 'nowhere.toml': No such file"):
        read_job("nowhere.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jobs").mkdir()
    text = '[embed]\nsource = "../photos"\nto = "s3://bucket/photos.features"\nbackbone = "checkpoint/net.pt"\n'
    text += (
        'weights = "none"\nallow_root = ["lists", "/data"]\n[evaluate]\nto = "results.json"\nstores = "a.features"\n'
    )
    embed, evaluate = read_steps(write(Path("jobs"), text))
    assert embed.table.values == {
        "source": "photos",
        "to": "s3://bucket/photos.features",
        "backbone": "checkpoint/jobs/net.pt",
        "weights": "none",
        "allow_root": ["jobs/lists", "/data"],
    }
    assert (evaluate.to, evaluate.stores) == ("jobs/results.json", ("jobs/a.features",))


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_paths_of_a_file_that_is_piped_in_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("work", "jobs"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path = write(tmp_path, EMBED)
    pipe = tmp_path / "jobs" / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(EMBED,))
    writer.start()
    (piped,) = read_job(pipe)
    writer.join()
    with path.open() as stream:  # as `embedpipe run /dev/stdin < job.toml`
        (redirected,) = read_job(f"/dev/fd/{stream.fileno()}")
    assert piped.values == redirected.values == {"source": "photos", "to": "photos.features"}


@pytest.mark.parametrize(
    "value",
    ["s3://me:hunter2@bucket/x", "https://example.org/x.csv?token=hunter2", "s3://b/x?secret_key=hunter2&scheme=http"],
)
def test_a_secret_is_refused_and_not_shown(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match=r"\[embed\]: source must not hold a password or key") as error:
        read_job(write(tmp_path, f'[embed]\nto = "x"\nsource = "{value}"\n'))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("value", ["$HOME/photos", "s3://${BUCKET}/photos"])
def test_a_variable_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match=r"source must not name a variable"):
        read_job(write(tmp_path, f'[embed]\nto = "x"\nsource = "{value}"\n'))
