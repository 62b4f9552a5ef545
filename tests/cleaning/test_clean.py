"""`clean`: planted duplicates, wrong labels and outliers are found, and nothing else; the table, page and keep list."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from stored import clusters, make_store

import embedpipe
import embedpipe.cleaning.clean as clean_module
from embedpipe.cleaning.clean import clean
from embedpipe.cleaning.findings import Findings
from embedpipe.errors import TrainingDataError, UsageError

ROWS = 240
#: Rows that `planted` changes.
COPY, NEAR, CONFLICT, FAR = 200, 201, 202, 203
WRONG = [7, 50, 111]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> embedpipe.FeatureStore:
    """Three clear clusters with a copy, a near-duplicate, one with another label, an outlier and three wrong labels."""
    X, y = clusters(ROWS, spread=0.35, dim=16)
    rng = np.random.default_rng(1)
    labels = np.array([f"class {number}" for number in y], object)
    X[COPY], labels[COPY] = X[10], labels[10]
    X[NEAR], labels[NEAR] = X[20] + 0.002 * rng.standard_normal(16), labels[20]
    X[CONFLICT], labels[CONFLICT] = X[30] + 0.002 * rng.standard_normal(16), "class 0" if y[30] else "class 1"
    X[FAR] = 40 * rng.standard_normal(16)
    for row in WRONG:
        labels[row] = f"class {(y[row] + 1) % 3}"
    split = np.array(["train"] * ROWS, object)
    split[210:] = "test"
    split[NEAR] = "test"
    return make_store(tmp_path_factory.mktemp("clean") / "store", X, label=labels.tolist(), split=split.tolist())


@pytest.fixture(scope="module")
def findings(planted: embedpipe.FeatureStore) -> Findings:
    return clean(planted, near_duplicates=0.999, progress=False)


def found(findings: Findings, kind: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in findings.table.to_pylist() if row["kind"] == kind}


def test_planted_wrong_labels_are_the_surest(findings: Findings) -> None:
    errors = list(found(findings, "label error").values())
    assert {row["id"] for row in errors[:4]} >= {f"row-{row:03d}" for row in WRONG}
    assert all(row["proposed"] != row["label"] for row in errors)
    assert [row["score"] for row in errors] == sorted((row["score"] for row in errors), reverse=True)


def test_duplicates_are_pairs_with_an_earlier_row(findings: Findings) -> None:
    near = found(findings, "near-duplicate")
    assert {id: row["related"] for id, row in near.items()} == {
        f"row-{later:03d}": f"row-{earlier:03d}" for later, earlier in ((COPY, 10), (NEAR, 20), (CONFLICT, 30))
    }
    assert all(row["score"] >= 0.999 for row in near.values())
    assert found(findings, "label conflict").keys() == {f"row-{CONFLICT:03d}"}
    leaks = found(findings, "leak")
    assert {id: (row["split"], row["related_split"]) for id, row in leaks.items()} == {"row-201": ("test", "train")}


def test_rows_that_need_no_other_label_propose_their_own(findings: Findings) -> None:
    for kind in ("near-duplicate", "leak", "outlier"):
        rows = found(findings, kind).values()
        assert [row["proposed"] for row in rows] == [row["label"] for row in rows] != [], kind


def test_outlier_is_the_row_far_away(findings: Findings) -> None:
    assert found(findings, "outlier").keys() == {f"row-{FAR:03d}"}


def test_outliers_are_found_among_rows_that_are_mostly_copies(tmp_path: Path) -> None:
    X, _ = clusters(60, spread=0.35, dim=16)
    X[FAR % 60] = 40 * np.random.default_rng(1).standard_normal(16)
    store = make_store(tmp_path / "store", np.tile(X, (3, 1)))
    assert found(clean(store, progress=False), "outlier").keys() == {f"row-{FAR % 60:03d}"}


def test_copies_of_a_row_without_label_or_split_are_compared(tmp_path: Path) -> None:
    X, y = clusters(60, spread=0.3)
    labels, split = [f"class {number}" for number in y], ["train"] * 60
    contents = [f"{0 if row < 4 else row:064x}" for row in range(60)]
    X[:4], labels[:4], split[:4] = X[0], [None, "class 1", "class 2", None], [None, None, "test", "train"]
    store = make_store(tmp_path / "store", X, label=labels, split=split, content_hash=contents)
    findings = clean(store, near_duplicates=0.9999, progress=False)
    (conflict,) = found(findings, "label conflict").values()
    assert [conflict[name] for name in ("id", "related", "proposed", "score")] == ["row-002", "row-001", "class 1", 1.0]
    (leak,) = found(findings, "leak").values()
    assert [leak[name] for name in ("id", "related", "how")] == ["row-003", "row-002", "exact"]
    assert {row["related"] for row in found(findings, "duplicate").values()} == {"row-000"}


@pytest.mark.parametrize("values", [[True, False], [1.0, 2.0]])
def test_proposed_labels_are_written_back_into_columns_of_any_type(tmp_path: Path, values: list[Any]) -> None:
    X, y = clusters(80, classes=2, spread=0.3)
    y[7] = 1 - y[7]
    store = make_store(tmp_path / "store", X, label=[values[number] for number in y])
    table = clean(store, progress=False).table
    errors = table.filter(pc.equal(table["kind"], "label error"))
    assert errors["id"].to_pylist() == ["row-007"]
    assert store.label(errors, label="proposed").replaced == 1
    assert store.to_arrow(["label"])["label"][7].as_py() == values[1 - y[7]]


def test_nothing_is_wrong_with_good_data(tmp_path: Path) -> None:
    X, y = clusters(150, spread=0.3, dim=16)
    store = make_store(tmp_path / "store", X, label=[f"class {number}" for number in y])
    findings = clean(store, near_duplicates=0.9999, progress=False)
    assert sum(findings.counts.values()) <= 2, findings.table.to_pylist()
    assert findings.confused == [] or len(findings.confused) <= 2


def test_keep_list_keeps_the_largest_file_of_each_group(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", clusters(4)[0], source_size=[10, 30, 20, 5])
    pairs = [("row-001", "row-000"), ("row-002", "row-000"), ("row-003", "other:x")]
    table = pa.table(
        {"id": [id for id, _ in pairs], "kind": ["near-duplicate"] * 3, "related": [to for _, to in pairs]}
    )
    findings = Findings(table, store.path, "label", 4, [], 1.0)
    assert findings.keep()["excluded"].to_pylist() == [
        "near-duplicate of row-001",
        "",
        "near-duplicate of row-001",
        "near-duplicate of other:x",
    ]


def test_keep_list_keeps_the_picture_with_the_most_pixels(tmp_path: Path) -> None:
    """A small PNG of noise is a larger file than the JPEG from which it was made."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    files = [tmp_path / name for name in ("a.png", "b.jpg", "gone.jpg", "no.jpg")]
    noise.resize((60, 45)).save(files[0])
    noise.save(files[1], quality=20)
    files[3].write_bytes(b"no picture")
    sizes = [file.stat().st_size if file.exists() else 10**6 for file in files]
    assert sizes[0] > sizes[1]
    store = make_store(tmp_path / "store", clusters(4)[0], uri=[file.as_uri() for file in files], source_size=sizes)
    ids = [f"row-{row:03d}" for row in range(4)]
    table = pa.table({"id": ids[1:], "kind": ["near-duplicate"] * 3, "related": ids[:1] * 3})
    kept = Findings(table, store.path, "label", 4, [], 1.0).keep()
    assert [row["id"] for row in kept.to_pylist() if not row["excluded"]] == ["row-001"]


