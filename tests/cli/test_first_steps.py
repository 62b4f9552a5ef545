"""What a newcomer meets: the command alone, completion, counts in words, and Ctrl-C while libraries load."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from command import run
from conftest import TINY, write_photo
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore
from embedpipe import __main__ as entry
from embedpipe._utils.importing import OBJECTS
from embedpipe.cli import show
from embedpipe.cli.app import main
from embedpipe.embedding.bottleneck import Bottleneck
from embedpipe.report.drawing.wording import counted


def test_the_command_alone_says_where_to_start() -> None:
    result = run()
    assert result.exit_code == 0
    for words in ("embedpipe embed photos --to photos.features", "embedpipe fit", "embedpipe --help", "doctor"):
        assert words in result.stdout
    assert len(result.stdout.splitlines()) < 20


@pytest.mark.parametrize(
    ("words", "completed"),
    [("embedpipe em", "embed"), ("embedpipe embed --pre", "--precision"), ("embedpipe embed --precision ", "bf16")],
)
def test_bash_completes_verbs_options_and_values(
    words: str, completed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_EMBEDPIPE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    monkeypatch.setattr(sys, "argv", ["embedpipe"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert completed in capsys.readouterr().out.split()


def test_counts_are_singular_and_plural() -> None:
    assert [counted(n, "item") for n in (0, 1, 2000)] == ["0 items", "1 item", "2,000 items"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_class_names_that_are_digits_differ_from_their_counts(tmp_path: Path) -> None:
    X, y = clusters(9)
    store = make_store(tmp_path / "store", X, label=[str(number + 6) for number in y])
    shown = run("info", store.path).stdout
    assert "6: 3, 7: 3, 8: 3" in shown


def test_ctrl_c_while_libraries_load_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    during = []
    monkeypatch.setattr("embedpipe.cli.main", lambda: during.append(signal.getsignal(signal.SIGINT)))
    set_to = []
    real = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, action: (set_to.append(action), real(number, action))[1])
    before = real(signal.SIGINT, signal.default_int_handler)  # another test may have set one
    thresholds = gc.get_threshold()
    try:
        entry.main()
        assert gc.get_threshold()[0] == OBJECTS
    finally:
        real(signal.SIGINT, before)
        gc.set_threshold(*thresholds)
    assert set_to == [signal.SIG_DFL, signal.default_int_handler]
    assert during == [signal.default_int_handler]


def test_allow_root_is_an_option_of_verbs_that_read_stored_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDPIPE_ALLOW_ROOT", "/data")
    for verb in ("verify", "map", "search", "finetune", "benchmark", "advise", "evaluate"):
        assert "--allow-root" in run(verb, "--help").stdout, verb
    run("verify", tmp_path / "none", "--allow-root", "https://photos.example.org/", "--allow-root", "/more")
    assert os.environ["EMBEDPIPE_ALLOW_ROOT"] == "/data,https://photos.example.org/,/more"


def test_help_shows_ordinary_options_first() -> None:
    shown = run("embed", "--help").stdout
    order = ["--to", "--label", "--text", "--backbone", "--prune", "--json", "--prefix", "--drop-last", "--shard"]
    table = shown[shown.index("╭") :]
    places = [table.index(f" {name} ") for name in order]
    assert places == sorted(places)


def test_embed_names_the_store_after_the_source_and_mixes_no_sources(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "./photos/"):  # the second run is of the same source
        assert run("embed", name, "--backbone", TINY, "-q").exit_code == 0
    assert len(FeatureStore("photos.features")) == 12
    write_photo(tmp_path / "other/photos/cat/1.jpg", seed=1)
    refused = run("embed", "other/photos", "--backbone", TINY)
    assert refused.exit_code == 2
    assert f"photos.features holds another source, {photos}" in refused.stderr
    (tmp_path / "letters.features").mkdir()
    (tmp_path / "letters.csv").touch()
    assert "exists and is not a feature store" in run("embed", "letters.csv").stderr
    assert "--to must name the store of a source at a URL" in run("embed", "s3://bucket/photos").stderr


def test_map_writes_a_new_page_unless_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("embedpipe.report.pictures.map.map", lambda store, to, **options: to)
    assert run("map", "photos.features").stdout == "map.html\n"
    (tmp_path / "map.html").touch()
    assert "map.html exists and is overwritten only if it is named" in run("map", "photos.features").stderr


def test_help_shows_the_type_of_one_value_and_none_for_switches() -> None:
    shown = run("benchmark", "--help").stdout
    assert "<bool>" not in shown
    assert "list[" not in shown
    assert "<str>..." in shown


@pytest.mark.parametrize(("rate", "advised"), [(10.0, False), (2.0, True)])
def test_run_of_less_than_a_second_gets_no_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float, advised: bool
) -> None:
    for number in range(4):
        write_photo(tmp_path / "photos" / f"{number}.jpg", number)
    result = embedpipe.embed(tmp_path / "photos", tmp_path / "store", backbone=TINY, progress=False).summary
    assert result is not None
    result.bottleneck, result.advice = Bottleneck({"waiting": 1.0}, "waiting", rate, 0.0), "wait"
    show.summary(result, verbose=False)
    assert ("to speed it up: wait" in capsys.readouterr().out) == advised


def test_an_unknown_option_names_the_verbs_that_have_it() -> None:
    message = run("predict", "photos.head", "photos", "--picture", "a.png").stderr
    assert "fit" in message
    assert "it" in message
    assert "--split" not in message
    assert "--label" in run("fit", "photos.features", "--labl", "breed").stderr
