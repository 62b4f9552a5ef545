"""Photos of a table and its columns: embedded, fitted and predicted, in Python and on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from command import run
from conftest import TINY, write_photo

from embedpipe import FeatureStore, embed, fit, import_vectors
from embedpipe.errors import UsageError
from embedpipe.finetuning.linear_probe import open_probe
from embedpipe.serving.run import serve
from embedpipe.serving.viewing.collection import Collection
from embedpipe.serving.viewing.predictions import Predictions


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV file of 30 photos whose label is in the price and the shop."""
    rows = []
    for i in range(30):
        write_photo(tmp_path / "photos" / f"{i:02d}.jpg", seed=i)
        shop = ("north", "south")[i % 2]
        price = None if i == 3 else 10 + 7 * (i % 3)
        label = "dear" if i % 3 == 2 else f"cheap in the {shop}"
        rows.append({"image": f"photos/{i:02d}.jpg", "price": price, "shop": shop, "label": label})
    path = tmp_path / "photos.csv"
    pa_csv.write_csv(pa.Table.from_pylist(rows), path)
    return path


def test_a_table_of_photos_is_predicted_with_its_columns(table: Path, tmp_path: Path) -> None:
    store = embed(table, tmp_path / "s.features", backbone=TINY)
    fitted = fit(store, features="price,shop", folds=0)
    by_store, by_photo = fitted.predict(store), fitted.predict(table, trust=True)
    assert by_photo["label"].to_pylist() == by_store["label"].to_pylist() == by_store["actual"].to_pylist()
    with pytest.raises(UsageError, match=r"columns price, shop, and .*photos' has no price, shop: predict a table"):
        fitted.predict(tmp_path / "photos", trust=True)
    one = {"image": [str(tmp_path / "photos" / "00.jpg")], "price": [24.0], "shop": ["west"]}
    assert fitted.predict(pa.table(one), trust=True)["label"].to_pylist() == ["dear"]


def test_the_command_line_says_what_is_missing_and_new(table: Path, tmp_path: Path) -> None:
    store, head = str(tmp_path / "s.features"), str(tmp_path / "s.head")
    embed(table, store, backbone=TINY)
    result = run("fit", store, "--features", "price,shop", "--to", head)
    assert result.exit_code == 0
    assert "logreg with price, shop" in result.stdout
    assert "note: column 'price': 1 of 30 values are missing; the median stands for them" in result.stdout
    new = FeatureStore(store).to_arrow(["uri", "price", "shop"]).slice(0, 4).rename_columns(["image", "price", "shop"])
    pq.write_table(new.set_column(2, "shop", pa.array(["west"] * 4)), tmp_path / "new.parquet")
    result = run("predict", head, str(tmp_path / "new.parquet"), "--trust", "--to", str(tmp_path / "new.csv"))
    assert result.exit_code == 0
    assert "column 'shop': 4 of 4 values were in no row that the head learned from" in result.stderr
    result = run("predict", head, str(tmp_path / "photos"), "--trust", "--to", str(tmp_path / "new.csv"))
    assert result.exit_code == 2
    assert "has no price, shop" in result.stderr
    result = run("evaluate", store, "--heads", "ridge", "--features", "price,shop", "--repeats", "1", "--folds", "3")
    assert result.exit_code == 0
    assert "best: ridge with price, shop" in result.stdout


def test_what_takes_vectors_alone_says_so(table: Path, tmp_path: Path) -> None:
    store = embed(table, tmp_path / "s.features", backbone=TINY)
    fitted = fit(store, features="price,shop", folds=0)
    with pytest.raises(UsageError, match="a request holds one picture or text, and the head learned from the columns"):
        serve(fitted)
    with pytest.raises(UsageError, match=r"fine-tuning trains a network, .* fit one without price, shop"):
        open_probe(fitted, store)


def test_the_page_shows_probabilities_of_a_head_with_columns(table: Path, tmp_path: Path) -> None:
    store = embed(table, tmp_path / "s.features", backbone=TINY)
    fitted = fit(store, features="price,shop", folds=0)
    collection = Collection(store)
    shown = Predictions(fitted).probabilities(collection, 3)
    row = fitted.predict(store).slice(3, 1).to_pylist()[0]
    assert shown[0] == (row["label"], pytest.approx(row["confidence"]))


def test_imported_vectors_are_predicted_with_the_columns_of_their_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    price = rng.normal(size=40)
    columns = {
        "id": [f"row-{i:02d}" for i in range(40)],
        "vector": rng.normal(size=(40, 4)).astype(np.float32).tolist(),
        "label": np.where(price > 0, "dear", "cheap").tolist(),
        "price": price.tolist(),
    }
    fitted = fit(import_vectors(pa.table(columns), tmp_path / "store"), features="price", folds=0)
    predicted = fitted.predict(pa.table({name: columns[name] for name in ("id", "vector", "price")}))
    assert predicted["label"].to_pylist() == columns["label"]
    with pytest.raises(UsageError, match="has no price"):
        fitted.predict(pa.table({name: columns[name] for name in ("id", "vector")}))


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_booleans_are_read_as_other_programs_write_them(tmp_path: Path, words: tuple[str, str]) -> None:
    boxed = np.arange(40) % 2 == 0
    labels = np.where(boxed ^ (np.arange(40) < 4), "new", "used").tolist()
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    columns = {"id": [f"row-{i:02d}" for i in range(40)], "vector": vectors.tolist(), "boxed": boxed, "label": labels}
    fitted = fit(import_vectors(pa.table(columns), tmp_path / "s.features"), features="boxed", folds=0)
    written = columns | {"boxed": [words[0] if each else words[1] for each in boxed]}
    assert fitted.predict(pa.table(written)).equals(fitted.predict(pa.table(columns)))
