"""What is damaged: small stores, heads, runs and caches, and what is read from each of them.

A specimen is made in a folder, which holds its cache too. Observing it gives, for each step, a digest of the result, or
the error. Observing twice gives the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from coloured import colours
from stored import clusters, make_store

import embedpipe
from embedpipe.errors import EmbedpipeError, Failure

TINY = "python:tiny_backbone.make"
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 8, "trust": True, "near_duplicates": "off", "progress": False}
ROWS = 30

Steps = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Specimen:
    """Files of embedpipe's, how they are made, and what is read from them.

    Parameters
    ----------
    make : callable
        Takes an empty folder.
    observe : callable
        Takes the folder, and returns steps by name: functions whose results are compared.
    kinds : mapping of str to str
        Kind of file -> pattern of the files to damage, relative to the folder.
    slow : bool
        Whether it takes seconds to observe.
    """

    make: Callable[[Path], None]
    observe: Callable[[Path], Steps]
    kinds: Mapping[str, str]
    slow: bool = True


def make(name: str, folder: str) -> None:
    """Make a specimen in a new folder."""
    Path(folder).mkdir(parents=True)
    with _own_cache(Path(folder)):
        SPECIMENS[name].make(Path(folder))


def observe(name: str, folder: str) -> dict[str, list[str]]:
    """Return the outcome of each step: ``["is", digest]``, ``["refused", message]`` or ``["raised", exception]``."""
    outcomes = {}
    with _own_cache(Path(folder)):
        for step, read in SPECIMENS[name].observe(Path(folder)).items():
            try:
                outcomes[step] = ["is", digest(read())]
            except EmbedpipeError as error:
                outcomes[step] = ["refused", f"{type(error).__name__}: {error}"]
            except Exception as error:
                outcomes[step] = ["raised", f"{type(error).__name__}: {error}"]
    return outcomes


def digest(value: Any) -> str:
    """Return a hash of arrays, tables, numbers, strings and what they are nested in."""
    hashed = hashlib.sha256()
    for piece in _pieces(value):
        hashed.update(piece)
    return hashed.hexdigest()[:16]


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield repr(value.tolist()).encode() if value.dtype == object else np.ascontiguousarray(value).tobytes()
    elif isinstance(value, pa.Table):
        yield repr([(field.name, str(field.type)) for field in value.schema]).encode()
        yield repr(value.to_pylist()).encode()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from _pieces(value[key])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _pieces(each)
    elif dataclasses.is_dataclass(value):
        yield from _pieces({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    else:
        yield repr(value).encode()


@contextlib.contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("EMBEDPIPE_CACHE")
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("EMBEDPIPE_CACHE")
        if before is not None:
            os.environ["EMBEDPIPE_CACHE"] = before


def _labels(rows: int) -> list[str]:
    return ["abc"[i % 3] for i in range(rows)]


# A store of several files, with a checkpoint of its log, and a table of failures.


def _make_store(folder: Path) -> None:
    X = clusters(ROWS)[0]
    store = make_store(folder / "store", X[:10], label=_labels(10))
    for start in (10, 20):
        rows = {
            "id": [f"row-{i:03d}" for i in range(start, start + 10)],
            "content_hash": [f"{i:064x}" for i in range(start, start + 10)],
            "source_root": ["made up"] * 10,
            "label": _labels(10),
            "embedding": store.schema.field("embedding").type and pa.array(X[start : start + 10].tolist(), _vectors()),
        }
        store.write(pa.table(rows), {"embedpipe.note": f"rows from {start}"})
        if start == 10:
            store.refresh().table.delta.create_checkpoint()
    failures = [Failure(f"bad-{i}", f"/photos/{i}.jpg", "decode", "ValueError", "truncated") for i in range(5)]
    store.failures_table.record(failures, "made up")


def _vectors() -> pa.DataType:
    from embedpipe.store.schema import VECTOR

    return VECTOR


def _observe_store(folder: Path) -> Steps:
    path = folder / "store"

    def write_again() -> Any:
        """Write what is stored once more: nothing may change or be doubled."""
        copy = folder / "copy"
        shutil.copytree(path, copy)
        try:
            store = embedpipe.FeatureStore(copy)
            change = store.write(store.to_arrow(), {"embedpipe.note": "again"})
            return change, embedpipe.FeatureStore(copy).ids()
        finally:
            shutil.rmtree(copy)

    return {
        "vectors": lambda: embedpipe.FeatureStore(path).to_numpy(),
        "rows": lambda: embedpipe.FeatureStore(path).to_arrow(),
        "labels": lambda: embedpipe.FeatureStore(path).to_numpy("label"),
        "take": lambda: embedpipe.FeatureStore(path).take(["row-003", "row-013", "row-023"]),
        "spec": lambda: embedpipe.FeatureStore(path).spec.to_dict(),
        "failures": lambda: embedpipe.FeatureStore(path).failures(),
        "history": lambda: [
            {key: value for key, value in commit.items() if key.startswith("embedpipe.")}  # the rest is delta-rs's
            for commit in embedpipe.FeatureStore(path).history()
        ],
        "write again": write_again,
    }


# Heads: linear, and kNN, whose rows are in a file of their own.


def _make_heads(folder: Path) -> None:
    X, y = clusters(60, spread=1.5)
    store = make_store(folder / "store", X, label=[f"class {k}" for k in y])
    embedpipe.fit(store, "logreg", calibrate=True, to=folder / "linear")
    embedpipe.fit(store, "knn", to=folder / "knn")


def _observe_heads(folder: Path) -> Steps:
    X = clusters(20, spread=1.5, seed=1)[0]

    def read(name: str) -> Any:
        head = embedpipe.load_head(folder / name)
        fields = {f.name: getattr(head, f.name) for f in dataclasses.fields(head) if f.name != "estimator"}
        return repr(head), fields, head.estimator.predict(X), head.estimator.predict_proba(X)

    return {"linear": lambda: read("linear"), "knn": lambda: read("knn")}


# Fine-tuning: a finished run, an interrupted one, and a benchmark.


class _StopError(Exception):
    """Ends a run after its first epoch."""


def _stop(epochs: list[Any]) -> None:
    if len(epochs) > 1:
        raise _StopError


def _make_finished_run(folder: Path) -> None:
    embedpipe.embed(colours(folder / "photos", ROWS), folder / "store", backbone=TINY, engine="torch")
    embedpipe.finetune(folder / "store", to=folder / "run", **FAST)


def _observe_finished_run(folder: Path) -> Steps:
    run = folder / "run"

    def vectors() -> Any:
        backbone = f"checkpoint/{run / 'backbone.safetensors'}"
        shutil.rmtree(folder / "new", ignore_errors=True)
        store = embedpipe.embed(folder / "photos", folder / "new", backbone=backbone, arch=TINY, engine="torch")
        return store.to_numpy(), store.spec.to_dict()

    def last() -> Any:
        backbone = embedpipe.load_backbone(f"checkpoint/{run / 'last.safetensors'}", arch=TINY)
        return backbone.spec.to_dict()

    def predictions() -> Any:
        head = embedpipe.load_head(run / "head")
        rows = head.predict(folder / "photos", weights=str(run / "backbone.safetensors"), trust=True)
        return rows, repr(head.report)

    def compared() -> Any:
        store, splits = embedpipe.FeatureStore(folder / "store"), str(run / "splits.parquet")
        return embedpipe.evaluate([store], heads=["ridge"], splits=splits, repeats=1).predictions

    return {
        "result": lambda: embedpipe.finetune(folder / "store", to=run, **FAST).to_dict(),
        "vectors": vectors,
        "last weights": last,
        "predictions": predictions,
        "splits": compared,
    }


def _make_stopped_run(folder: Path) -> None:
    embedpipe.embed(colours(folder / "photos", ROWS), folder / "store", backbone=TINY, engine="torch")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(_StopError):
        patch.setattr("embedpipe.finetuning.training.trainer.SAVE_SECONDS", 0)
        embedpipe.finetune(folder / "store", to=folder / "run", on_epoch=_stop, **FAST)


def _observe_stopped_run(folder: Path) -> Steps:
    def resumed() -> Any:
        result = embedpipe.finetune(folder / "store", to=folder / "run", **FAST).to_dict()
        del result["seconds"]
        for epoch in result["epochs"]:
            del epoch["seconds"]
        weights = hashlib.sha256((folder / "run" / "last.safetensors").read_bytes()).hexdigest()
        return result, weights

    return {"resumed": resumed}


BENCHMARK: dict[str, Any] = {"seeds": 1, "label_counts": (12,), "corruptions": ("fog",), "severities": (1,)}


def _make_benchmark(folder: Path) -> None:
    embedpipe.embed(colours(folder / "photos", ROWS), folder / "store", backbone=TINY, engine="torch")
    _benchmark(folder)


def _benchmark(folder: Path) -> Any:
    return embedpipe.benchmark(folder / "store", to=folder / "run", **FAST, **BENCHMARK)


# Caches: what is there is used again, or made again.


def _make_map(folder: Path) -> None:
    X = np.random.default_rng(0).standard_normal((9000, 128)).astype(np.float32)
    make_store(folder / "store", X).mapped()


def _observe_map(folder: Path) -> Steps:
    path = folder / "store"

    def take() -> Any:
        return embedpipe.FeatureStore(path).take([f"row-{i:03d}" for i in (0, 17, 4000, 8999)])

    return {
        "take": take,
        "mapped": lambda: np.array(embedpipe.FeatureStore(path).mapped()),
        "vectors": lambda: embedpipe.FeatureStore(path).to_numpy(),
        "take again": take,
    }


def _engine_is_right(folder: Path) -> bool:
    """Return whether the exported network, taken for three times as fast as torch, gives torch's vectors."""
    import torch

    from embedpipe.backbones import BackboneOptions, load_with_options
    from embedpipe.backbones.engines import choice

    vars(choice).update(speedup=lambda *given: 3.0)
    plain = load_with_options(BackboneOptions("timm/test_resnet", "none"), "cpu")
    backbone = plain.accelerated(choice.FEWEST)
    assert backbone.engine_name.startswith("OpenVINO"), backbone.engine_reason
    height, width = plain.spec.preprocessing.crop
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, height, width, 3), np.uint8))
    by_torch, by_engine = plain.forward(pixels), backbone.forward(pixels)
    return choice.largest_distance([*by_torch.values()], [*by_engine.values()]) < 1e-5


