"""Whose label, split and metadata a row has: its source's, what was set by hand, or what it brought from a move."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from tiny_text_backbone import TINY_TEXT

import embedpipe
from embedpipe.embedding import EmbedSummary
from embedpipe.errors import StoreError, UsageError

Values = dict[str, tuple[object, ...]]


def embed(source: object, to: Path, **options: object) -> EmbedSummary:
    summary = embedpipe.embed(source, to, **{"backbone": TINY, "engine": "torch", **options}).summary
    assert isinstance(summary, EmbedSummary)
    return summary


def values(to: Path, *names: str) -> Values:
    store = embedpipe.FeatureStore(to)
    names = names or ("label",)
    rows = store.to_arrow([name for name in ("id", *names) if name in store.data_columns]).to_pylist()
    return {row["id"]: tuple(row.get(name) for name in names) for row in rows}


def label(to: Path, into: str = "label", **new: object) -> None:
    ids = [id.replace("_", ".") for id in new]
    embedpipe.FeatureStore(to).label(pa.table({"id": ids, "label": list(new.values())}), into=into)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Two copies of one photo, and another photo."""
    for name, seed in (("a.jpg", 1), ("b.jpg", 1), ("c.jpg", 2)):
        write_photo(tmp_path / "flat" / name, seed)
    return tmp_path / "flat"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("checksum", [False, True])
def test_copies_that_are_read_again_keep_their_own_values(flat: Path, to: Path, checksum: bool) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", b_jpg="dog", c_jpg="owl")
    label(to, "split", a_jpg="train", b_jpg="test")
    for name in ("a.jpg", "b.jpg"):
        os.utime(flat / name, ns=(1, 1))
        assert embed(flat, to, checksum=checksum).reused == 3
        assert values(to, "label", "split") == {
            "a.jpg": ("cat", "train"),
            "b.jpg": ("dog", "test"),
            "c.jpg": ("owl", None),
        }


@pytest.mark.parametrize("pool_first", [False, True])
def test_copy_in_an_unlabelled_pool_takes_only_the_vector(
    flat: Path, to: Path, tmp_path: Path, pool_first: bool
) -> None:
    shutil.copytree(flat, tmp_path / "pool")
    (flat / "a.csv").write_text("path,label,split,price\na.jpg,cat,test,10\nc.jpg,dog,train,20\n")
    runs = [lambda: embed(flat / "a.csv", to), lambda: embed(tmp_path / "pool", to, prefix="pool")]
    embedded = [run().embedded for run in (reversed(runs) if pool_first else runs)]
    assert embedded[1] == 0
    assert values(to, "label", "split", "price") == {
        "a.jpg": ("cat", "test", 10),
        "c.jpg": ("dog", "train", 20),
        **{f"pool/{name}.jpg": (None, None, None) for name in "abc"},
    }


def test_new_copy_of_a_labelled_photo_has_no_label(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, c_jpg="owl")
    shutil.copy(flat / "c.jpg", flat / "d.jpg")
    assert embed(flat, to).embedded == 0
    assert values(to)["d.jpg"] == (None,)


