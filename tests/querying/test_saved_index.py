"""The saved index: its answers are those of exact search, it follows the store, and damage is refused with a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import clusters, make_spec, make_store

from embedpipe import FeatureStore, SimilarityIndex, forget, search
from embedpipe._utils.checksums import read_json, write_json
from embedpipe.errors import UsageError
from embedpipe.neighbours import approximate
from embedpipe.querying import index as module
from embedpipe.querying.saved_index import move_to_version
from embedpipe.store.schema import vector_column

DIM = 8
FILE = {"name": "../keys-000000000000.arrow", "size": 1, "sha256": "0"}


def rows_of(ids: list[str], rng: np.random.Generator) -> pa.Table:
    """Return rows of new contents with these ids."""
    centres = np.random.default_rng(0).standard_normal((6, DIM))
    X = centres[rng.integers(0, 6, len(ids))] + 0.5 * rng.standard_normal((len(ids), DIM))
    return pa.table(
        {
            "id": ids,
            "content_hash": [f"{value:064x}" for value in rng.integers(0, 2**62, len(ids))],
            "source_root": ["made up"] * len(ids),
            "embedding": vector_column(X.astype(np.float32)),
        }
    )


def require_exact(index: SimilarityIndex, rng: np.random.Generator, least: float) -> None:
    """Require the scores of exact search for a share of the neighbours, and rows of the store with their own scores."""
    X = np.asarray(index.vectors[:])
    queries = X[rng.integers(0, len(X), 50)] + 0.1 * rng.standard_normal((50, X.shape[1]))
    scores, rows = index.search(queries, 10)
    expected, _ = index.search(queries, 10, exact=True)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    lengths = np.linalg.norm(X[rows].astype(np.float64), axis=2)
    cosines = np.einsum("qkd,qd->qk", X[rows].astype(np.float64), unit) / lengths
    np.testing.assert_allclose(scores, cosines, atol=1e-6)
    assert (scores <= expected + 1e-12).all()
    assert (np.abs(scores - expected) <= 1e-12).mean() >= least
    assert all(len(set(each)) == len(each) for each in rows.tolist())


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of 600 rows with an index."""
    path = tmp_path_factory.mktemp("indexed") / "s"
    make_store(path, clusters(600)[0])
    SimilarityIndex.build(path, recall=0.95)
    return path


