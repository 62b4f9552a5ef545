"""Vectors that were made elsewhere: every form gives the same store; bad rows are named and nothing is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command import run

import embedpipe
from embedpipe import FeatureStore, import_vectors
from embedpipe.backbones import resolve_options
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.importing import importer
from embedpipe.errors import (
    DuplicateIdError,
    SourceError,
    SpecMismatchError,
    StoreError,
    UnknownBackboneError,
    UsageError,
)
from embedpipe.heads.predicting import sources
from embedpipe.sources.vectors import vector_source
from embedpipe.store.keyed_table import KeyedTable

DIM = 6
IDS = [f"item-{number}" for number in (7, 3, 9, 0, 1, 8, 2, 6, 5, 4)] + [f"more-{number}" for number in range(14)]
LABELS = ["cat", "dog"] * 12
IMPORT = ("import-vectors", "v.npy", "--ids", "rows.csv", "--name", "my/model", "--to", "s")


@pytest.fixture
def vectors() -> Any:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(24, DIM)) + 5 * (np.arange(24) % 2)[:, None]).astype(np.float32)


def test_ids_of_a_text_file_are_its_lines(vectors: Any, tmp_path: Path) -> None:
    ids = ["\u2028a", "b\x85c", *IDS[2:]]
    (tmp_path / "ids.txt").write_bytes("\ufeff".encode() + "\r\n".join(ids).encode())
    store = import_vectors(vectors, tmp_path / "store", ids=tmp_path / "ids.txt")
    assert store.ids() == sorted(ids)


def test_every_form_of_the_same_vectors_gives_the_same_store(
    vectors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_source, "BLOCK_BYTES", 4 * DIM * 5)  # several blocks
    rest = {"id": IDS, "label": LABELS, "price": range(24)}
    lists = pa.table({**rest, "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))})
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    wide = pd.DataFrame({**rest, **{f"v{i}": vectors[:, i] for i in range(DIM)}})
    np.save(tmp_path / "v.npy", vectors)
    pq.write_table(lists, tmp_path / "lists.parquet", row_group_size=7)
    wide.to_csv(tmp_path / "wide.csv", index=False)
    cells = pd.DataFrame({**rest, "embedding": [json.dumps(row) for row in vectors.astype(float).tolist()]})
    cells.to_csv(tmp_path / "cells.tsv", index=False, sep="\t")
    lists.select(["id", "label", "price"]).to_pandas().to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "array": (vectors, {"ids": IDS, "labels": np.array(LABELS)}),
        "tensor": (torch.tensor(vectors, requires_grad=True), {"ids": IDS, "labels": LABELS}),
        "float64": (vectors.astype(np.float64), {"ids": pd.Series(IDS), "labels": pa.array(LABELS)}),
        "npy": (tmp_path / "v.npy", {"ids": tmp_path / "rows.csv"}),
        "npy, lines": (str(tmp_path / "v.npy"), {"ids": str(tmp_path / "ids.txt"), "labels": tmp_path / "rows.csv"}),
        "arrow": (lists, {}),
        "fixed": (lists.drop_columns("vector").append_column("vector", fixed), {}),
        "pandas": (lists.to_pandas(), {}),
        "wide": (wide, {"ids": "id"}),
        "parquet": (tmp_path / "lists.parquet", {"labels": "label"}),
        "csv": (tmp_path / "wide.csv", {}),
        "cells": (tmp_path / "cells.tsv", {}),
    }
    order = np.argsort(IDS)
    hashes = set()
    for name, (given, options) in forms.items():
        store = import_vectors(given, tmp_path / name, **options)
        assert store.ids() == sorted(IDS), name
        np.testing.assert_array_equal(store.to_numpy(), vectors[order], err_msg=name)
        table = store.to_arrow()
        assert table["label"].to_pylist() == [LABELS[row] for row in order], name
        if "price" in table.column_names:
            assert table["price"].to_pylist() == order.tolist(), name
        hashes.add(tuple(table["content_hash"].to_pylist()))
        assert (store.summary.added, store.summary.updated, store.summary.unchanged) == (24, 0, 0)
        converted = "float64 values are stored as float32" in store.summary.notes
        assert converted == (name in ("float64", "csv", "cells")), name
    assert len(hashes) == 1


def test_spec_says_where_vectors_came_from(vectors: Any, tmp_path: Path) -> None:
    store = import_vectors(vectors, tmp_path / "s", ids=IDS, name="openai/text-embedding-3-large", modality="text")
    spec = FeatureStore(store.path).spec
    assert (spec.provider, spec.name, spec.modality, spec.preprocessing) == (
        "vectors", "openai/text-embedding-3-large", "text", None,
    )  # fmt: skip
    assert embedpipe.BackboneSpec.from_json(spec.to_json()) == spec
    with pytest.raises(SpecMismatchError, match="dim"):
        import_vectors(vectors[:, 1:], store.path, ids=IDS, name=spec.name, modality="text")
    embedpipe.reduce(store.path, dimensions=2)
    with pytest.raises(SpecMismatchError) as raised:
        import_vectors(vectors[:, 1:], store.path, ids=IDS, name="another", modality="text")
    # Dimensions and reduced layers follow from the name.
    assert [line.split(":")[0].strip() for line in str(raised.value).splitlines()[1:-1]] == ["fingerprint", "name"]
    with pytest.raises(UnknownBackboneError, match="imported vectors"):
        resolve_options(BackboneOptions(backbone="vectors/openai/text-embedding-3-large"))


def test_tensors_of_bfloat16_become_float32(vectors: Any, tmp_path: Path) -> None:
    half = torch.from_numpy(vectors).bfloat16()
    np.testing.assert_array_equal(import_vectors(half, tmp_path / "s", ids=IDS).take(IDS), half.float().numpy())


def test_half_floats_are_exact(vectors: Any, tmp_path: Path) -> None:
    half = vectors.astype(np.float16)
    store = import_vectors(half, tmp_path / "s", ids=[f"{row:02d}" for row in range(24)])
    np.testing.assert_array_equal(store.to_numpy(), half.astype(np.float32))
    assert store.summary.notes == ["float16 values are stored as float32"]


def test_importing_again_updates_by_id(vectors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_source, "BLOCK_BYTES", 4 * DIM * 5)
    to = tmp_path / "s"
    import_vectors(vectors[:20], to, ids=IDS[:20], labels=LABELS[:20])
    again = import_vectors(vectors[:20], to, ids=IDS[:20], labels=LABELS[:20])
    version = again.version
    assert (again.summary.added, again.summary.updated, again.summary.unchanged) == (0, 0, 20)
    assert import_vectors(vectors[:20], to, ids=IDS[:20], labels=LABELS[:20]).version == version
    again.label(pa.table({"id": IDS[:1], "label": ["bird"]}))
    changed = vectors.copy()
    changed[3] += 1
    labels = [*LABELS[:5], "fish", *LABELS[6:]]
    store = import_vectors(changed, to, ids=IDS, labels=labels)
    assert (store.summary.added, store.summary.updated, store.summary.unchanged) == (4, 2, 18)
    assert any("set by hand, other than the source's" in note for note in store.summary.notes)
    order = np.argsort(IDS)
    np.testing.assert_array_equal(store.to_numpy(), changed[order])
    expected = dict(zip(IDS, labels, strict=True)) | {IDS[0]: "bird"}
    assert store.to_arrow(["label"])["label"].to_pylist() == [expected[id] for id in sorted(IDS)]
    without_labels = import_vectors(changed, to, ids=IDS)
    assert without_labels.to_arrow(["label"])["label"].null_count == 0


def _with(array: Any, row: int, value: float) -> Any:
    array = array.astype(np.float64)
    array[row, 2] = value
    return array


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: {"vectors": _with(v, 13, np.nan)}, SourceError, "row 14 of the array holds nan"),
        (lambda v: {"vectors": _with(v, 3, np.inf)}, SourceError, "row 4 of the array holds inf"),
        (lambda v: {"vectors": _with(v, 3, 1e300)}, SourceError, r"row 4 of the array holds 1e\+300"),
        (lambda v: {"vectors": [*v[:9].tolist(), v[9, 1:].tolist()]}, SourceError, "same length"),
        (lambda v: {"vectors": v[0]}, SourceError, r"shape \(n, dim\)"),
        (lambda v: {"vectors": v.astype(str)}, SourceError, "must be numbers"),
        (lambda v: {"ids": [*IDS[:23], IDS[4]]}, DuplicateIdError, "'item-1' in rows 5 and 24"),
        (lambda v: {"ids": [*IDS[:5], "", *IDS[6:]]}, SourceError, "row 6 of the array is empty"),
        (lambda v: {"ids": [*IDS[:5], None, *IDS[6:]]}, SourceError, "row 6 of the array is empty"),
        (lambda v: {"ids": IDS[:5]}, SourceError, "has 5 for the 24 vectors"),
        (lambda v: {"ids": [*IDS[:23], 7]}, SourceError, "ids must have one text or number for each vector"),
        (lambda v: {"labels": LABELS[:5]}, SourceError, "has 5 for the 24 vectors"),
        (lambda v: {"ids": None}, SourceError, "vectors need ids"),
        (lambda v: {"ids": "sku"}, SourceError, "'sku' must be a column of the table or a file"),
        (lambda v: {"name": " "}, UsageError, "must say where"),
        (lambda v: {"vectors": {"vector": [*v[:5].tolist(), v[5, 1:].tolist()]}}, SourceError, "row 6 .* 5 values"),
        (lambda v: {"vectors": {"vector": [*v[:5].tolist(), None]}}, SourceError, "row 6 of the table lacks"),
        (lambda v: {"vectors": {"vector": [*v[:5].tolist(), [None] * DIM]}}, SourceError, "row 6 of the table has one"),
        (lambda v: {"vectors": {"a": v[:6].tolist(), "b": v[:6].tolist()}}, SourceError, "several columns"),
        (lambda v: {"vectors": {"a": [0.5] * 6}}, SourceError, "must have a column of lists"),
        (lambda v: {"vectors": {"a": v[:6].tolist()}, "vector": "x"}, SourceError, "no column of lists of numbers 'x'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_row(
    change: Any, error: type[Exception], message: str, vectors: Any, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"vectors": vectors, "ids": IDS} | change(vectors)
    if isinstance(given["vectors"], dict):
        given["vectors"], given["ids"] = pa.table(given["vectors"]), IDS[:6]
    with pytest.raises(error, match=message):
        import_vectors(to=tmp_path / "s", **given)
    assert not (tmp_path / "s").exists()


def test_labels_in_another_order_are_refused(vectors: Any, tmp_path: Path) -> None:
    table = pa.table({"id": IDS[::-1], "label": LABELS})
    pq.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(SourceError, match="row 1 is of 'more-13', the vector of 'item-7'"):
        import_vectors(vectors, tmp_path / "s", ids=IDS, labels=tmp_path / "labels.parquet")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(SourceError, match="Python objects"):
        import_vectors(tmp_path / "v.npy", tmp_path / "s", ids=["a"])


def test_bad_number_in_a_csv_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_source, "CSV_BYTES", 64)
    (tmp_path / "v.csv").write_text("id,v0,v1\n" + "".join(f"{row:03d},1,2\n" for row in range(30)) + "c,1,x\n")
    with pytest.raises(SourceError, match=r"v\.csv.*invalid value 'x'"):
        import_vectors(tmp_path / "v.csv", tmp_path / "s")
    monkeypatch.undo()
    for cell in ("1 2", f"[1{'0' * 400}, 2]"):
        (tmp_path / "v.tsv").write_text(f'id\tvector\na\t"[1, 2]"\nb\t"{cell}"\n')
        with pytest.raises(SourceError, match=rf"row 2 .* holds '{re.escape(cell[:9])}"):
            import_vectors(tmp_path / "v.tsv", tmp_path / "s")


def test_vectors_are_hashed_only_where_the_store_of_the_head_is(
    vectors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = import_vectors(vectors, tmp_path / "s", ids=IDS, labels=LABELS, name="my/model")
    head = embedpipe.fit(store, "centroid")
    hashed: list[int] = []
    checksums = sources.row_checksums
    monkeypatch.setattr(sources, "row_checksums", lambda block: hashed.append(len(block)) or checksums(block))
    assert head.predict(vectors[:2])["fitted_on"].to_pylist() == [True, True]
    Path(store.path).rename(tmp_path / "elsewhere")
    assert "fitted_on" not in head.predict(vectors[:2]).column_names
    assert hashed == [2]


def test_missing_column_of_ids_is_answered_with_the_columns(vectors: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"as the name of a column\. Columns: \['sku'\]$"):
        import_vectors(pa.table({"sku": IDS, "v": vectors.tolist()}), tmp_path / "s")
    (tmp_path / "ids.csv").write_text("sku,price\nx,1\n")
    with pytest.raises(SourceError, match=r"has \['sku', 'price'\]: rename the column with the ids to 'id'$"):
        import_vectors(vectors[:1], tmp_path / "s", ids=tmp_path / "ids.csv")


def test_heads_take_vectors(vectors: Any, tmp_path: Path) -> None:
    store = import_vectors(vectors, tmp_path / "s", ids=IDS, labels=LABELS, name="my/model")
    head = embedpipe.fit(store, "centroid")
    table = pa.table({"id": ["x", "y"], "label": ["cat", "dog"], "vector": vectors[:2].tolist()})
    np.save(tmp_path / "new.npy", vectors[:2].astype(np.float16))
    for given in (vectors[:2], vectors[:2].tolist(), table, tmp_path / "new.npy"):
        assert head.predict(given)["label"].to_pylist() == ["cat", "dog"]
    predicted = head.predict(table)
    assert predicted["id"].to_pylist() == ["x", "y"]
    assert predicted["actual"].to_pylist() == ["cat", "dog"]
    assert head.predict(vectors[:2])["id"].to_pylist() == ["00000000", "00000001"]
    assert head.predict(store)["label"].to_pylist() == store.to_arrow(["label"])["label"].to_pylist()
    assert predicted["fitted_on"].to_pylist() == [True, True]  # other ids, the same vectors
    assert "fitted_on" not in head.predict(vectors[:2] + 1).column_names
    for photos in ("folder_of_photos", ["a.jpg"]):
        with pytest.raises(UsageError, match="imported, from 'my/model', so there is no network"):
            head.predict(photos)
    with pytest.raises(SourceError, match=r"^id='sku' must be a column"):  # ids= is an option of `import_vectors`
        head.predict(table, id="sku")
    with pytest.raises(SourceError, match=r"^label='kind' must be a column"):
        head.predict(table, label="kind")
    with pytest.raises(UsageError, match="must have 6 values"):
        head.predict(vectors[:, 1:])


def test_search_takes_vectors(vectors: Any, tmp_path: Path) -> None:
    store = import_vectors(vectors, tmp_path / "s", ids=IDS, labels=LABELS, name="my/model")
    np.save(tmp_path / "new.npy", vectors[:2].astype(np.float16))
    assert embedpipe.search(store, IDS[0], k=3).table["id"].to_pylist()
    assert embedpipe.search(store, tmp_path / "new.npy", k=1).table["id"].to_pylist() == IDS[:2]
    with pytest.raises(UsageError, match="no network"):
        embedpipe.search(store, np.zeros((8, 8, 3), np.uint8))
    assert embedpipe.verify(store).ok


@pytest.fixture
def imported(vectors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the current folder one with vectors, the table of their rows, and the store ``s`` of both."""
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", vectors)
    pd.DataFrame({"id": IDS, "label": LABELS, "split": ["train", "train", "test", "test"] * 6}).to_csv("rows.csv")
    done = run(*IMPORT, "--json")
    assert (done.exit_code, json.loads(done.stdout)["added"]) == (0, 24), done.output


