"""`reduce`: shorter vectors, learned on the store, as one more layer of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import LayerSpec
from embedpipe.embedding.layers.options import ReduceOptions
from embedpipe.embedding.layers.principal_components import fit_components
from embedpipe.embedding.verification.drift import K, neighbours_kept
from embedpipe.embedding.verification.head_drift import HeadDrift, Labelled, compare_heads
from embedpipe.errors import UsageError
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.listing import split_name
from embedpipe.store import FeatureStore
from embedpipe.store.layers.extending import extend
from embedpipe.store.layers.projections import project, save_projection
from embedpipe.store.opening import open_store
from embedpipe.store.schema import EXCLUDED, matrix, require_column

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ReduceParameters

SEED = 0


@dataclass(frozen=True)
class ReduceReport:
    """What `reduce` made, and what it costs.

    Attributes
    ----------
    store, version
        Path and table version of the store.
    layer : str
        The new layer; ``reduced_from`` is the one from which it is computed.
    dimensions : int
        Length of its vectors; ``dim`` is that of the others.
    fitted_rows : int
        Number of rows on which the projection was learned. ``fitted_on`` says which.
    explained_variance : float
        Share of the variance of those rows that the projection keeps.
    compared : int
        Number of rows on which neighbours and heads were compared. ``compared_on`` says which.
    k : int
        Number of neighbours compared: 10, fewer in a smaller sample.
    neighbours_kept, nearest_kept : float or None
        Mean share of the k nearest neighbours by cosine, within the sample, that stay among the k nearest; share of
        rows whose nearest neighbour stays.
    head : HeadDrift or None
        Score on both layers of a linear head, ridge regression with a penalty chosen inside the training rows;
        ``no_head`` says why there is none.
    """

    store: str
    version: int
    layer: str
    reduced_from: str
    dimensions: int
    dim: int
    fitted_rows: int
    fitted_on: str
    explained_variance: float
    compared: int = 0
    compared_on: str = ""
    k: int = 0
    neighbours_kept: float | None = None
    nearest_kept: float | None = None
    head: HeadDrift | None = None
    no_head: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and dicts."""
        return asdict(self)


@takes_options(ReduceOptions)
@outages_raised()
def reduce(
    store: FeatureStore | str | Path, *, progress: bool | None = None, **options: Unpack[ReduceParameters]
) -> ReduceReport:
    """Add a layer of shorter vectors to a store: the principal components of one of its layers.

    The projection is learned on the rows of the split ``train``, if the store has one, else on all rows that are not in
    ``test``; without splits on all rows. It never sees labels. It is kept with the store and is part of the spec, so
    that new items, `predict` and `search` by picture go through it. All rows get the layer in one commit. What it costs
    is measured on rows that the projection has not seen, if there are such.

    Parameters
    ----------
    store : FeatureStore or path
        It gets the layer ``LAYER.pcaN`` or, whitened, ``LAYER.whiteN``.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    ReduceReport
        Explained variance, neighbours that stay, and the score of a head on both layers.

    Raises
    ------
    UsageError
        An option is invalid, the store has the layer, or its vectors do not vary in so many directions.
    ConcurrentWriteError
        Another process has changed the layers of the store.

    See Also
    --------
    embed : ``dimensions`` cuts the vectors of models that were trained for it.

    Notes
    -----
    Principal component analysis (Pearson, 1901); the components are those of scikit-learn's ``PCA``. In vectors of
    nearest neighbours by cosine it replaces the directions from zero by those from the mean.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    >>> store = embedpipe.embed(photos, tempfile.mkdtemp(), backbone="torchvision/resnet18", weights="none")
    >>> report = embedpipe.reduce(store, dimensions=8)
    >>> report.layer, store.refresh().layers
    ('features.pca8', {'features': 512, 'features.pca8': 8})
    """
    (chosen,) = build_options((ReduceOptions,), options)
    store = open_store(store, "reducing vectors").refresh()
    show = Progress(progress)
    source, *others = store.select_layers(chosen.layer, joined=False)
    name = f"{source.name}.{'white' if chosen.whiten else 'pca'}{chosen.dimensions}"
    if others or source.reduction:
        raise UsageError(f"{option('layer')} must be one layer of the network, got {chosen.layer or source.name!r}")
    if name in store.layers:
        raise UsageError(f"{store.path!r} has the layer {name!r} already: give other {option('dimensions')}")
    if chosen.dimensions >= source.dim:
        raise UsageError(
            f"{option('dimensions')} must be < {source.dim}, the length of the vectors of {source.name!r}, got "
            f"{chosen.dimensions}"
        )
    if chosen.label != "label":
        require_column(chosen.label, store.data_columns, store.path, "label")
    splits = _Splits(store)
    with show.step("learning the projection", len(store), "rows") as advance:
        found = fit_components(splits.blocks(source, advance), chosen.dimensions, whiten=chosen.whiten)
    reduction = save_projection(store.path, found.projection, source.name, chosen.whiten)
    layer = LayerSpec(name, source.pooling, chosen.dimensions, reduction)
    spec = replace(store.spec, layers=(*store.spec.layers, layer))
    with show.step("writing the store", len(store), "rows") as advance:

        def extended(rows: pa.Table) -> pa.Table:
            advance(len(rows))
            return project(rows, spec)

        extend(store, spec, extended, {"embedpipe.operation": f"reduce {source.name} to {name}"})
    report = ReduceReport(
        store.path,
        store.version,
        name,
        source.name,
        chosen.dimensions,
        source.dim,
        splits.fitted,
        splits.words,
        found.explained,
    )
    with show.step("measuring what it costs"):
        report = _measured(report, store, splits, (source, layer), chosen)
    show.event("summary", **report.to_dict())
    return report