@pytest.fixture
def copied(indexed: Path, tmp_path: Path) -> Path:
    """Return a copy of the store and its index."""
    shutil.copytree(indexed, tmp_path / "s")
    shutil.copytree(f"{indexed}.index", tmp_path / "s.index")
    return tmp_path / "s"


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 200), distinct=st.integers(1, 50), share=st.floats(0, 1))
def test_scores_equal_brute_force_with_ties_and_filters(seed: int, count: int, distinct: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((distinct, DIM)).astype(np.float32)[rng.integers(0, distinct, count)]
    X *= 2.0 ** rng.integers(-3, 4, (count, 1))
    queries = np.concatenate([X[:2], rng.standard_normal((2, DIM))])
    mask = rng.random(count) < share
    with tempfile.TemporaryDirectory() as folder:
        index = SimilarityIndex.build(make_store(Path(folder) / "s", X))
        assert (index.state, index.how().method) == ("ready", "approximate")
        wide, unit = X.astype(np.float64), queries / np.linalg.norm(queries, axis=1, keepdims=True)
        cosines = np.einsum("qd,nd->qn", unit, wide) / np.linalg.norm(wide, axis=1)
        for chosen in (None, mask):
            allowed = np.arange(count) if chosen is None else np.flatnonzero(chosen)
            with mock.patch.object(approximate, "FEW_ROWS", 0):
                scores, rows = index.search(queries, 7, rows=chosen)
            assert scores.shape == (len(queries), min(7, len(allowed)))
            for i in range(len(queries)):
                order = sorted(allowed, key=lambda row, i=i: (-round(cosines[i, row], 6), row))[:7]
                assert rows[i].tolist() == order
                np.testing.assert_allclose(scores[i], cosines[i, order], atol=1e-6)


def follow(path: Path, rounds: int, seed: int) -> list[str]:
    """Add, change and remove rows, update now and then, compare with exact search; return the states that were seen."""
    rng = np.random.default_rng(seed)
    store = FeatureStore.create(path, make_spec(DIM))
    store.write(rows_of([f"row-{i:05d}" for i in range(300)], rng))
    SimilarityIndex.build(path, recall=0.95)
    states, removed = [], set()
    for number in range(rounds):
        ids = store.refresh().ids()
        what = rng.integers(0, 5)
        if what == 0:
            added = [f"row-{value:05d}" for value in rng.integers(0, 99_999, rng.integers(1, 60))]
            store.write(rows_of(sorted({*added} - {*ids}), rng))
        elif what == 1:
            store.write(rows_of(sorted(rng.choice(ids, min(20, len(ids)), replace=False).tolist()), rng))
        elif what == 2 and len(ids) > 50:
            gone = rng.choice(ids, rng.integers(1, 25), replace=False).tolist()
            store.remove(gone)
            removed |= {*gone}
        elif what == 3:
            store.label(pa.table({"id": ids, "label": [f"{number}"] * len(ids)}))
        elif what == 4:
            store.compact()
        removed -= {*store.refresh().ids()}
        index = SimilarityIndex.load(path)
        states.append(index.state)
        if rng.random() < 0.5:
            index = index.update()
            assert index.state == "ready"
            assert index.recall(rows=200).mean >= 0.85
        require_exact(index, rng, 0.8)
        answers = index.search(np.asarray(index.vectors[:3]), len(index), exact=False)[1]
        assert not removed & {*index.ids.take(pa.array(answers.ravel())).to_pylist()}
        assert (np.sort(answers, axis=1) == np.arange(len(index))).all()
    return states


def test_index_follows_the_store(tmp_path: Path) -> None:
    states = follow(tmp_path / "s", rounds=6, seed=1)
    assert {"ready", "behind"} <= {*states}


@pytest.mark.long
def test_index_follows_the_store_for_50_rounds(tmp_path: Path) -> None:
    states = follow(tmp_path / "s", rounds=50, seed=0)
    assert states.count("behind") > 10


def test_update_builds_anew_after_many_changes(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = SimilarityIndex.load(copied)
    store = FeatureStore(copied)
    store.remove(store.ids()[:200])
    after = SimilarityIndex.load(copied).update(progress=True)
    assert "built anew: 200 rows of 600 were added or removed" in capfd.readouterr().err
    assert (after.state, after.saved.manifest.built_rows, after.saved.manifest.changed) == ("ready", 400, 0)
    assert (before.saved.manifest.rows, len(before.ids), len(before.vectors)) == (600, 600, 600)


def test_update_builds_anew_where_cells_become_uneven(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = rows_of([f"new-{i}" for i in range(140)], np.random.default_rng(0))
    same = vector_column(np.ones((140, DIM), np.float32))
    FeatureStore(copied).write(rows.set_column(rows.schema.get_field_index("embedding"), "embedding", same))
    SimilarityIndex.load(copied).update(progress=True)
    assert "built anew: its cells became twice as uneven" in capfd.readouterr().err


def test_update_builds_anew_where_recall_falls(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    manifest = read_json(Path(f"{copied}.index/manifest.json"))
    manifest["tuning"].update(probes=[3, 3], candidates=2)
    write_json(manifest, Path(f"{copied}.index/manifest.json"))
    FeatureStore(copied).write(rows_of(["new"], np.random.default_rng(0)))
    after = SimilarityIndex.load(copied).update(progress=True)
    assert "built anew: its recall fell to at least 0." in capfd.readouterr().err
    assert after.saved.manifest.recall.at_least >= 0.9


def test_build_keeps_an_index_with_the_same_promise(copied: Path) -> None:
    first = SimilarityIndex.load(copied).saved.manifest
    assert SimilarityIndex.build(copied, recall=0.95).saved.manifest == first
    assert SimilarityIndex.build(copied, recall=0.8).saved.manifest.generation != first.generation
    names = sorted(path.name.split("-")[0] for path in Path(f"{copied}.index").iterdir())
    assert names == ["cells", "keys", "manifest.json"]


def test_ready_index_opens_without_the_vectors(copied: Path) -> None:
    for part in copied.glob("*.parquet"):
        part.unlink()
    index = SimilarityIndex.load(copied)
    assert (index.state, len(index)) == ("ready", 600)
    assert str(index.how()).startswith("approximate, recall@10 0.")
    assert str(index.how(exact=True)) == str(index.how(rows=[1, 2])) == "exact"


def test_search_says_how_it_found_the_rows(copied: Path) -> None:
    neighbours = search(copied, "row-000", k=3)
    assert neighbours.how.method == "approximate"
    assert neighbours.how.at_least >= 0.9
    assert search(copied, "row-000", k=3, exact=True).how.method == "exact"


def test_notes_say_what_would_make_searches_faster(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert SimilarityIndex.load(copied).notes() == []
    FeatureStore(copied).remove(["row-003"])
    assert (SimilarityIndex.load(copied).state, SimilarityIndex.load(copied).notes()) == ("behind", [])
    FeatureStore(copied).write(rows_of(["new-1", "new-2"], np.random.default_rng(0)))
    answers = search(copied, "row-000", k=2, progress=True)
    assert "2 new rows not yet in the index: `embedpipe index` takes changes" in capfd.readouterr().err
    assert answers.how.method == "approximate"
    store = FeatureStore(copied)
    plain = SimilarityIndex(store, store.select_layers())
    with mock.patch.object(module, "EXACT_BYTES", 1 << 10):
        assert plain.notes() == ["all 0.0 GB of vectors are compared: `embedpipe index` makes searches faster"]


def refusal(path: Path) -> str:
    """Return why the index of a store is refused; its searches must be exact all the same."""
    with pytest.warns(UserWarning, match="the index of .* is not used"):
        index = SimilarityIndex.load(path)
    assert (index.state, index.how().method) == ("refused", "exact")
    assert index.search(np.ones(DIM), 1)[0].shape == (1, 1)
    return index.reason


def damage(path: Path, times: int, seed: int) -> list[str]:
    """Flip a bit of a file of the index, or cut it, one file at a time; return the reasons."""
    rng = np.random.default_rng(seed)
    reasons = []
    for number in range(times):
        files = sorted(Path(f"{path}.index").iterdir())
        file = files[number % len(files)]
        content = file.read_bytes()
        at = int(rng.integers(0, len(content)))
        bad = bytearray(content if rng.random() < 0.5 else content[:at])
        if len(bad) == len(content):
            bad[at] ^= 1 << int(rng.integers(0, 8))
        file.write_bytes(bytes(bad))
        reasons.append(refusal(path))
        file.write_bytes(content)
    with warnings.catch_warnings(action="error"):
        assert SimilarityIndex.load(path).state == "ready"
    return reasons


def test_damage_is_refused_with_a_reason(copied: Path) -> None:
    reasons = damage(copied, 12, 0)
    assert all(reasons)
    assert {"cells", "keys-", "manif"} <= {reason[:5] for reason in reasons}


@pytest.mark.long
def test_200_damages_are_refused_with_a_reason(copied: Path) -> None:
    assert all(damage(copied, 200, 1))


def test_indexes_of_other_stores_layers_and_backbones(copied: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "other", clusters(600)[0])
    shutil.copytree(f"{copied}.index", tmp_path / "other.index")
    assert refusal(tmp_path / "other") == "it was made for another store"
    (tmp_path / "s.index" / "manifest.json").unlink()
    with warnings.catch_warnings(action="error"):
        assert SimilarityIndex.load(copied).state == "none"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"next_key": 1 << 50}, "has numbers or names that no index has"),
        ({"cells": 1 << 50}, "has numbers or names that no index has"),
        ({"bits": 7}, "has numbers or names that no index has"),
        ({"rows": "600"}, "has numbers or names that no index has"),
        ({"rows": 599}, "its keys are not those"),
        ({"cells": 76}, "holds no 76 cells of 600 rows of 8 values"),
        ({"more": 1}, "lacks or adds values"),
        ({"target": "high"}, "has numbers or names that no index has"),
        ({"files": {"cells": FILE, "keys": FILE}}, "has numbers or names that no index has"),
        ({"files": {"cells": {**FILE, "size": None}, "keys": FILE}}, "has numbers or names that no index has"),
        ({"format": 2}, "reads format 1: install a newer embedpipe"),
        ({"fingerprint": "0"}, "made for vectors of another backbone"),
        ({"dim": 300}, "made for vectors of another backbone"),
    ],
)
def test_manifests_of_no_index_are_refused(copied: Path, change: dict[str, Any], reason: str) -> None:
    manifest = Path(f"{copied}.index/manifest.json")
    write_json({**read_json(manifest), **change}, manifest)
    assert reason in refusal(copied)


def test_missing_file_is_named(copied: Path) -> None:
    (cells,) = Path(f"{copied}.index").glob("cells-*")
    cells.unlink()
    assert refusal(copied) == f"{cells.name} is missing"


def test_index_of_a_damaged_folder_is_built_anew(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (Path(f"{copied}.index") / "manifest.json").write_text("{}")
    assert SimilarityIndex.build(copied, recall=0.95, progress=True).state == "ready"
    assert "is built anew: manifest.json cannot be used" in capfd.readouterr().err


KILLED = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from querying.test_saved_index import rows_of
from embedpipe import FeatureStore, SimilarityIndex
store = FeatureStore({path!r})
rng = np.random.default_rng({seed})
print("ready", flush=True)
for number in range(1000):
    ids = store.refresh().ids()
    store.write(rows_of([f"new-{seed}-{{number}}-{{i}}" for i in range(5)], rng))
    store.remove(rng.choice(ids, 5, replace=False).tolist())
    SimilarityIndex.load(store.refresh()).update()
"""


def kill(path: Path, moments: int) -> None:
    """Kill a process that updates an index, at random moments; each time the index must be whole."""
    rng = np.random.default_rng(0)
    for seed in range(moments):
        script = KILLED.format(tests=str(Path(__file__).parents[1]), path=str(path), seed=seed)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.6)))
        process.kill()
        process.wait()
        process.stdout.close()
        with warnings.catch_warnings(action="error"):
            index = SimilarityIndex.load(path)
        assert index.state in ("ready", "behind")
        require_exact(index, rng, 0.8)
        assert index.update().state == "ready"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_index_is_whole_after_kills_at_20_moments(copied: Path) -> None:
    kill(copied, 20)


def test_size_is_kept_within_the_limit(copied: Path) -> None:
    small = SimilarityIndex.build(copied, recall=0.95, memory="30KiB")
    assert small.saved.manifest.bits < 8
    assert small.saved.manifest.size <= 30 << 10
    require_exact(small, np.random.default_rng(0), 0.8)
    with pytest.raises(UsageError, match=r"memory must be at least .* bytes for 600 vectors of 8 values, got 1,000"):
        SimilarityIndex.build(copied, memory="1KB")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 1.0}, "recall must be above 0 and at most 0.9995, .* got 1.0: to find all"),
        ({"recall": 0.9999}, "recall must be above 0 and at most 0.9995, the most that 10,000 queries can show"),
        ({"recall": 0}, "recall must be above 0 and at most 0.9995, .* got 0:"),
        ({"memory": "much"}, "memory must be a size such as 500MB, 2GB or 2GiB, got 'much'"),
        ({"layer": "conv"}, "has no layer 'conv'"),
    ],
)
def test_bad_options_are_refused(indexed: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SimilarityIndex.build(indexed, **options)


def test_update_without_an_index_is_refused(tmp_path: Path) -> None:
    index = SimilarityIndex.load(make_store(tmp_path / "s", clusters(12)[0]))
    assert index.state == "none"
    with pytest.raises(UsageError, match="has no index that can be updated: build one first"):
        index.update()


def test_forget_deletes_the_index(copied: Path) -> None:
    forget(copied, ["row-003"])
    assert not Path(f"{copied}.index").exists()
    assert SimilarityIndex.load(copied).state == "none"


def test_forget_deletes_only_the_index_in_a_folder_that_it_links_to(copied: Path, tmp_path: Path) -> None:
    folder = Path(f"{copied}.index").rename(tmp_path / "elsewhere")
    (folder / "mine.txt").write_text("kept")
    Path(f"{copied}.index").symlink_to(folder)
    forget(copied, ["row-003"])
    assert not Path(f"{copied}.index").is_symlink()
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_many_readers_see_a_whole_index_while_it_is_replaced(copied: Path) -> None:
    index = SimilarityIndex.load(copied)
    SimilarityIndex.build(copied, recall=0.8)
    require_exact(index, np.random.default_rng(0), 0.8)  # its files are deleted, and it has them open


def test_an_index_that_another_process_has_built_meanwhile_stays(copied: Path) -> None:
    index = SimilarityIndex.load(copied)
    newer = SimilarityIndex.build(copied, recall=0.8).saved.manifest
    assert move_to_version(index.saved, index.store).manifest == newer == SimilarityIndex.load(copied).saved.manifest
