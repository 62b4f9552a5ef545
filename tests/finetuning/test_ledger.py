"""The ledger: what is kept of a fine-tuning, what later forecasts make of it, and files that it ignores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored import make_spec

from embedpipe._utils.cache import cache_entries, keep_limit, make_cache
from embedpipe.finetuning.advice.forecasting.forecast import forecast_gain
from embedpipe.finetuning.advice.forecasting.gain_model import Setting
from embedpipe.finetuning.advice.ledger import LedgerRow, add_to_ledger, data_digest, ledger_row, read_ledger

MEASURED: dict[str, Any] = {
    "labels": 800,
    "classes": 10,
    "probe": 0.8,
    "network": 0.9,
    "test_rows": 400,
    "seeds": 2,
    "minutes": 3.0,
}


def row(data: str = "photos", **changed: Any) -> LedgerRow:
    return ledger_row(make_spec(4, "resnet18"), data, **{**MEASURED, **changed})


def test_rows_are_read_by_others_but_not_by_the_same_data() -> None:
    add_to_ledger([row(), row("texts", labels=100)])
    rows, notes = read_ledger(without=data_digest("photos"))
    assert (rows, notes) == ([row("texts", labels=100)], [])
    assert len(read_ledger(without="")[0]) == 2


def test_same_runs_are_there_once_with_the_most_seeds() -> None:
    for seeds in (2, 3):
        add_to_ledger([row(seeds=seeds)])
    assert [each.seeds for each in read_ledger("")[0]] == [3]


def test_writers_at_once_lose_no_row() -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: add_to_ledger([row(f"data {number}")]), range(12)))
    assert {each.data for each in read_ledger("")[0]} == {data_digest(f"data {number}") for number in range(12)}


@pytest.mark.parametrize("provider", ["checkpoint", "python"])
def test_names_of_the_user_are_not_kept(provider: str) -> None:
    spec = make_spec(4, "secret/network")
    named = (replace(spec, provider=provider), replace(spec, provider="transformers", name="/home/me/secret"))
    assert [ledger_row(each, "photos of Jane", **MEASURED).backbone for each in named] == ["", ""]
    assert ledger_row(spec, "photos of Jane", **MEASURED).data.isalnum()


def test_damaged_and_foreign_files_are_ignored_with_a_note() -> None:
    add_to_ledger([row()])
    folder = make_cache("ledger")
    (good,) = folder.iterdir()
    (folder / "0000000000000000.parquet").write_bytes(b"PAR1 damaged")
    pq.write_table(pa.table({"id": ["a"]}), folder / "1111111111111111.parquet")
    for number, change in enumerate(({"probe": 1.5}, {"network": float("nan")}, {"pretraining": "no"}, {"labels": 0})):
        values = pq.read_table(good).to_pylist()[0] | change
        pq.write_table(
            pa.Table.from_pylist([values], pq.read_schema(good)), folder / f"222222222222222{number}.parquet"
        )
    rows, notes = read_ledger("")
    assert rows == [row()]
    assert len(notes) == 1
    assert notes[0].startswith("6 files of the ledger in ")


def test_ledger_is_listed_and_stays_when_room_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    add_to_ledger([row()])
    monkeypatch.setenv("EMBEDPIPE_CACHE_GB", "0")
    monkeypatch.setattr("embedpipe._utils.cache.IN_USE", -10.0)
    keep_limit()
    assert [entry.path.parent.name for entry in cache_entries()] == ["ledger"]


def test_forecast_moves_towards_what_other_data_of_the_user_gained() -> None:
    target = Setting(0.8, 1000, 10, "cnn-sup")
    before = forecast_gain(target)
    high, low = ([row(str(n), network=network).observed() for n in range(6)] for network in (0.95, 0.75))
    more, less = forecast_gain(target, high), forecast_gain(target, low)
    assert less.gain.value < before.gain.value < more.gain.value
    width = more.gain.high - more.gain.low
    assert width < before.gain.high - before.gain.low
    own = forecast_gain(target, [replace(each, data="", backbone="") for each in high])
    assert own.gain.high - own.gain.low < width  # runs on the same data say more


def test_rows_of_one_data_set_count_little_more_than_one() -> None:
    target = Setting(0.8, 1000, 10, "cnn-sup")
    several = [row(str(number), network=0.95).observed() for number in range(6)]
    backbones = [replace(each, data="photos", backbone=f"timm/net{number}") for number, each in enumerate(several)]
    again = [replace(each, data="photos") for each in several]
    widths = {}
    for name, known in (("one", several[:1]), ("again", again), ("backbones", backbones), ("data", several)):
        gain = forecast_gain(target, known).gain
        widths[name] = gain.high - gain.low
    assert widths["data"] < widths["backbones"] < widths["again"] < widths["one"]
    assert widths["one"] - widths["backbones"] < 0.6 * (widths["one"] - widths["data"])


def test_ledger_without_a_cache_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "nothing"))
    assert read_ledger("") == ([], [])