def test_keep_list_drops_copies_and_training_rows_of_leaks(findings: Findings) -> None:
    kept = {row["id"]: row for row in findings.keep().to_pylist()}
    assert len(kept) == ROWS
    dropped = {id for id, row in kept.items() if row["excluded"]}
    # Row 201 is a test row: its copy among the training rows goes.
    assert dropped == {f"row-{COPY:03d}", "row-020", f"row-{CONFLICT:03d}"}
    assert kept["row-020"]["excluded"] == "leak of row-201"


def test_keep_list_knows_training_rows_however_they_are_spelled(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", clusters(4)[0], split=["Training", "test", " TRAIN ", None])
    table = pa.table({"id": ["row-001", "row-002", "row-003"], "kind": ["leak"] * 3, "related": ["row-000"] * 3})
    kept = Findings(table, store.path, "label", 4, [], 1.0).keep()
    assert [row["id"] for row in kept.to_pylist() if not row["excluded"]] == ["row-001"]


def test_findings_are_saved_as_table_and_page(findings: Findings, tmp_path: Path) -> None:
    findings.save(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(findings)
    findings.save(tmp_path / "findings.html")
    page = (tmp_path / "findings.html").read_text(encoding="utf-8")
    for kind, count in findings.counts.items():
        assert (f'id="{kind.replace(" ", "-")}"' in page) == (count > 0)
    with pytest.raises(UsageError, match=r"\.pdf"):
        findings.save(tmp_path / "findings.pdf")


def test_rows_of_another_store_are_found(planted: embedpipe.FeatureStore, tmp_path: Path) -> None:
    X = planted.to_numpy()[:3]
    other = make_store(tmp_path / "other", X + 0.001)
    findings = clean(planted, against=other, near_duplicates=0.9999, progress=False)
    elsewhere = {row["id"]: row["related"] for row in findings.table.to_pylist() if str(row["related"]).startswith("/")}
    # The ids of the other store have the same content hashes here.
    assert elsewhere == {f"row-{row:03d}": f"{other.path}:row-{row:03d}" for row in range(3)}
    foreign = make_store(tmp_path / "foreign", X, "foreign")
    with pytest.raises(UsageError, match="stores must have the same backbone"):
        clean(planted, against=foreign, progress=False)


@pytest.mark.parametrize(
    ("columns", "note"),
    [
        ({}, "the store has no labels"),
        ({"label": [*[None] * 58, "a", "b"]}, "labels are not judged: "),
        ({"label": ["same"] * 60}, "all are the same"),
        ({"label": [value + 0.5 for value in range(60)]}, "holds numbers"),
        ({"label": [b"\xff%d" % (value % 2) for value in range(60)]}, "labels must be text, numbers or booleans"),
        ({"label": [f"class {value}" for value in range(60)]}, "labels are not judged: "),
    ],
)
def test_labels_that_cannot_be_judged_are_noted(tmp_path: Path, columns: dict[str, Any], note: str) -> None:
    X, _ = clusters(60)
    findings = clean(make_store(tmp_path / "store", X, **columns), progress=False)
    assert any(note in each for each in findings.notes), findings.notes
    assert findings.counts["label error"] == 0


def test_groups_stay_in_one_fold(tmp_path: Path) -> None:
    """Each patient has vectors of its own and one label: without groups its other photos give the label away."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 4)
    X = (rng.standard_normal((30, 32))[patients] + 0.2 * rng.standard_normal((120, 32))).astype(np.float32)
    labels = [f"class {patient % 2}" for patient in patients]
    store = make_store(tmp_path / "store", X, label=labels, patient=[f"p{patient}" for patient in patients])
    apart, together = (clean(store, near_duplicates=0.9999, group=group, progress=False) for group in (None, "patient"))
    assert apart.counts["label error"] == 0
    assert any("groups" in note or "folds" in note for note in together.notes)


def test_a_chain_of_duplicates_is_predicted_by_one_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is a duplicate of the one before it only, so that the last is related to the first by the others."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 12)).astype(np.float32)
    for row in range(80, 90):
        X[row] = X[row - 1] + 0.12 * rng.standard_normal(12).astype(np.float32)
    tested: list[np.ndarray[Any, Any]] = []
    usual = clean_module.held_out_probabilities

    def watched(X: Any, rows: Any, y: Any, splits: Any, *others: Any) -> Any:
        tested.extend(rows[resample.test] for resample in splits.resamples)
        return usual(X, rows, y, splits, *others)

    monkeypatch.setattr(clean_module, "held_out_probabilities", watched)
    store = make_store(tmp_path / "store", X, label=[f"class {row % 2}" for row in range(90)])
    findings = clean(store, near_duplicates=0.98, progress=False)
    chain = {int(row["id"][4:]): int(row["related"][4:]) for row in found(findings, "near-duplicate").values()}
    assert len({*chain} & {*chain.values()}) > 3  # rows that are related and have a related row
    fold = {int(row): number for number, rows in enumerate(tested) for row in rows}
    assert all(fold[row] == fold[related] for row, related in chain.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near_duplicates": 1.5}, r"near_duplicates must be a cosine in \(0, 1\], got 1.5"),
        ({"neighbours": 1}, "neighbours must be >= 2, got 1"),
        ({"outlier_z": 0.0}, "outlier_z must be > 0 and finite, got 0.0"),
        ({"outlier_z": float("inf")}, "outlier_z must be > 0 and finite, got inf"),
        ({"label": "species"}, "species"),
        ({"group": "patient"}, "patient"),
    ],
)
def test_bad_options_are_refused(planted: embedpipe.FeatureStore, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        clean(planted, **options)


def test_page_shows_pictures_side_by_side_and_a_broken_file_as_such(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    uris = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
        uris.append(path.as_uri())
    (tmp_path / "1.png").write_bytes(b"broken")
    X = rng.standard_normal((12, 8)).astype(np.float32)
    X[1], X[3] = X[0], X[2]
    findings = clean(make_store(tmp_path / "store", X, uri=uris), progress=False)
    page = findings.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert findings.counts["near-duplicate"] == 2
    assert page.count("<img") == 3
    assert "cannot be shown" in page
    assert "<span>--write-keep</span> <span>keep.csv</span>" in page  # no line ends within an option


def test_page_counts_one_finding_as_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", clusters(4)[0])
    table = pa.table({"id": ["row-001"], "kind": ["outlier"], "score": [9.0]})
    columns = {name: pa.nulls(1, pa.string()) for name in ("related", "label", "proposed", "split", "related_split")}
    for name, column in {**columns, "how": columns["label"]}.items():
        table = table.append_column(name, column)
    page = Findings(table, store.path, "label", 4, [], 1.0).to_html(tmp_path / "page.html")
    assert "<h1>1 finding in 4 rows</h1>" in page.read_text(encoding="utf-8")


def test_equal_vectors_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.ones((12, 4)), label=["a", "b"] * 6)
    with pytest.raises(TrainingDataError, match=r"vectors must differ to be compared, and all 12 of .* are equal"):
        clean(store)


def test_labels_that_are_nan_are_none(tmp_path: Path) -> None:
    X, y = clusters(60, spread=0.3)
    labels = [float("nan") if row % 10 == 0 else float(number) for row, number in enumerate(y)]
    column = pa.array(labels, from_pandas=False)
    store = make_store(tmp_path / "store", X)
    store.label(pa.table({"id": store.ids(), "label": column}))
    findings = clean(store, near_duplicates=0.9999, progress=False)
    assert not any("holds numbers" in note for note in findings.notes)
    assert sorted(embedpipe.next(store, count=60, progress=False).table["id"].to_pylist()) == sorted(store.ids()[::10])
    forecast = embedpipe.shift(store, store, progress=False)
    assert forecast.new_accuracy == 1
