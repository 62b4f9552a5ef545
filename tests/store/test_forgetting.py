"""`forget` leaves no trace of an item in the store, its old versions, failures and the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deleted import delete_when_listed
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore
from embedpipe._utils.config import cache_folder
from embedpipe.errors import BusyError, Failure, StoreError, UsageError
from embedpipe.evaluation import evaluate
from embedpipe.store.delta_log import Entry
from embedpipe.store.erasing import forgetting
from embedpipe.store.erasing.traces import Traces

IDS = [f'person {i:02d} "quoted" ünïcode.jpg' for i in range(40)]
PERSON = IDS[7]
#: Content hashes; the made-up spec has one of zeros.
HASHES = [f"{i + 100:064x}" for i in range(40)]
HASH = HASHES[7]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store with several versions, failures, a memory map and a cached evaluation."""
    X, y = clusters(40)
    uris = [f"/photos/{id}" for id in IDS]
    labels = np.array(["a", "b", "c"])[y].tolist()
    made = make_store(tmp_path / "store", X, id=IDS, content_hash=HASHES, uri=uris, label=labels)
    made.label(pa.table({"id": [PERSON], "label": ["c"]}))
    made.failures_table.record(
        [Failure(PERSON, f"/photos/{PERSON}", "decode", "ValueError", f"bad {PERSON}")], "/photos"
    )
    made.failures_table.record([Failure("other.jpg", None, "decode", "ValueError", "bad")], "/photos")
    made.refresh()
    return made


def texts_in(folder: Path) -> str:
    """Return all that files hold as text, with decoded tables and unescaped JSON."""
    texts = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            texts.append(path.name)
            if path.suffix == ".parquet":
                texts.append(repr(pq.read_table(path).to_pydict()))
                texts.append(repr(pq.ParquetFile(path).metadata.to_dict()))
            for line in data.decode("latin-1").splitlines():
                texts.append(line)
            try:
                texts += [repr(Entry(data).actions).replace("\\", "")]
            except ValueError:
                continue
    return "\n".join(texts)


def traces(store: FeatureStore) -> dict[str, bool]:
    """Return where something of the person is left."""
    text = texts_in(Path(store.path))
    return {
        "hash": HASH in text,
        "id": "person 07" in text,
        "memory map": any(cache_folder().rglob("ids.arrow")),
        "cached results": any(cache_folder().glob("evaluations/*")),
    }


def test_no_trace_is_left(store: FeatureStore) -> None:
    store.mapped()
    evaluate(store, heads=["centroid"], folds=2, repeats=1, progress=False)
    store.label(pa.table({"id": [PERSON], "label": ["a"]}))
    before = traces(store)
    result = embedpipe.forget(store, [PERSON])
    assert before == dict.fromkeys(before, True)
    assert traces(store) == dict.fromkeys(before, False)
    assert (result.rows, result.failures) == (1, 1)
    assert result.files >= 3
    assert result.cached >= 2
    assert result.searched > 5


def test_what_is_not_forgotten_stays(store: FeatureStore) -> None:
    before, vectors = store.to_arrow(["id", "label", "content_hash"]), store.to_numpy()
    embedpipe.forget(store, [PERSON])
    again = FeatureStore(Path(store.path))
    kept = [i for i, id in enumerate(before.column("id").to_pylist()) if id != PERSON]
    assert again.to_arrow(["id", "label", "content_hash"]).equals(before.take(kept))
    np.testing.assert_array_equal(again.to_numpy(), vectors[kept])
    assert again.failures().column("id").to_pylist() == ["other.jpg"]
    assert len(again.history()) > 3
    again.label(pa.table({"id": [IDS[0]], "label": ["b"]}))  # the log is whole, and can be written
    assert len(FeatureStore(store.path)) == 39


def test_checkpoints_hold_no_trace(store: FeatureStore) -> None:
    store.table.delta.create_checkpoint()
    store.label(pa.table({"id": IDS[:3], "label": ["a"] * 3}))
    store.table.delta.create_checkpoint()
    first = IDS[0]  # the smallest id: statistics name it
    embedpipe.forget(store, [first])
    folder = Path(store.path)
    assert "person 00" not in texts_in(folder)
    assert FeatureStore(folder).ids() == IDS[1:]


