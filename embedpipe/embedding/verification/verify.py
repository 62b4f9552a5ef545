"""`verify`: check a store, embed a sample of it again, and measure the drift of a cheaper setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe._utils.options import Precision
from embedpipe._utils.progress import Progress
from embedpipe.backbones import BackboneSpec, reload_backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.decoding.recipe import Decode
from embedpipe.embedding.verification.drift import Drift, drifts, measure_drift, reference_of, with_precision
from embedpipe.embedding.verification.head_drift import Labelled
from embedpipe.embedding.verification.sampling import Sample, embed_sample
from embedpipe.errors import EmbedpipeError, UsageError
from embedpipe.store import FeatureStore
from embedpipe.store.data_files import damaged
from embedpipe.store.mapping.mapped_vectors import DamagedMapError
from embedpipe.store.mapping.vector_map import open_map
from embedpipe.store.opening import open_store
from embedpipe.store.repairing.damage import find_damage
from embedpipe.store.schema import matrix

#: Lowest cosine of a stored and a new vector that count as equal, by precision. Integer kernels differ between
#: processors, and one step of rounding is 1/127 of the range of a layer.
MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}

#: Largest 1 - cosine of a stored vector and of what its projection gives, by whether vectors are rounded.
MOST_ROUNDED = {False: 1e-4, True: 1e-2}

#: Default number of items to embed again: to compare vectors, and to compare neighbours and heads.
SAMPLE = 32
DRIFT_SAMPLE = 500


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    ok: bool
    detail: str


@dataclass(repr=False)
class VerifyReport:
    """Result of `verify`.

    Attributes
    ----------
    store, version, rows
        Path, table version and number of rows of the store.
    compared : int
        Sampled items that were embedded again and compared.
    changed, unreadable : int
        Sampled items that were not compared: their content has changed, or they cannot be read.
    min_cosine : float or None
        Lowest cosine between a stored and a new vector.
    max_relative_error : float or None
        Largest distance between a stored and a new vector, relative to the norm of the stored one.
    checks : list of Check
        Each check with ``name``, ``ok`` and ``detail``.
    drift : Drift or None
        Drift of a cheaper precision or decoding, if one was measured. It does not affect ``ok``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.zeros((2, 32, 32, 3), np.uint8)
    >>> store = embedpipe.embed(photos, tempfile.mkdtemp(), backbone="torchvision/resnet18", weights="none")
    >>> report = embedpipe.verify(store, sample=0)
    >>> [check.name for check in report.checks]
    ['files', 'ids', 'vectors']
    >>> report.ok
    True
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
        """Whether every check passed."""
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
    """Check the files, ids and vectors of a store, and embed a random sample of its items again.

    If the store has a reduced precision or scaled decoding, or one is given, the drift from fp32 and full decoding is
    measured too: how far the vectors move, which neighbours stay, and how the score of a head changes.

    Parameters
    ----------
    store : FeatureStore or path
        The store to check.
    sample : int, optional
        Number of items to embed again; 0 skips this check. Default: 32, or 500 if a drift is measured.
    precision, decode : str, optional
        Measure the drift of this precision and decoding. Default: those of the store.
    label : str, optional
        Column of labels for the comparison of heads. Default: ``label``, if the store has it.
    weights : str
        ``default``, or the weights file of a store that was made with one.
    device : str, optional
        Device to embed on. Default: the GPU if it works, else the CPU.
    trust : bool
        Run the code of a ``python:`` backbone. The store names this code, so trust only your own stores.
    seed : int
        Seed of the random sample.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    VerifyReport
        The checks, and the drift if it was measured.

    Raises
    ------
    UsageError
        An argument is invalid.
    EmbedpipeError
        The store cannot be opened, or its backbone cannot be loaded.

    See Also
    --------
    embed : Embed a source into a store.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.zeros((2, 32, 32, 3), np.uint8)
    >>> store = embedpipe.embed(photos, tempfile.mkdtemp(), backbone="torchvision/resnet18", weights="none")
    >>> embedpipe.verify(store, sample=0).ok
    True
    """
    if sample is not None and sample < 0:
        raise UsageError(f"{option('sample')} must be >= 0, got {sample}")
    store = open_store(store)
    cheaper = _cheaper(store, sample, precision, decode, label)
    report = VerifyReport(store.path, store.version, len(store))
    checks = report.checks
    show = Progress(progress)
    show.say_all(random_notes([store.spec]))
    with show.step("checking files"):
        checks.append(_check_files(store))
    if not checks[-1].ok:
        return report
    ids = pa.chunked_array([store.table.file_ids(file) for file in store.table.files], pa.string())
    doubled = len(ids) - len(pc.unique(ids))
    checks.append(Check("ids", not doubled, f"{doubled} ids occur twice" if doubled else f"{len(ids):,} unique ids"))
    checks.append(_check_vectors(store, show))
    with show.step("checking memory maps"):
        checks += _check_maps(store)
    count = sample if sample is not None else DRIFT_SAMPLE if cheaper else SAMPLE
    no_network = store.spec.is_imported and cheaper is None
    if count and len(store) and report.ok and not no_network:
        specs = dict.fromkeys([store.spec] if cheaper is None else [store.spec, reference_of(store.spec), cheaper])
        reload_options = ReloadOptions(weights, trust=trust)
        backbones = {spec: reload_backbone(spec, reload_options, device, "the store") for spec in specs}
        rows = _choose(store, label, count, seed)
        with show.step("embedding a sample", rows.num_rows) as advance:
            embedded = embed_sample(rows, list(backbones.values()), advance)
        vectors = dict(zip(backbones, embedded.vectors, strict=True))
        checks.append(_check_sample(store, rows, embedded, vectors[store.spec], report))
        if cheaper is not None and report.compared:
            labels = _labels(rows, embedded, label)
            report.drift = measure_drift(cheaper, vectors[reference_of(store.spec)], vectors[cheaper], labels)
    return report