def test_moved_photo_takes_what_was_set_by_hand_once(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", b_jpg="dog", c_jpg="owl")
    (flat / "b.jpg").rename(flat / "z.jpg")
    assert embed(flat, to).reused == 3
    assert values(to) == {"a.jpg": ("cat",), "b.jpg": (None,), "c.jpg": ("owl",), "z.jpg": ("dog",)}
    shutil.copy(flat / "z.jpg", flat / "y.jpg")  # a copy, although b.jpg is gone
    embed(flat, to)
    assert values(to)["y.jpg"] == (None,)
    assert values(to)["z.jpg"] == ("dog",)


def test_photo_that_overwrites_another_brings_its_label(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", c_jpg="owl")
    (flat / "c.jpg").replace(flat / "a.jpg")
    embed(flat, to, checksum=True, prune=True)
    assert values(to) == {"a.jpg": ("owl",), "b.jpg": (None,)}


def test_photo_overwritten_by_a_copy_keeps_its_own_label(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", c_jpg="owl")
    shutil.copy(flat / "c.jpg", flat / "a.jpg")
    assert embed(flat, to, checksum=True).embedded == 0
    assert values(to) == {"a.jpg": ("cat",), "b.jpg": (None,), "c.jpg": ("owl",)}


def test_copy_in_another_source_keeps_its_own_values(flat: Path, to: Path, tmp_path: Path) -> None:
    shutil.copytree(flat, tmp_path / "other")
    embed(flat, to)
    embed(tmp_path / "other", to, prefix="other")
    label(to, c_jpg="owl")
    os.utime(tmp_path / "other/c.jpg", ns=(1, 1))
    embed(tmp_path / "other", to, prefix="other")
    (flat / "c.jpg").unlink()  # gone from its own source only
    shutil.copy(tmp_path / "other/c.jpg", tmp_path / "other/d.jpg")
    embed(tmp_path / "other", to, prefix="other")
    assert values(to)["other/c.jpg"] == values(to)["other/d.jpg"] == (None,)


def test_identical_texts_keep_their_own_labels(tmp_path: Path, to: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("id,text\na,ok\nb,ok\n")
    embed(table, to, backbone=TINY_TEXT, text="text")
    label(to, a="spam", b="ham")
    os.utime(table, ns=(1, 1))
    embed(table, to, backbone=TINY_TEXT, text="text", checksum=True)
    assert values(to) == {"a": ("spam",), "b": ("ham",)}


def test_source_that_was_renamed_keeps_what_was_set_by_hand(flat: Path, to: Path, tmp_path: Path) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", b_jpg="dog")
    embed(flat.rename(tmp_path / "renamed"), to)
    assert values(to) == {"a.jpg": ("cat",), "b.jpg": ("dog",), "c.jpg": (None,)}


def test_shards_keep_what_was_set_by_hand(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", b_jpg="dog", c_jpg="owl")
    (flat / "b.jpg").rename(flat / "z.jpg")
    for name in ("a.jpg", "c.jpg"):
        os.utime(flat / name, ns=(1, 1))
    for shard in ("1/2", "2/2"):
        embed(flat, to, shard=shard)
    assert values(to) == {"a.jpg": ("cat",), "b.jpg": (None,), "c.jpg": ("owl",), "z.jpg": ("dog",)}


def test_photos_that_swap_names_swap_labels(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, a_jpg="cat", c_jpg="owl")
    (flat / "a.jpg").rename(flat / "x")
    (flat / "c.jpg").rename(flat / "a.jpg")
    (flat / "x").rename(flat / "c.jpg")
    embed(flat, to, checksum=True)
    assert values(to) == {"a.jpg": ("owl",), "b.jpg": (None,), "c.jpg": ("cat",)}


def test_label_leaves_with_the_photo_and_not_to_the_next_of_that_name(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, c_jpg="owl")
    (flat / "c.jpg").rename(flat / "z.jpg")
    write_photo(flat / "c.jpg", seed=9, size=(44, 40))
    assert embed(flat, to).embedded == 1
    assert values(to)["c.jpg"] == (None,)
    assert values(to)["z.jpg"] == ("owl",)


def test_edited_photo_keeps_its_label(flat: Path, to: Path) -> None:
    embed(flat, to)
    label(to, c_jpg="owl")
    write_photo(flat / "c.jpg", seed=9, size=(44, 40))
    assert embed(flat, to).embedded == 1
    assert values(to)["c.jpg"] == ("owl",)


def test_folder_of_copies_keeps_labels_by_file_name_when_it_is_renamed(tmp_path: Path, to: Path) -> None:
    for name in "abc":
        write_photo(tmp_path / "flat/old" / f"{name}.jpg", 1)
    embed(tmp_path / "flat", to)
    store = embedpipe.FeatureStore(to)
    store.label(pa.table({"id": [f"old/{name}.jpg" for name in "abc"], "label": ["x", "y", "z"]}), into="split")
    (tmp_path / "flat/old").rename(tmp_path / "flat/new")
    assert not any("by order" in note for note in embed(tmp_path / "flat", to, prune=True, force=True).notes)
    assert values(to, "label", "split") == {f"new/{a}.jpg": ("new", b) for a, b in zip("abc", "xyz", strict=True)}


def test_labels_of_numbered_texts_follow_a_line_that_is_inserted(tmp_path: Path, to: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text\nfirst\nsecond\nthird\n")
    embed(table, to, backbone=TINY_TEXT, text="text")
    store = embedpipe.FeatureStore(to)
    store.label(pa.table({"id": ["row-00000000", "row-00000002"], "label": ["one", "three"]}))
    table.write_text("text\nnew\nfirst\nsecond\nthird\n")
    assert embed(table, to, backbone=TINY_TEXT, text="text").embedded == 1
    assert values(to, "text", "label") == {
        "row-00000000": ("new", None),
        "row-00000001": ("first", "one"),
        "row-00000002": ("second", None),
        "row-00000003": ("third", "three"),
    }


def test_lists_in_memory_do_not_take_labels_of_other_lists(to: Path) -> None:
    frame = {"text": ["same", "other"], "id": ["a", "b"]}
    embed(pa.table(frame), to, backbone=TINY_TEXT, text="text")
    label(to, a="spam")
    embed(pa.table({"text": ["same"], "id": ["c"]}), to, backbone=TINY_TEXT, text="text")
    assert values(to) == {"a": ("spam",), "b": (None,), "c": (None,)}


@pytest.fixture
def labelled(photos: Path, to: Path) -> int:
    """Twelve photos with three labels and splits set by hand, one photo touched since: the version of the store."""
    embed(photos, to)
    store = embedpipe.FeatureStore(to)
    by_hand = pa.table({"id": ["cat/0000.jpg", "cat/0003.jpg", "dog/0001.jpg"], "label": ["lion", "cat", "wolf"]})
    store.label(by_hand)
    store.label(by_hand.set_column(1, "label", pa.array(["train", "test", "test"])), into="split")
    os.utime(photos / "dog/0001.jpg", ns=(1, 1))
    return embedpipe.FeatureStore(to).version


def test_labels_set_by_hand_win(photos: Path, to: Path, labelled: int) -> None:
    for checksum in (False, True, False):
        summary = embed(photos, to, checksum=checksum)
        assert (summary.embedded, summary.reused, summary.conflicts) == (0, 12, {"label": 2})
        assert (
            "label: 2 values set by hand, other than the source's: kept (labels_from_source=True takes the source's)"
        ) in summary.notes
        assert values(to, "label", "split")["cat/0000.jpg"] == ("lion", "train")
        assert values(to, "label")["dog/0001.jpg"] == ("wolf",)
    assert embedpipe.FeatureStore(to).version == labelled + 1, "only the touched row was written"
    assert values(to, "set_by_hand")["cat/0000.jpg"] == ('{"label": "cat", "split": null}',)


@pytest.mark.usefixtures("labelled")
def test_labels_from_source_replace_those_set_by_hand(photos: Path, to: Path) -> None:
    summary = embed(photos, to, labels_from_source=True)
    assert summary.conflicts == {"label": 2}
    assert any("2 values set by hand, other than the source's: replaced" in note for note in summary.notes)
    assert values(to, "label", "split")["cat/0000.jpg"] == ("cat", "train"), "the source has no splits"
    assert embed(photos, to).conflicts == {}


def test_both_values_are_kept_when_the_source_changes(tmp_path: Path, to: Path) -> None:
    table = tmp_path / "texts.csv"
    for text in ("ham", "eggs", "", "ham"):
        table.write_text(f"id,text,label\na,one,{text}\nb,two,spam\n")
        embed(table, to, backbone=TINY_TEXT, text="text")
        if text == "ham":
            label(to, a="mine")
        source = f'"{text}"' if text else "null"
        assert values(to, "label", "set_by_hand")["a"] == ("mine", f'{{"label": {source}}}')


def test_number_set_by_hand_is_kept_beside_that_of_the_source(photos: Path, to: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.jpg"))[:2]
    table = pa.table({"path": paths, "id": ["a", "b"], "price": [1.5, 2.5]})
    embed(table, to)
    label(to, "price", a=7.0)
    assert embed(table, to).conflicts == {"price": 1}
    assert values(to, "price", "set_by_hand") == {"a": (7.0, '{"price": "1.5"}'), "b": (2.5, None)}
    embed(table, to, labels_from_source=True)
    assert values(to, "price", "set_by_hand") == {"a": (1.5, None), "b": (2.5, None)}


def test_label_that_was_emptied_by_hand_stays_empty(photos: Path, to: Path) -> None:
    embed(photos, to)
    embedpipe.FeatureStore(to).label(pa.table({"id": ["cat/0000.jpg"], "label": pa.array([None], pa.string())}))
    assert embed(photos, to).conflicts == {"label": 1}
    assert values(to)["cat/0000.jpg"] == (None,)


def test_value_that_the_source_no_longer_has_is_cleared_and_counted(tmp_path: Path, to: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("id,text,label,price\na,one,spam,1\nb,two,ham,2\n")
    embed(table, to, backbone=TINY_TEXT, text="text")
    table.write_text("id,text,label,price\na,one,,1\nb,two,ham,2\n")
    summary = embed(table, to, backbone=TINY_TEXT, text="text")
    assert values(to, "label", "price") == {"a": (None, 1), "b": ("ham", 2)}
    assert "label: 1 value cleared, which the source no longer has" in summary.notes
    assert not any("cleared" in note for note in embed(table, to, backbone=TINY_TEXT, text="text").notes)


def test_marks_cannot_be_set_nor_come_from_a_source(photos: Path, to: Path) -> None:
    embed(photos, to)
    with pytest.raises(UsageError, match="reserved"):
        label(to, "set_by_hand", a_jpg="{}")


def test_failed_label_leaves_no_file_behind(
    make_photos: Callable[..., Path], to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(6)
    for shard in ("1/2", "2/2"):  # two files
        embed(photos, to, shard=shard)
    store = embedpipe.FeatureStore(to)
    before = sorted(to.rglob("*.parquet"))
    broken = max(store.table.files, key=lambda file: file.path)
    (to / broken.path).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        store.label(
            pa.table(
                {
                    "id": store.table._ids or [p.relative_to(photos).as_posix() for p in photos.rglob("*.jpg")],
                    "label": ["x"] * 6,
                }
            )
        )
    assert sorted(to.rglob("*.parquet")) == before


def test_label_set_while_a_run_commits_is_kept(flat: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(flat, to)
    os.utime(flat / "c.jpg", ns=(1, 1))
    write = embedpipe.FeatureStore.write

    def label_first(store: embedpipe.FeatureStore, rows: Callable[[], pa.Table], note: object) -> object:
        made = [rows()]  # made before the label is set

        def rows_again() -> pa.Table:
            if made:
                label(to, c_jpg="owl")
                return made.pop()
            return rows()

        return write(store, rows_again, note)

    monkeypatch.setattr(embedpipe.FeatureStore, "write", label_first)
    embed(flat, to)
    assert values(to)["c.jpg"] == ("owl",)


def test_excerpts_of_texts_cannot_be_set_by_hand(tmp_path: Path, to: Path) -> None:
    (tmp_path / "texts.csv").write_text("id,text\na,one\nb,two\n")
    embed(tmp_path / "texts.csv", to, backbone=TINY_TEXT, text="text")
    with pytest.raises(UsageError, match="beginnings of the texts"):
        label(to, "text", a="other")


@pytest.mark.parametrize("marks", ['["label"]', '{"label": 1}', '{"id": "b"}', "{", "[" * 5000])
def test_damaged_marks_are_refused(flat: Path, to: Path, marks: str) -> None:
    embed(flat, to)
    label(to, c_jpg="owl")
    store = embedpipe.FeatureStore(to)
    rows = store.to_arrow()
    at = rows.schema.get_field_index("set_by_hand")
    store.write(rows.set_column(at, "set_by_hand", pa.array([None, None, marks])))
    os.utime(flat / "c.jpg", ns=(1, 1))
    with pytest.raises(StoreError, match="'set_by_hand' must hold JSON objects of texts"):
        embed(flat, to)