def test_first_and_last_ids_leave_the_statistics_of_the_log(store: FeatureStore) -> None:
    embedpipe.forget(store, [IDS[0], IDS[-1]])
    assert "person 00" not in texts_in(Path(store.path))
    assert "person 39" not in texts_in(Path(store.path))
    assert FeatureStore(store.path).ids() == IDS[1:-1]


def test_content_of_an_item_that_stays_is_kept(tmp_path: Path) -> None:
    """Two items with the same bytes: the hash belongs to the other one too."""
    X, _ = clusters(4)
    hashes = [f"{9:064x}"] * 2 + [f"{i:064x}" for i in (1, 2)]
    store = make_store(tmp_path / "store", X, id=["copy-1.jpg", "copy-2.jpg", "c.jpg", "d.jpg"], content_hash=hashes)
    embedpipe.forget(store, ["copy-1.jpg"])
    assert store.refresh().ids() == ["c.jpg", "copy-2.jpg", "d.jpg"]


@pytest.mark.parametrize(
    "ids",
    [
        ["1", "2", "12", "21"],
        ["a.jpg", "aa.jpg", "b/a.jpg", "a.jpg.bak"],
        ["IMG 1.jpg", "Copy of IMG 1.jpg", "IMG 1.jpg (2).jpg", "IMG 1.jpg#page=2"],
        ["photo.jpg", "Üphoto.jpg", "photo.jpgé", "写photo.jpg"],
    ],
)
def test_ids_that_are_parts_of_others_are_not_traces(tmp_path: Path, ids: list[str]) -> None:
    X, _ = clusters(4)
    columns = {"id": ids, "content_hash": HASHES[:4], "note": ["room 1", "1", "12", "1"]}
    store = make_store(tmp_path / "store", X, uri=[f"/x/{id}" for id in ids], **columns)
    embedpipe.forget(store, ids[:1])
    assert store.refresh().ids() == sorted(ids[1:])
    assert not Traces(ids[:1]).in_file(next(Path(store.path).glob("*.parquet")))


def test_id_of_an_old_version_is_erased(store: FeatureStore) -> None:
    store.remove([PERSON])
    assert "person 07" in texts_in(Path(store.path))
    assert embedpipe.forget(store.path, [PERSON]).rows == 0
    assert "person 07" not in texts_in(Path(store.path))


