"""Damage to any file of a store, head, run or cache is noticed with the file's name, or changes no result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from damage.harness import RIGHT, Bench, all_kinds, table
from isolated import LEARNING, TRAINING, Isolated


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Isolated((*LEARNING, "faiss", "damage.specimens")) as isolated:
        yield Bench(tmp_path_factory.mktemp("damage") / "bench", isolated)


@pytest.mark.parametrize(("name", "count"), [("store", 2), pytest.param("head", 8, marks=pytest.mark.long)])
def test_damage_to_a_store_or_head_is_noticed_or_harmless(bench: Bench, name: str, count: int) -> None:
    trials = list(bench.trials(all_kinds([name]), count, seed=1))
    assert not [trial for trial in trials if trial.verdict not in RIGHT], table(trials)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_damages_are_noticed_or_harmless(tmp_path: Path) -> None:
    with Isolated(TRAINING) as isolated:
        trials = list(Bench(tmp_path / "bench", isolated).trials(all_kinds(), 1000, seed=0))
    assert not [trial for trial in trials if trial.verdict not in RIGHT], table(trials)
