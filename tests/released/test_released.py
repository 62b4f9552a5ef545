"""What released versions wrote is read for ever: stores, heads, splits and evaluations, with the values of then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stored import make_spec

from embedpipe import FeatureStore, load_evaluation, load_head, load_splits
from embedpipe.errors import StoreError
from embedpipe.store.schema import FORMAT_KEY, WRITER_KEY, spec_of, store_schema

FOLDERS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "expected.json").is_file())


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of the files of a release."""
    copied: Path = shutil.copytree(request.param, tmp_path / "released")
    return copied


@pytest.fixture
def expected(released: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((released / "expected.json").read_text())
    return values


def test_there_are_files_of_a_release() -> None:
    assert [folder.name for folder in FOLDERS][:1] == ["0.2.0"]


def test_a_released_store_has_its_rows_and_takes_new_ones(released: Path, expected: dict[str, Any]) -> None:
    store = FeatureStore(released / "photos.features")
    assert store.ids() == expected["ids"]
    assert store.to_arrow(["label"])["label"].to_pylist() == expected["labels"]
    assert store.to_numpy().tolist() == expected["vectors"]
    assert len(FeatureStore(store.path, version=2)) == 24
    row = store.to_arrow().slice(0, 1)
    store.write(row.set_column(row.column_names.index("id"), "id", pa.array(["new"])))
    assert FeatureStore(store.path).ids() == sorted([*expected["ids"], "new"])


@pytest.mark.parametrize("name", ["logreg", "knn"])
def test_a_released_head_predicts_as_it_did(released: Path, expected: dict[str, Any], name: str) -> None:
    head = load_head(released / f"{name}.head")
    table = head.predict(FeatureStore(released / "photos.features"))
    np.testing.assert_allclose(table["probability_cat"].to_numpy(), expected[name], rtol=1e-9, atol=1e-12)
    assert table["fitted_on"].to_pylist() == [True] * 24


def test_released_splits_and_evaluations_are_read(released: Path, expected: dict[str, Any]) -> None:
    splits = load_splits(released / "splits.parquet")
    assert [*splits.ids] == expected["ids"]
    assert len(splits.resamples) == 3
    assert load_evaluation(released / "evaluation.json").splits_id == splits.identity


def test_a_store_of_a_newer_format_says_which_embedpipe_it_needs() -> None:
    schema = store_schema(make_spec(4))
    newer = {**schema.field("embedding").metadata, FORMAT_KEY: b"2", WRITER_KEY: b"9.1.0"}
    schema = schema.set(schema.names.index("embedding"), schema.field("embedding").with_metadata(newer))
    with pytest.raises(StoreError, match=r"this store has format 2, .* install embedpipe 9\.1\.0 or newer"):
        spec_of(schema)


def test_a_store_from_before_the_first_release_has_format_1() -> None:
    schema = store_schema(make_spec(4))
    field = schema.field("embedding")
    older = {key: value for key, value in field.metadata.items() if key not in (FORMAT_KEY, WRITER_KEY)}
    schema = schema.set(schema.names.index("embedding"), field.with_metadata(older))
    assert spec_of(schema) == make_spec(4)