class _Splits:
    """Which rows a projection is learned on."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._names = {split_name(name) for name in store.counts("split")} if "split" in store.data_columns else set()
        self.fitted = 0
        if "train" in self._names:
            self.words = "the rows of the split train"
        elif "test" in self._names:
            self.words = "all rows that are not in the split test"
        else:
            self.words = "all rows, as the store has no splits"

    def among(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return the mask of rows that the projection is learned on: of the right split, and not excluded."""
        used = np.ones(len(rows), bool)
        if EXCLUDED in rows.column_names:
            used = ~np.asarray(rows.column(EXCLUDED).is_valid(), bool)
        if not self._names & {"train", "test"}:
            return used
        names = [split_name(value) for value in rows.column("split").to_pylist()]
        right = [name == "train" if "train" in self._names else name != "test" for name in names]
        return np.asarray(used & np.array(right, bool))

    def blocks(self, layer: LayerSpec, advance: Any) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the vectors of those rows file by file."""
        known = [name for name in ("split", EXCLUDED) if name in self._store.data_columns]
        columns = [layer.column, *known]
        for file in self._store.table.files:
            rows = self._store.table.read_file(file, columns)
            X = matrix(rows.column(layer.column), layer.dim, layer.column)[self.among(rows)]
            self.fitted += len(X)
            advance(file.rows)
            if len(X):
                yield X
            pa.default_memory_pool().release_unused()  # otherwise Arrow keeps memory of every file


def _measured(
    report: ReduceReport,
    store: FeatureStore,
    splits: _Splits,
    layers: tuple[LayerSpec, LayerSpec],
    options: ReduceOptions,
) -> ReduceReport:
    """Compare neighbours and heads of a sample on both layers."""
    known = options.label in store.data_columns
    wanted = dict.fromkeys(["id", "split", EXCLUDED, options.label])
    rows = store.table.read([name for name in wanted if name == "id" or name in store.data_columns])
    unseen = ~splits.among(rows)
    pool = np.flatnonzero(unseen) if unseen.any() else np.arange(len(rows))
    chosen = np.sort(np.random.default_rng(SEED).choice(pool, min(options.sample, len(pool)), replace=False))
    if len(chosen) < 2:
        return report
    rows = rows.take(pa.array(chosen))
    before, after = (store.take(rows.column("id").to_pylist(), layer=layer.name) for layer in layers)
    k = min(K, len(rows) - 1)
    overlap, nearest = neighbours_kept(before, after, k)
    labels = Labelled.of(rows.column(options.label), options.label) if known else f"the store has no {options.label!r}"
    task = labels if isinstance(labels, str) else labels.among(np.ones(len(rows), bool))
    return replace(
        report,
        compared=len(rows),
        compared_on="rows that the projection has not seen" if unseen.any() else "rows that it was learned on",
        k=k,
        neighbours_kept=overlap,
        nearest_kept=nearest,
        head=None if isinstance(task, str) else compare_heads(before, after, task, rotated=True),
        no_head=task if isinstance(task, str) else None,
    )