def _cheaper(
    store: FeatureStore, sample: int | None, precision: Precision | None, decode: Decode | None, label: str | None
) -> BackboneSpec | None:
    """Return the spec whose drift is measured, if any: the given one, else that of the store."""
    if decode is not None and store.spec.modality == "text":
        raise UsageError(
            f"{option('decode')} is for stores of images, and {store.path!r} holds texts: leave it out, got {decode!r}"
        )
    cheaper = with_precision(store.spec, precision, decode)
    choices = f"give precision bf16, fp16 or int8, or for images {option('decode', 'scaled')}"
    if cheaper == reference_of(store.spec):
        if precision is not None or decode is not None:
            raise UsageError(
                f"{option('precision', 'fp32')} with full decoding is the reference of the drift: {choices}"
            )
        if label is not None:
            raise UsageError(f"{option('label', label)} needs a cheaper setting to compare heads on: {choices}")
        return None
    if sample == 0 and (precision or decode or label):
        raise UsageError(f"{option('sample')} must be >= 1 to measure a drift, got 0")
    if label is not None:
        store.to_arrow(["id", label])  # raises if the column does not exist
    return cheaper


def _check_files(store: FeatureStore) -> Check:
    """Compare all bytes of the data files with their checksums, and their ids and columns with log and schema."""
    failures = store.failures_table.open()
    for table in (store.table, *([failures] if failures else [])):
        for file, why in find_damage(table):
            if why:
                return Check("files", False, str(damaged(store.path, f"{file.path!r}: {why}")))
    return Check("files", True, f"{counted(len(store.table.files), 'file')}, {counted(len(store), 'row')}")


def _check_maps(store: FeatureStore) -> list[Check]:
    """Compare all bytes of the memory maps of this version with their checksums. There may be none."""
    checks = []
    for column, dim in store.dims.items():
        try:
            if vector_map := open_map(store.table, column, dim):
                vector_map.vectors.check()
                checks.append(Check("memory map", True, f"{column}: {vector_map.vectors.nbytes:,} bytes as written"))
        except DamagedMapError as error:
            checks.append(Check("memory map", False, str(error)))
    return checks