def _make_engine(folder: Path) -> None:
    assert _engine_is_right(folder)


def _make_evaluation(folder: Path) -> None:
    X, y = clusters(60, spread=1.5)
    make_store(folder / "store", X, label=[f"class {k}" for k in y])
    _evaluate(folder)


def _evaluate(folder: Path) -> Any:
    store, splits = embedpipe.FeatureStore(folder / "store"), str(folder / "splits.parquet")
    result = embedpipe.evaluate([store], heads=["ridge", "logreg"], splits=splits, repeats=1, near_duplicates="off")
    named = ("name", "metrics", "estimates", "difference", "calibrated", "chosen")
    return result.predictions, [[getattr(each, name) for name in named] for each in result.candidates], result.notes


def _make_rank(folder: Path) -> None:
    colours(folder / "photos", ROWS)
    _rank(folder)


def _rank(folder: Path) -> Any:
    result = embedpipe.rank(folder / "photos", backbones=[TINY], engine="torch", progress=False)
    values = json.loads(json.dumps(result.to_dict(), default=str))
    return _without_time(values)


def _without_time(value: Any) -> Any:
    if isinstance(value, dict):
        timed = ("seconds", "second", "bytes", "cost")
        return {k: _without_time(v) for k, v in value.items() if not any(word in k for word in timed)}
    return [_without_time(each) for each in value] if isinstance(value, list) else value


