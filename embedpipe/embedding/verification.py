"""`verify`: is a store whole, and would the backbone still give the same vectors?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.backbones import Backbone, ReloadOptions, reload_backbone
from embedpipe.decoding import payload_hash
from embedpipe.errors import EmbedpipeError, ItemError, StoreError, UsageError
from embedpipe.progress import Progress
from embedpipe.sources import read_uri
from embedpipe.store import FeatureStore
from embedpipe.store.schema import matrix

#: Lowest cosine between a stored vector and a new one that still counts as the same, by declared precision.
MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass
class VerifyReport:
    """What `verify` found; ``ok`` if every check holds.

    ``compared`` rows were embedded again; ``changed`` ones have other content by now and ``unreadable``
    ones could not be read, so they were not compared.
    """

    store: str
    version: int
    rows: int
    compared: int = 0
    changed: int = 0
    unreadable: int = 0
    min_cosine: float | None = None
    max_relative_error: float | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return {**asdict(self), "ok": self.ok}


def verify(
    store: FeatureStore | str | Path,
    *,
    sample: int = 32,
    weights: str = "default",
    device: str | None = None,
    trust: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> VerifyReport:
    """Check a store's files, ids and vectors, and embed a random sample of its items again.

    Parameters
    ----------
    store : FeatureStore or path
    sample : int
        How many items to embed again; 0 skips that.
    weights : str
        ``default``, or the weights file, for a store made with one.
    device : str, optional
        Where to embed; the fastest usable device by default.
    trust : bool
        Run the code that a ``python:`` backbone names. The name comes from the store's file, so only say
        so for a store of your own.
    seed : int
        Of the random choice.

    Raises
    ------
    UsageError
        If an argument is wrong.
    EmbedpipeError
        If the store cannot be opened, or its backbone cannot be loaded.
    """
    if sample < 0:
        raise UsageError(f"sample={sample} is negative")
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    report = VerifyReport(store.path, store.version, len(store))
    checks = report.checks
    show = Progress(progress)
    checks.append(_check_files(store))
    if not checks[-1].ok:
        return report
    ids = store.table.read(["id"]).column("id")
    doubled = len(ids) - len(pc.unique(ids))
    checks.append(Check("ids", not doubled, f"{doubled} ids come twice" if doubled else f"{len(ids):,} ids, each once"))
    checks.append(_check_vectors(store, show))
    if sample and len(store) and report.ok:
        backbone = reload_backbone(store.spec, ReloadOptions(weights, trust=trust), device, "the store")
        checks.append(_check_sample(store, backbone, sample, seed, report, show))
    return report


def _check_files(store: FeatureStore) -> Check:
    rows = 0
    for file in store.table.files:
        try:
            with store.table.open_file(file) as parquet:
                found = parquet.metadata.num_rows
        except StoreError as error:
            return Check("files", False, str(error))
        if found != file.rows:
            return Check("files", False, f"{file.path!r} has {found:,} rows where the log says {file.rows:,}")
        rows += found
    return Check("files", True, f"{len(store.table.files)} files, {rows:,} rows")


def _check_vectors(store: FeatureStore, show: Progress) -> Check:
    bad = 0
    with show.step("checking vectors", len(store), "rows") as advance:
        for file in store.table.files:
            try:
                table = store.table.read_file(file, list(store.dims))
                blocks = [matrix(table.column(name), dim, name) for name, dim in store.dims.items()]
            except (EmbedpipeError, OSError, pa.ArrowException) as error:
                return Check("vectors", False, f"{file.path!r}: {error}")
            bad += int((~np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in blocks])).sum())
            advance(file.rows)
    shape = ", ".join(f"{name} ({dim})" for name, dim in store.dims.items())
    return Check(
        "vectors",
        not bad,
        f"{bad} rows hold NaN or infinite values" if bad else f"all finite and whole: {shape}",
    )


def _check_sample(
    store: FeatureStore, backbone: Backbone, sample: int, seed: int, report: VerifyReport, show: Progress
) -> Check:
    rows = store.table.read(["id", "uri", "content_hash"])
    rows = rows.filter(pc.is_valid(rows.column("uri")))
    count = min(sample, rows.num_rows)
    chosen = np.sort(np.random.default_rng(seed).choice(rows.num_rows, count, replace=False))
    rows = rows.take(pa.array(chosen))
    stored = store.table.rows(rows.column("id").combine_chunks(), ["id", *store.dims])
    expected = {name: matrix(stored.column(name), dim, name) for name, dim in store.dims.items()}
    cosines, errors = [1.0], [0.0]
    with show.step("embedding a sample", count) as advance:
        for at, row in enumerate(rows.to_pylist()):
            advance()
            try:
                payload = read_uri(row["uri"], store.spec.modality)
                if payload_hash(payload) != row["content_hash"]:
                    report.changed += 1
                    continue
                vectors = backbone.forward([backbone.prepare(payload).value])
            except ItemError:
                report.unreadable += 1
                continue
            for name in store.dims:
                cosine, error = _compare(expected[name][at], vectors[name][0])
                cosines.append(cosine)
                errors.append(error)
            report.compared += 1
    if not report.compared:
        why = (
            f": {report.changed} have changed since (embed again), {report.unreadable} cannot be read" if count else ""
        )
        return Check("sample", count == 0, f"none of {count} items could be compared{why}")
    report.min_cosine, report.max_relative_error = min(cosines), max(errors)
    ok = report.min_cosine >= MIN_COSINE[store.spec.precision]
    detail = (
        f"{report.compared} embedded again: cosine >= {report.min_cosine:.6f}, "
        f"moved <= {report.max_relative_error:.1e} of the norm"
    )
    if report.changed or report.unreadable:
        detail += f"; {report.changed} changed since and {report.unreadable} unreadable were not compared"
    return Check("sample", ok, detail)


def _compare(stored: npt.NDArray[np.float32], new: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the cosine of two vectors, and their distance relative to the stored one's norm."""
    a, b = stored.astype(np.float64), new.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(a @ b / norms) if norms else float(np.array_equal(a, b))
    return cosine, float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30))
