"""Sequences of changes of a folder, of labels and of runs: the store always equals a small model of its rows."""

from __future__ import annotations

import io
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from conftest import TINY
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.backbones.backbone import Backbone
from embedpipe.embedding import RunOptions
from embedpipe.embedding.updating import embed_listing
from embedpipe.sources import open_source

PATHS = ("a.png", "b.png", "x/a.png", "x/b.png", "y/a.png")
Step = tuple[Any, ...]


def picture(content: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8 + content, 8), (80 * content, 10, 200)).save(buffer, "png")
    return buffer.getvalue()


PICTURES = [picture(content) for content in range(3)]


@dataclass
class Row:
    """What a row of the store is expected to hold. ``hand`` has the columns that were set by hand."""

    content: int
    hand: dict[str, str] = field(default_factory=dict)


def source_label(id: str) -> str | None:
    return id.split("/")[0] if "/" in id else None


class Model:
    """A folder of files, and the rows of its store."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.rows: dict[str, Row] = {}

    def embed(self, prune: bool, from_source: bool) -> None:
        files = dict(sorted(self.files.items(), key=lambda pair: ("/" in pair[0], pair[0])))
        same = {id for id, row in self.rows.items() if files.get(id) == row.content}
        origins: dict[str, str] = {}
        for content in range(len(PICTURES)):
            left = [
                id for id, row in sorted(self.rows.items()) if row.content == content and row.hand and id not in same
            ]
            arrived = [id for id, other in files.items() if other == content and id not in same]
            for by_name in (True, False):
                for id in arrived:
                    for origin in left:
                        if id not in origins and (not by_name or Path(id).name == Path(origin).name):
                            origins[id] = origin
                            left.remove(origin)
                            break
        before = {id: dict(row.hand) for id, row in self.rows.items()}
        for origin in origins.values():
            self.rows[origin].hand = {}
        for id, content in files.items():
            hand = before[origins[id]] if id in origins else dict(self.rows[id].hand) if id in self.rows else {}
            if from_source and source_label(id):
                hand.pop("label", None)
            self.rows[id] = Row(content, hand)
        if prune:
            self.rows = {id: row for id, row in self.rows.items() if id in files}

    def values(self) -> dict[str, dict[str, object]]:
        return {
            id: {
                "label": row.hand.get("label", source_label(id)),
                "split": row.hand.get("split"),
                "by hand": sorted(row.hand),
                "content": row.content,
            }
            for id, row in self.rows.items()
        }

    def conflicts(self) -> dict[str, int]:
        labels = [(row.hand.get("label"), source_label(id)) for id, row in self.rows.items() if id in self.files]
        count = sum(mine is not None and theirs is not None and mine != theirs for mine, theirs in labels)
        return {"label": count} if count else {}


class World:
    """The folder and the store itself."""

    def __init__(self, folder: Path, backbone: Backbone, vectors: npt.NDArray[np.float32]) -> None:
        self.root, self.to, self.backbone, self.vectors = folder / "p", folder / "s", backbone, vectors
        self.clock = 0

    def write(self, path: str, content: int) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(PICTURES[content])
        self.touch(path)

    def touch(self, path: str) -> None:
        self.clock += 1
        os.utime(self.root / path, ns=(self.clock, self.clock))

    def embed(self, **options: bool) -> embedpipe.FeatureStore:
        store = embedpipe.FeatureStore.create(self.to, self.backbone.spec)
        options = {"force": options.get("prune", False), **options}
        run = RunOptions(engine="torch", threads=1, **options)
        store.summary = embed_listing(open_source(self.root), store, self.backbone, run, Progress(False))
        return store

    def values(self) -> dict[str, dict[str, object]]:
        store = embedpipe.FeatureStore(self.to)
        rows = store.to_arrow(store.data_columns).to_pylist()
        near = np.abs(store.to_numpy()[:, None] - self.vectors).max(2).argmin(1)
        return {
            row["id"]: {
                "label": row.get("label"),
                "split": row.get("split"),
                "by hand": sorted(json.loads(row.get("set_by_hand") or "{}")),
                "content": int(content),
            }
            for row, content in zip(rows, near, strict=True)
        }


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return embedpipe.load_backbone(TINY)


def run(steps: list[Step], backbone: Backbone, folder: Path) -> None:
    vectors = backbone.forward(np.stack([backbone.prepare(data).value for data in PICTURES]))["embedding"]
    model, world = Model(), World(folder, backbone, vectors)
    for step in [("write", "a.png", 0), *steps, ("embed", False, False, False)]:
        apply(step, model, world)


def apply(step: Step, model: Model, world: World) -> None:
    """Take a step in the model and in the world, and compare the rows after a run."""
    name, *args = step
    if name == "embed":
        checksum, prune, from_source = args
        if not model.files:
            return
        before = model.conflicts()
        model.embed(prune, from_source)
        store = world.embed(checksum=checksum, prune=prune, labels_from_source=from_source)
        assert world.values() == model.values()
        assert from_source or store.summary.conflicts == model.conflicts(), before
        again = world.embed(labels_from_source=from_source, checksum=checksum)
        assert (again.summary.embedded, again.version) == (0, store.version)
    elif name == "label":
        id, column, value = args
        if id in model.rows:
            model.rows[id].hand[column] = value
            embedpipe.FeatureStore(world.to).label(pa.table({"id": [id], "label": [value]}), into=column)
    elif name == "write":
        model.files[args[0]] = args[1]
        world.write(*args)
    elif args[0] in model.files:
        path, *to = args
        if name == "touch":
            world.touch(path)
        elif name == "delete":
            del model.files[path]
            (world.root / path).unlink()
        elif path != to[0]:
            content = model.files.pop(path) if name == "move" else model.files[path]
            model.files[to[0]] = content
            world.write(to[0], content)
            if name == "move":
                (world.root / path).unlink()


def steps() -> st.SearchStrategy[list[Step]]:
    path, flag = st.sampled_from(PATHS), st.booleans()
    embed = st.tuples(st.just("embed"), flag, flag, st.sampled_from([False, False, False, True]))
    label = st.tuples(st.just("label"), path, st.sampled_from(["label", "split"]), st.sampled_from("xyz"))
    write = st.tuples(st.just("write"), path, st.sampled_from(range(len(PICTURES))))
    change = st.tuples(st.sampled_from(["copy", "move"]), path, path)
    other = st.tuples(st.sampled_from(["touch", "delete"]), path)
    return st.lists(st.one_of(write, embed, label, label, change, change, other, embed), min_size=4, max_size=14)


RUN: Step = ("embed", False, False, False)


@example([("write", "b.png", 0), RUN, ("label", "a.png", "label", "x"), ("move", "a.png", "x/b.png"), RUN])
@example([RUN, ("label", "a.png", "label", "x"), ("copy", "a.png", "x/a.png"), ("delete", "a.png"), RUN])
@example([("write", "x/a.png", 1), RUN, ("label", "x/a.png", "label", "y"), ("touch", "x/a.png"), RUN])
@given(steps())
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_store_equals_the_model_after_any_steps(backbone: Backbone, steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(steps, backbone, Path(folder))


@pytest.mark.long
@given(steps())
@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_store_equals_the_model_after_long_random_sequences(backbone: Backbone, steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(steps, backbone, Path(folder))