def _make_transformer(folder: Path) -> None:
    colours(folder / "photos", ROWS)
    _transform(folder)


def _transform(folder: Path) -> Any:
    from embedpipe import EmbeddingTransformer

    return EmbeddingTransformer(TINY).fit_transform(sorted((folder / "photos").rglob("*.png")))


SPECIMENS: dict[str, Specimen] = {
    "store": Specimen(
        _make_store,
        _observe_store,
        {
            "data": "store/*.parquet",
            "log": "store/_delta_log/*.json",
            "checkpoint": "store/_delta_log/*.checkpoint.parquet",
            "last checkpoint": "store/_delta_log/_last_checkpoint",
            "failures data": "store/_failures/*.parquet",
            "failures log": "store/_failures/_delta_log/*.json",
        },
        slow=False,
    ),
    "head": Specimen(
        _make_heads,
        _observe_heads,
        {"manifest": "*/manifest.json", "estimator": "*/head.skops", "neighbours": "*/neighbours.faiss"},
        slow=False,
    ),
    "finished run": Specimen(
        _make_finished_run,
        _observe_finished_run,
        {
            "run weights": "run/*.safetensors",
            "run result": "run/result.json",
            "run splits": "run/splits.parquet",
            "run head": "run/head/*",
        },
    ),
    "stopped run": Specimen(_make_stopped_run, _observe_stopped_run, {"run state": "run/state.pt"}),
    "benchmark": Specimen(
        _make_benchmark,
        lambda folder: {"result": lambda: _benchmark(folder)},
        {"benchmark run": "run/run.json", "benchmark cells": "run/cells/*.json"},
    ),
    "map": Specimen(
        _make_map,
        _observe_map,
        {
            "map vectors": "cache/vectors/*/*/vectors*",
            "map ids": "cache/vectors/*/*/ids*",
            "map description": "cache/vectors/*/*/about*",
        },
        slow=False,
    ),
    "engine": Specimen(
        _make_engine,
        lambda folder: {"vectors": lambda: _engine_is_right(folder)},
        {"engine weights": "cache/engines/*/*.bin", "engine network": "cache/engines/*/*.xml"},
    ),
    "evaluation": Specimen(
        _make_evaluation,
        lambda folder: {"evaluate": lambda: _evaluate(folder)},
        {"evaluation cache": "cache/evaluations/**/*", "splits": "splits.parquet"},
    ),
    "rank": Specimen(_make_rank, lambda folder: {"rank": lambda: _rank(folder)}, {"rank cache": "cache/rank/**/*.*"}),
    "transformer": Specimen(
        _make_transformer,
        lambda folder: {"transform": lambda: _transform(folder)},
        {"transformer cache": "cache/transformer/**/*.*"},
    ),
}
