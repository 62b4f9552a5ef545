"""Vectors to rank: a sample embedded by each backbone into stores of the cache folder, or vectors of given stores."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.cache import drop_entry, keep_limit, mark_used, open_cache
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.progress import Progress
from embedpipe.backbones.imagenet_accuracy import ImageNetAccuracy, find_imagenet_accuracy
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.summary import EmbedSummary
from embedpipe.errors import ItemError, SourceError, StoreError
from embedpipe.sources.listing import Listing
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_vectors

#: The part of the cache folder that holds the stores.
PART = "rank"
#: Number of items to measure the cost on, if the sample is embedded already and its cost was not saved.
COST_ITEMS = 64


@dataclass(frozen=True)
class EmbeddingCost:
    """Time to embed on this machine, without loading the network.

    Attributes
    ----------
    seconds : float
        For 1,000 items, with reading and decoding.
    engine : str
        The engine of the network.
    items : int
        Number of items of the measurement.
    """

    seconds: float
    engine: str
    items: int


@dataclass
class BackboneCandidate:
    """A layer of a backbone and its vectors, or the reason why there are none.

    Attributes
    ----------
    name, layer : str
    ids : list of str
        Ids of the rows that have vectors.
    X : float32 array (len(ids), dim)
    pretrained : bool
        Whether the weights are pretrained rather than random.
    imagenet : ImageNetAccuracy, optional
    cost : EmbeddingCost, optional
    failed : str
        Reason why there are no vectors; empty otherwise.
    """

    name: str
    layer: str = ""
    ids: list[str] = field(default_factory=list)
    X: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    pretrained: bool = True
    imagenet: ImageNetAccuracy | None = None
    cost: EmbeddingCost | None = None
    failed: str = ""


def embed_candidates(
    listing: Listing,
    rows: npt.NDArray[np.int64],
    source: SourceOptions,
    backbones: Sequence[BackboneOptions],
    run: RunOptions,
    progress: Progress,
) -> list[BackboneCandidate]:
    """Embed some rows of a listing by each backbone; a backbone that raises an error becomes a failed candidate.

    Parameters
    ----------
    listing : Listing
    rows : int64 array (n,)
        Rows of the listing.
    source : SourceOptions
        Options of the listing; together with its root they identify the cached stores.
    backbones : sequence of BackboneOptions
    run : RunOptions

    Raises
    ------
    SourceError
        If the source cannot be read.
    """
    part = _part(listing, rows)
    candidates: list[BackboneCandidate] = []
    with contextlib.ExitStack() as stack:
        folder = open_cache(PART)
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embedpipe-")))
        for options in backbones:
            progress.say(f"{options.backbone}{_random(options)}")
            try:
                stores = folder / _identity(part, source, options)
                try:
                    measured = _embedded(part, stores, options, run, progress)
                except StoreError:  # damaged: it is made again
                    drop_entry(stores)
                    measured = _embedded(part, stores, options, run, progress)
                candidates += measured
                mark_used(stores)
            except SourceError:
                raise
            except Exception as error:  # a backbone may raise anything; the others are still ranked
                name = options.backbone + _random(options)
                reason = f"{type(error).__name__}: {error}"
                candidates.append(BackboneCandidate(name, failed=reason, pretrained=_is_pretrained(options)))
    keep_limit()
    return candidates


def store_candidates(stores: Iterable[FeatureStore], ids: pa.Array) -> list[BackboneCandidate]:
    """Return a candidate for every layer of the stores, with the vectors of these ids.

    A store does not record whether the weights are the default ones, so candidates have no ImageNet accuracy.
    """
    return [
        replace(candidate, pretrained=store.spec.pretrained)
        for store in stores
        for candidate in _read(f"{store.spec.provider}/{store.spec.name}", store, ids)
    ]


def _part(listing: Listing, rows: npt.NDArray[np.int64]) -> Listing:
    """Return a listing of some rows, without labels: labels may change, and vectors do not depend on them."""
    part = listing.take(rows)
    table = part.table.select(["id", "uri", "source_size", "source_modified"])
    for name in ("label", "split"):
        table = table.append_column(name, pa.nulls(len(rows), pa.string()))
    return replace(part, table=table, excerpts=False)


def _identity(part: Listing, source: SourceOptions, options: BackboneOptions) -> str:
    """Return a name for the folder of the stores of a sample; items in memory are identified by their content."""
    from embedpipe.decoding import payload_hash

    digest = hashlib.sha256(part.root.encode())
    listed = [source.prefix, source.image, source.text, source.id, source.header, options.modality]
    digest.update(json.dumps(listed).encode())
    if part.table.column("uri").null_count:
        for row in range(len(part)):
            try:
                digest.update(payload_hash(part.read(row)).encode())
            except ItemError:
                digest.update(b"unreadable")
    return digest.hexdigest()[:16]


def _embedded(
    part: Listing, folder: Path, options: BackboneOptions, run: RunOptions, progress: Progress
) -> list[BackboneCandidate]:
    # Ranking of stores must work without torch.
    from embedpipe._utils.device import choose_device
    from embedpipe.backbones import load_with_options
    from embedpipe.embedding.updating import embed_listing

    backbone = load_with_options(options, choose_device(run.device)[0])
    path = folder / backbone.spec.fingerprint()[:16]
    store = FeatureStore.create(path, backbone.spec)
    cost = _best_measured(path.with_suffix(".json"), _cost(embed_listing(part, store, backbone, run, progress)))
    if cost is None:  # the run that embedded was killed before it saved its cost
        measured_part = _part(part, np.arange(min(len(part), COST_ITEMS)))
        with tempfile.TemporaryDirectory(prefix="embedpipe-rank-") as temporary_folder:
            temporary = FeatureStore.create(Path(temporary_folder) / "store", backbone.spec)
            measured = _cost(embed_listing(measured_part, temporary, backbone, run, Progress(False)))
        cost = _best_measured(path.with_suffix(".json"), measured)
    name = f"{backbone.spec.provider}/{backbone.spec.name}"
    imagenet = find_imagenet_accuracy(name) if options.weights == "default" else None
    label = (f"{name} ({options.weights})" if options.weights not in ("default", "none") else name) + _random(options)
    return [
        replace(candidate, imagenet=imagenet, cost=cost, pretrained=_is_pretrained(options))
        for candidate in _read(label, store, part.table.column("id").combine_chunks())
    ]


def _cost(summary: EmbedSummary) -> EmbeddingCost | None:
    """Return the cost of a run; None if it embedded nothing."""
    bottleneck = summary.bottleneck
    return None if bottleneck is None else EmbeddingCost(1000 / bottleneck.rate, summary.engine, summary.embedded)


def _best_measured(file: Path, measured: EmbeddingCost | None) -> EmbeddingCost | None:
    """Return and save the cost measured on most items, by this run or an earlier one."""
    try:
        saved = EmbeddingCost(**parse_json(file.read_text()))
    except (OSError, ValueError, TypeError):  # missing or damaged
        saved = None
    if measured is None or (saved is not None and saved.items > measured.items):
        return saved
    with whole_file(file) as part:
        part.write_text(json.dumps(asdict(measured)))
    return measured


def _read(name: str, store: FeatureStore, ids: pa.Array) -> list[BackboneCandidate]:
    """Return one candidate for each layer, of those ids that the store has."""
    present = store.table.rows(ids, ["id"]).column("id").combine_chunks()
    candidates = []
    for layer in store.spec.layers:
        known, X = read_vectors(store.table, layer.column, layer.dim, present)
        finite = np.isfinite(X).all(axis=1)
        candidates.append(BackboneCandidate(name, layer.name, known.filter(pa.array(finite)).to_pylist(), X[finite]))
    return candidates


def _is_pretrained(options: BackboneOptions) -> bool:
    return options.weights != "none"


def _random(options: BackboneOptions) -> str:
    return "" if _is_pretrained(options) else " (random weights)"