@pytest.mark.usefixtures("imported")
def test_command_stores_vectors_with_their_splits() -> None:
    assert FeatureStore("s").counts("split") == {"train": 12, "test": 12}
    assert "0 added, 0 updated, 24 unchanged" in run(*IMPORT).stdout
    assert "not known, as the vectors were imported" in run("info", "s").stdout


@pytest.mark.usefixtures("imported")
def test_head_on_imported_vectors_predicts_vectors_only() -> None:
    assert run("fit", "s", "--head", "centroid", "--to", "h").exit_code == 0
    assert run("predict", "h", "v.npy", "--to", "p.csv").exit_code == 0
    assert pd.read_csv("p.csv")["label"].tolist() == LABELS
    refused = run("predict", "h", ".", "--to", "p2.csv")
    assert (refused.exit_code, "give vectors" in refused.stderr) == (2, True)


def test_blocks_ahead_of_a_failed_commit_leave_no_files(
    vectors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(vector_source, "BLOCK_BYTES", 4 * DIM * 5)
    monkeypatch.setattr("embedpipe.embedding.importing.importer.adopt", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        import_vectors(vectors, tmp_path / "s", ids=IDS)
    assert list((tmp_path / "s").glob("*.parquet")) == []


def test_large_finite_values_are_stored(vectors: Any, tmp_path: Path) -> None:
    large = _with(vectors, 3, 1e30)  # its square is no float32
    store = import_vectors(large, tmp_path / "s", ids=IDS)
    np.testing.assert_array_equal(store.take(IDS), large.astype(np.float32))


def test_nan_among_texts_is_no_label(vectors: Any, tmp_path: Path) -> None:
    """NumPy makes the text nan of it, which would be a class."""
    store = import_vectors(vectors, tmp_path / "s", ids=IDS, labels=[float("nan"), *"ab" * 11, "a"])
    labels = store.to_arrow(["label"])["label"]
    assert (labels.null_count, {*labels.to_pylist()}) == (1, {None, "a", "b"})


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_known_rows_are_read_once_and_replaced_together(
    suffix: str, vectors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read_file = KeyedTable.read_file

    def counted(table: KeyedTable, file: Any, columns: Any = None) -> pa.Table:
        reads.append(file.path)
        return read_file(table, file, columns)

    def imported(values: Any) -> tuple[int, int, int, int]:
        if suffix == "npy":
            np.save(tmp_path / "v.npy", values)
            store = import_vectors(tmp_path / "v.npy", tmp_path / "s", ids=IDS)
        else:
            pq.write_table(pa.table({"id": IDS, "vector": values.tolist()}), tmp_path / "v.parquet", row_group_size=5)
            store = import_vectors(tmp_path / "v.parquet", tmp_path / "s")
        np.testing.assert_array_equal(store.take(IDS), values)
        return store.summary.added, store.summary.updated, store.summary.unchanged, store.version

    monkeypatch.setattr(vector_source, "BLOCK_BYTES", 4 * DIM * 5)  # five blocks, and so five files
    *_, version = imported(vectors)
    monkeypatch.setattr(KeyedTable, "read_file", counted)
    assert imported(vectors) == (0, 0, 24, version)
    assert len(reads) == len(set(reads)) == 5
    changed = vectors.copy()
    changed[::4] += 1
    assert imported(changed) == (0, 6, 18, version + 1)
    monkeypatch.setattr(importer, "CHANGED_BYTES", 1)
    assert imported(vectors)[:3] == (0, 6, 18)
