"""The rows of a store as one table, with the points of its map."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from conftest import TINY
from PIL import Image

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.errors import UsageError
from embedpipe.report.pictures.map_points import map_points


@pytest.fixture
def store(make_photos: Callable[..., Path], tmp_path: Path) -> embedpipe.FeatureStore:
    return embedpipe.embed(make_photos(12), to=tmp_path / "photos.features", backbone=TINY)


def test_parquet_has_columns_points_and_pictures(
    store: embedpipe.FeatureStore, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = store.ids()[3]
    (photos / gone).unlink()
    table = pq.read_table(embedpipe.export_table(store, tmp_path / "atlas.parquet", progress=True))
    assert table.column_names == [*store.data_columns, "projection_x", "projection_y", "image"]
    assert table.column("id").to_pylist() == store.ids()
    points, _ = map_points(np.stack(store.to_arrow(["embedding"]).column("embedding").to_numpy()), 0, Progress(False))
    assert np.array_equal(np.stack([table.column(f"projection_{axis}").to_numpy() for axis in "xy"], 1), points)
    pictures = table.column("image").to_pylist()
    assert [row for row, picture in zip(store.ids(), pictures, strict=True) if picture is None] == [gone]
    with Image.open(io.BytesIO(pictures[0]["bytes"])) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) <= 256
    assert "1 of 12 pictures cannot be read" in capsys.readouterr().err


def test_other_tables_have_no_pictures(store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    table = pc.read_csv(embedpipe.export_table(store, tmp_path / "rows.csv"))
    assert table.column_names == [*store.data_columns, "projection_x", "projection_y"]
    assert table.num_rows == 12
    without = pq.read_table(embedpipe.export_table(store, tmp_path / "rows.parquet", pictures=False))
    assert "image" not in without.column_names


def test_a_column_of_the_user_is_not_replaced(store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    store.label(pa.table({"id": store.ids(), "label": [1.0] * 12}), into="projection_x")
    with pytest.raises(UsageError, match="must not have a column 'projection_x'"):
        embedpipe.export_table(store.refresh(), tmp_path / "atlas.parquet")
    store.remove(store.ids())
    with pytest.raises(UsageError, match="holds no rows"):
        embedpipe.export_table(store.refresh(), tmp_path / "atlas.parquet")
    assert not (tmp_path / "atlas.parquet").exists()


@pytest.mark.parametrize("name", ["rows.csv", "new/map.png", "map.html"])
def test_nothing_is_written_into_the_folder_of_a_store(store: embedpipe.FeatureStore, name: str) -> None:
    write = embedpipe.export_table if name.endswith("csv") else embedpipe.map
    with pytest.raises(UsageError, match=r"must not lie in .*photos.features', a feature store"):
        write(store, Path(store.path) / name)
    assert not (Path(store.path) / name).exists()