def _check_vectors(store: FeatureStore, show: Progress) -> Check:
    """Check all vectors, and compare those of reduced layers with what their projection gives."""
    bad = stale = 0
    reduced = [layer.column for layer in store.spec.layers if layer.reduction]
    with show.step("checking vectors", len(store), "rows") as advance:
        for file in store.table.files:
            try:
                table = store.table.read_file(file, list(store.dims))
                blocks = {name: matrix(table.column(name), dim, name) for name, dim in store.dims.items()}
                projected = store.spec.vectors(blocks) if reduced else {}
            except (EmbedpipeError, OSError, pa.ArrowException) as error:
                return Check("vectors", False, f"{file.path!r}: {error}")
            bad += int((~np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in blocks.values()])).sum())
            for name in reduced:
                stale += int((drifts(blocks[name], projected[name]) > MOST_ROUNDED[store.compressed]).sum())
            advance(file.rows)
    shape = ", ".join(f"{name} ({dim})" for name, dim in store.dims.items())
    if bad:
        return Check("vectors", False, f"{bad} rows hold NaN or infinite values")
    if stale:
        return Check("vectors", False, f"{stale} vectors of {reduced} are not those of their projection")
    return Check("vectors", True, f"all finite, lengths as declared: {shape}")


def _choose(store: FeatureStore, label: str | None, count: int, seed: int) -> pa.Table:
    """Return the rows, in id order, of a random sample of the items that have a uri."""
    wanted = label or "label"
    label_columns = [wanted] if wanted in store.data_columns else []
    rows = store.table.read([*dict.fromkeys(["id", "uri", "content_hash", *label_columns])])
    rows = rows.filter(pc.is_valid(rows.column("uri")))
    chosen = np.random.default_rng(seed).choice(rows.num_rows, min(count, rows.num_rows), replace=False)
    return rows.take(pa.array(np.sort(chosen)))


def _labels(rows: pa.Table, embedded: Sample, label: str | None) -> Labelled | str:
    if (name := label or "label") not in rows.column_names:
        return f"the store has no labels: name a column ({option('label', ...)})"
    return Labelled.of(rows.column(name).take(pa.array(embedded.rows)), name)


def _check_sample(
    store: FeatureStore,
    rows: pa.Table,
    embedded: Sample,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    report: VerifyReport,
) -> Check:
    """Compare the new vectors of a sample with the stored ones."""
    count = rows.num_rows
    report.compared, report.changed, report.unreadable = len(embedded.rows), embedded.changed, embedded.unreadable
    if not report.compared:
        reason = f": {report.changed} have changed (embed again), {report.unreadable} cannot be read" if count else ""
        return Check("sample", count == 0, f"none of {count} items could be compared{reason}")
    stored = store.table.rows(rows.column("id").take(pa.array(embedded.rows)).combine_chunks(), ["id", *store.dims])
    cosine, error = 1.0, 0.0
    for layer in store.spec.captured.layers:  # whitening would enlarge the differences of a reduced one
        expected, new = matrix(stored.column(layer.column), layer.dim, layer.column), vectors[layer.column]
        cosine = min(cosine, 1 - float(drifts(expected, new).max()))
        error = max(error, _moved(expected, new))
    report.min_cosine, report.max_relative_error = cosine, error
    detail = f"{report.compared} embedded again: cosine >= {cosine:.6f}, moved <= {error:.1e} of the norm"
    if report.changed or report.unreadable:
        detail += f"; not compared: {report.changed} changed, {report.unreadable} unreadable"
    return Check("sample", cosine >= MIN_COSINE[store.spec.precision], detail)


def _moved(stored: npt.NDArray[np.float32], new: npt.NDArray[np.float32]) -> float:
    """Return the largest distance between new and stored vectors, relative to the norm of the stored one."""
    a = stored.astype(np.float64)
    moved = np.linalg.norm(new - a, axis=1) / np.maximum(np.linalg.norm(a, axis=1), 1e-30)
    return float(np.where(np.isfinite(moved), moved, np.inf).max())
