"""`verify`: is a store whole, would the backbone still give the same vectors, and what does a cheaper one cost?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.precision import Precision
from embedpipe._utils.progress import Progress
from embedpipe.backbones import BackboneSpec, reload_backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.decoding.recipe import Decode
from embedpipe.embedding.verification.drift import Drift, drifts, measure_drift, reference_of, with_precision
from embedpipe.embedding.verification.head_drift import Labelled
from embedpipe.embedding.verification.sampling import Sample, embed_sample
from embedpipe.errors import EmbedpipeError, StoreError, UsageError
from embedpipe.store import FeatureStore
from embedpipe.store.schema import matrix

#: Lowest cosine between a stored vector and a new one that still counts as the same, by declared precision. Integer
#: kernels differ between processors, and a rounding that falls the other way is worth 1/127 of a layer's range.
MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}

#: Items that are embedded again where nobody says: to see that vectors are the same; to compare neighbours and heads.
SAMPLE = 32
DRIFT_SAMPLE = 500


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(repr=False)
class VerifyReport:
    """What `verify` found; ``ok`` if every check holds.

    ``compared`` rows were embedded again; ``changed`` ones have other content by now and ``unreadable``
    ones could not be read, so they were not compared. ``drift`` says how far a cheaper precision or decode moves the
    vectors, where there is one to measure; it is no check.
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
    drift: Drift | None = None

    def __repr__(self) -> str:
        checks = ", ".join(f"{check.name}={'ok' if check.ok else 'FAILED'}" for check in self.checks)
        return f"VerifyReport({self.store!r}, version={self.version}, rows={self.rows}, ok={self.ok}, {checks})"

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
    sample: int | None = None,
    precision: Precision | None = None,
    decode: Decode | None = None,
    label: str | None = None,
    weights: str = "default",
    device: str | None = None,
    trust: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> VerifyReport:
    """Check a store's files, ids and vectors, and embed a random sample of its items again.

    Of a store in a reduced precision or scaled decode, or where one is asked for, the sample is embedded in full
    precision too: how far do the vectors move, do neighbours stay, how good is a head on either?

    Parameters
    ----------
    store : FeatureStore or path
    sample : int, optional
        How many items to embed again; 0 skips that. By default 32, and 500 where a drift is measured.
    precision, decode : str, optional
        Measure what these would do to the vectors, before embedding with them; by default the store's own.
    label : str, optional
        The column of labels to compare heads on; ``label`` by default, where the store has it.
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
    if sample is not None and sample < 0:
        raise UsageError(f"sample={sample} is negative")
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    cheaper = _cheaper(store, sample, precision, decode, label)
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
    count = sample if sample is not None else DRIFT_SAMPLE if cheaper else SAMPLE
    if count and len(store) and report.ok:
        specs = dict.fromkeys([store.spec] if cheaper is None else [store.spec, reference_of(store.spec), cheaper])
        again = ReloadOptions(weights, trust=trust)
        backbones = {spec: reload_backbone(spec, again, device, "the store") for spec in specs}
        rows = _choose(store, label, count, seed)
        with show.step("embedding a sample", rows.num_rows) as advance:
            found = embed_sample(rows, list(backbones.values()), advance)
        vectors = dict(zip(backbones, found.vectors, strict=True))
        checks.append(_check_sample(store, rows, found, vectors[store.spec], report))
        if cheaper is not None and report.compared:
            labels = _labels(rows, found, label)
            report.drift = measure_drift(cheaper, vectors[reference_of(store.spec)], vectors[cheaper], labels)
    return report


def _cheaper(
    store: FeatureStore, sample: int | None, precision: Precision | None, decode: Decode | None, label: str | None
) -> BackboneSpec | None:
    """Return the spec whose drift is to be measured, if any: the one asked for, or the store's own."""
    if decode is not None and store.spec.modality == "text":
        raise UsageError(f"decode={decode!r} is for images, and {store.path!r} holds vectors of texts: leave it out")
    cheaper = with_precision(store.spec, precision, decode)
    others = "ask for bf16, fp16, int8 or, of images, decode='scaled'"
    if cheaper == reference_of(store.spec):
        if precision is not None or decode is not None:
            raise UsageError(f"precision='fp32' with full decoding is what drift is measured from: {others}")
        if label is not None:
            raise UsageError(f"label={label!r} is for comparing heads, and nothing is cheaper here: {others}")
        return None
    if sample == 0 and (precision or decode or label):
        raise UsageError("sample=0 leaves nothing to measure a drift on: take at least 1")
    if label is not None:
        store.to_arrow(["id", label])  # refuses a column that is not there
    return cheaper


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


def _choose(store: FeatureStore, label: str | None, count: int, seed: int) -> pa.Table:
    """Return the rows of a random sample of the items that can be read again, in id order."""
    wanted = label or "label"
    more = [wanted] if wanted in store.data_columns else []
    rows = store.table.read([*dict.fromkeys(["id", "uri", "content_hash", *more])])
    rows = rows.filter(pc.is_valid(rows.column("uri")))
    chosen = np.random.default_rng(seed).choice(rows.num_rows, min(count, rows.num_rows), replace=False)
    return rows.take(pa.array(np.sort(chosen)))


def _labels(rows: pa.Table, found: Sample, label: str | None) -> Labelled | str:
    if (name := label or "label") not in rows.column_names:
        return "the store has no labels: name a column with --label"
    return Labelled.of(rows.column(name).take(pa.array(found.rows)), name)


def _check_sample(
    store: FeatureStore,
    rows: pa.Table,
    found: Sample,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    report: VerifyReport,
) -> Check:
    """Compare the vectors of a sample that was embedded again with those in the store."""
    count = rows.num_rows
    report.compared, report.changed, report.unreadable = len(found.rows), found.changed, found.unreadable
    if not report.compared:
        why = (
            f": {report.changed} have changed since (embed again), {report.unreadable} cannot be read" if count else ""
        )
        return Check("sample", count == 0, f"none of {count} items could be compared{why}")
    stored = store.table.rows(rows.column("id").take(pa.array(found.rows)).combine_chunks(), ["id", *store.dims])
    cosine, error = 1.0, 0.0
    for name, dim in store.dims.items():
        expected = matrix(stored.column(name), dim, name)
        cosine = min(cosine, 1 - float(drifts(expected, vectors[name]).max()))
        error = max(error, _moved(expected, vectors[name]))
    report.min_cosine, report.max_relative_error = cosine, error
    detail = f"{report.compared} embedded again: cosine >= {cosine:.6f}, moved <= {error:.1e} of the norm"
    if report.changed or report.unreadable:
        detail += f"; {report.changed} changed since and {report.unreadable} unreadable were not compared"
    return Check("sample", cosine >= MIN_COSINE[store.spec.precision], detail)


def _moved(stored: npt.NDArray[np.float32], new: npt.NDArray[np.float32]) -> float:
    """Return the largest distance of a vector from the stored one, relative to that one's norm."""
    a = stored.astype(np.float64)
    moved = np.linalg.norm(new - a, axis=1) / np.maximum(np.linalg.norm(a, axis=1), 1e-30)
    return float(np.where(np.isfinite(moved), moved, np.inf).max())
