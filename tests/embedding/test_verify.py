"""`embedpipe.verify` passes an intact store and reports each kind of damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, write_photo

import embedpipe
from embedpipe.embedding import VerifyReport
from embedpipe.errors import BackboneError, UsageError
from embedpipe.store.schema import vector_column


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> embedpipe.FeatureStore:
    return embedpipe.embed(photos, tmp_path / "store", backbone=TINY)


def failed_checks(report: VerifyReport) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if not check.ok}


def overwrite(store: embedpipe.FeatureStore, vector: np.ndarray) -> None:
    row = store.to_arrow().slice(0, 1).drop_columns(["embedding", "content_hash"])
    row = row.append_column("content_hash", pa.array(["f" * 64]))
    # Not by the store, which refuses vectors of another length.
    store.table.upsert(row.append_column("embedding", vector_column(vector[None].astype(np.float32))))


def test_intact_store_passes(store: embedpipe.FeatureStore) -> None:
    report = embedpipe.verify(store, trust=True)
    assert report.ok
    assert report.compared == 12
    assert report.min_cosine is not None
    assert report.min_cosine > 0.99999
    assert report.to_dict()["ok"] is True


def test_sample_is_embedded_by_torch_whatever_engine_is_in_the_cache(
    store: embedpipe.FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: list[object] = []
    monkeypatch.setattr("embedpipe.backbones.backbone.choose_engine", lambda *args: choices.append(args))
    monkeypatch.setattr("embedpipe.backbones.backbone.FEWEST", 1)
    assert embedpipe.verify(store, trust=True).compared == 12
    assert not choices


def test_python_backbone_needs_trust(store: embedpipe.FeatureStore) -> None:
    with pytest.raises(BackboneError, match="trust"):
        embedpipe.verify(store)


def test_changed_vectors_fail_the_sample(store: embedpipe.FeatureStore) -> None:
    row = store.to_arrow().slice(3, 1)
    moved = row.set_column(
        row.column_names.index("embedding"), "embedding", vector_column(store.to_numpy()[[3]][:, ::-1].copy())
    )
    store.remove(row["id"].to_pylist())
    store.write(moved)
    report = embedpipe.verify(store, trust=True)
    assert list(failed_checks(report)) == ["sample"]


def test_non_finite_vectors_fail(store: embedpipe.FeatureStore) -> None:
    overwrite(store, np.full(12, np.nan))
    assert failed_checks(embedpipe.verify(store, sample=0)) == {"vectors": "1 rows hold NaN or infinite values"}


def test_vectors_of_another_length_fail(store: embedpipe.FeatureStore) -> None:
    overwrite(store, np.ones(5))
    assert "not 12 long" in failed_checks(embedpipe.verify(store, sample=0))["vectors"]


def test_missing_and_truncated_files_fail(store: embedpipe.FeatureStore) -> None:
    file = Path(store.path) / store.table.files[0].path
    payload = file.read_bytes()
    file.unlink()
    assert file.name in failed_checks(embedpipe.verify(store.path))["files"]
    file.write_bytes(payload[: len(payload) // 2] + bytes(len(payload) // 2))
    assert file.name in failed_checks(embedpipe.verify(store.path))["files"]


def test_changed_and_missing_items_are_not_compared(store: embedpipe.FeatureStore, photos: Path) -> None:
    write_photo(photos / "cat/0000.jpg", seed=77)
    (photos / "dog/0001.jpg").unlink()
    report = embedpipe.verify(store, trust=True)
    assert report.ok
    assert (report.compared, report.changed, report.unreadable) == (10, 1, 1)


def test_negative_sample_is_refused(store: embedpipe.FeatureStore) -> None:
    with pytest.raises(UsageError, match="sample must be >= 0, got -1"):
        embedpipe.verify(store, sample=-1)