def test_what_cannot_be_erased_is_refused(store: FeatureStore) -> None:
    with pytest.raises(UsageError, match=r"no version of .* holds the id 'nobody.jpg': nothing was erased"):
        embedpipe.forget(store, [PERSON, "nobody.jpg"])
    for wrong in ([], [""], [5]):
        with pytest.raises(UsageError, match="ids must be strings that are not empty"):
            embedpipe.forget(store, wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a store on a local disk, got 's3://bucket/store'"):
        embedpipe.forget("s3://bucket/store", [PERSON])
    assert len(store.refresh()) == 40


@pytest.mark.parametrize("name", ["notes.txt", "export.json", "utf16.txt", "hash.bin"])
def test_trace_in_another_file_of_the_folder_is_named(store: FeatureStore, name: str) -> None:
    data = {
        "notes.txt": f"call {PERSON}".encode(),
        "export.json": json.dumps({"rows": [{"id": PERSON}]}).encode(),
        "utf16.txt": PERSON.encode("utf-16"),
        "hash.bin": b"\x00" * 5 + bytes.fromhex(HASH),
    }
    (Path(store.path) / name).write_bytes(data[name])
    with pytest.raises(StoreError, match=rf"{name}' still holds"):
        embedpipe.forget(store, [PERSON])


def test_file_that_another_process_may_commit_is_not_deleted(store: FeatureStore) -> None:
    (live,) = (Path(store.path) / file.path for file in store.table.files)
    orphan = live.with_name("part-00000000-" + "0" * 32 + "-00000000.parquet")
    orphan.write_bytes(live.read_bytes())
    with pytest.raises(BusyError, match="another process may be about to commit it"):
        embedpipe.forget(store, [PERSON])
    assert orphan.exists()


def test_part_of_a_file_that_a_killed_run_left_is_deleted_after_an_hour(store: FeatureStore) -> None:
    """Also where the run had deleted the rows, so that no version holds the id any more."""
    embedpipe.forget(store, [PERSON])
    part = Path(store.path, "part-00000000-" + "0" * 32 + "-00000000.parquet")
    part.write_bytes(b"PAR1 part of a file")
    with pytest.raises(BusyError, match="wait for that process, or an hour"):
        embedpipe.forget(store, [PERSON])
    os.utime(part, (0, 0))
    assert embedpipe.forget(store, [PERSON]).files == 1
    assert not part.exists()


def test_heads_of_the_store_are_named(store: FeatureStore, tmp_path: Path) -> None:
    for name in ("knn", "centroid"):
        embedpipe.fit(store, name, to=tmp_path / name, folds=0)
    result = embedpipe.forget(store, [PERSON])
    assert result.heads == [str(tmp_path / "knn")]
    assert result.fitted == [str(tmp_path / "centroid")]


def test_heads_are_found_beside_files_of_others_with_the_same_name(store: FeatureStore, tmp_path: Path) -> None:
    embedpipe.fit(store, "centroid", to=tmp_path / "centroid", folds=0)
    for name in ("nested", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "nested" / "manifest.json").write_text("[" * 200_000)
    os.mkfifo(tmp_path / "pipe" / "manifest.json")
    assert embedpipe.forget(store, [PERSON]).fitted == [str(tmp_path / "centroid")]


def test_heads_are_found_beside_a_folder_that_another_process_deletes(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedpipe.fit(store, "centroid", to=tmp_path / "centroid", folds=0)
    (tmp_path / "another").mkdir()
    delete_when_listed(tmp_path / "another", monkeypatch)
    assert embedpipe.forget(store, [PERSON]).fitted == [str(tmp_path / "centroid")]


@pytest.mark.parametrize("name", ["gone.json", "gone.parquet", "gone.arrow", "gone"])
def test_file_that_another_process_deletes_holds_no_trace(
    store: FeatureStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = forgetting._files

    def files(*places: Path) -> Iterator[Path]:
        yield Path(store.path, name)  # which was there when its folder was listed
        yield from listed(*places)

    monkeypatch.setattr(forgetting, "_files", files)
    assert embedpipe.forget(store, [PERSON]).rows == 1


def test_other_stores_of_the_cache_with_the_content_are_dropped(store: FeatureStore) -> None:
    X, _ = clusters(2)
    kept = make_store(cache_folder() / "rank" / ("6" * 16), X, content_hash=[f"{i:064x}" for i in (1, 2)])
    make_store(cache_folder() / "transformer" / ("5" * 16), X, id=[HASH, "x"], content_hash=[HASH, f"{3:064x}"])
    for folder in (cache_folder(), *cache_folder().iterdir()):
        folder.chmod(0o700)
    embedpipe.forget(store, [PERSON])
    assert not (cache_folder() / "transformer" / ("5" * 16)).exists()
    assert len(kept.refresh()) == 2


@pytest.mark.parametrize("step", ["drop_entry", "Path.unlink", "whole_file"])
def test_killed_run_is_finished_by_the_next(store: FeatureStore, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def kill(*args: Any) -> None:
        raise KeyboardInterrupt

    store.table.delta.create_checkpoint()
    store.mapped()
    make_store(cache_folder() / "transformer" / ("5" * 16), clusters(1)[0], id=[HASH], content_hash=[HASH])
    (cache_folder() / "transformer").chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(f"embedpipe.store.erasing.forgetting.{step}", kill)
        with pytest.raises(KeyboardInterrupt):
            embedpipe.forget(store, [PERSON])
    embedpipe.forget(store.path, [PERSON])
    for folder in (Path(store.path), cache_folder()):
        assert "person 07" not in texts_in(folder)
        assert HASH not in texts_in(folder)
    assert FeatureStore(store.path).ids() == [id for id in IDS if id != PERSON]


def test_failure_of_an_old_version_is_erased(store: FeatureStore) -> None:
    store.failures_table.drop(pa.array([PERSON, "other.jpg"]))
    assert len(store.failures()) == 0
    embedpipe.forget(store, [PERSON])
    assert "person 07" not in texts_in(Path(store.path))


def test_damaged_file_of_an_old_version_is_deleted(store: FeatureStore) -> None:
    """`repair` drops a damaged file from the newest version, and leaves it in the folder."""
    (live,) = (Path(store.path) / file.path for file in store.table.files)
    data = bytearray(live.read_bytes())
    data[-20] ^= 0xFF  # in the footer, so that it cannot be decoded
    live.write_bytes(data)
    embedpipe.repair(store.path)
    assert live.exists()
    assert embedpipe.forget(store.path, [PERSON]).rows == 1
    assert not live.exists()
    assert len(FeatureStore(store.path)) == 39
