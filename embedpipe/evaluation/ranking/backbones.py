"""Vectors to rank: a sample embedded by each backbone, into stores that are kept in the cache; or those of stores."""

from __future__ import annotations

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
from embedpipe._utils.config import cache_folder
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.summary import EmbedSummary
from embedpipe.errors import ItemError, SourceError
from embedpipe.evaluation.ranking.imagenet_accuracy import Prior, find_prior
from embedpipe.sources.listing import Listing
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_vectors

#: Items that the cost is measured on where the sample is embedded already and nobody noted it.
FEW = 64


@dataclass(frozen=True)
class Cost:
    """What embedding took on this machine, without loading the network.

    Attributes
    ----------
    seconds : float
        For 1,000 items, reading and decoding included.
    engine : str
        What ran the network.
    items : int
        How many it was measured on.
    """

    seconds: float
    engine: str
    items: int


@dataclass
class Candidate:
    """A backbone's layer, and its vectors; or why there are none.

    Attributes
    ----------
    name, layer : str
    ids : list of str
        Of the rows that have vectors.
    X : float32 array (len(ids), dim)
    pretrained : bool
    prior, cost
        Where they are known.
    failed : str
        Why there are no vectors; empty otherwise.
    """

    name: str
    layer: str = ""
    ids: list[str] = field(default_factory=list)
    X: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    pretrained: bool = True
    prior: Prior | None = None
    cost: Cost | None = None
    failed: str = ""


def embed_candidates(
    listing: Listing,
    rows: npt.NDArray[np.int64],
    source: SourceOptions,
    backbones: Sequence[BackboneOptions],
    run: RunOptions,
    progress: Progress,
) -> list[Candidate]:
    """Embed some rows of a listing by each backbone; one that does not work is a candidate that failed.

    Parameters
    ----------
    listing : Listing
    rows : int64 array (n,)
        Which of its items.
    source : SourceOptions
        How it was listed: with its root, what the stores are found again by.
    backbones : sequence of BackboneOptions
    run : RunOptions

    Raises
    ------
    SourceError
        If the source is at fault and not a backbone.
    """
    part = _part(listing, rows)
    found: list[Candidate] = []
    for options in backbones:
        progress.say(f"{options.backbone}{_random(options)}")
        try:
            found += _embedded(part, cache_folder() / "rank" / _identity(part, source, options), options, run, progress)
        except SourceError:
            raise
        except Exception as error:  # one backbone that does not work hides nothing of the others
            name = options.backbone + _random(options)
            found.append(Candidate(name, failed=f"{type(error).__name__}: {error}", pretrained=_is_pretrained(options)))
    return found


def store_candidates(stores: Iterable[FeatureStore], ids: pa.Array) -> list[Candidate]:
    """Read the vectors of these ids from every layer of stores.

    A store does not say whether its backbone had its published weights, so that there are no priors.
    """
    return [
        replace(one, pretrained=store.spec.pretrained)
        for store in stores
        for one in _read(f"{store.spec.provider}/{store.spec.name}", store, ids)
    ]


def _part(listing: Listing, rows: npt.NDArray[np.int64]) -> Listing:
    """Return rows of a listing by themselves, without labels: these may change, and no vector with them."""
    table = listing.table.take(pa.array(rows)).select(["id", "uri", "source_size", "source_modified"])
    for name in ("label", "split"):
        table = table.append_column(name, pa.nulls(len(rows), pa.string()))
    return replace(
        listing,
        table=table,
        read=lambda row: listing.read(int(rows[row])),
        failures=(),
        skipped={},
        notes=(),
        excerpts=False,
    )


def _identity(part: Listing, source: SourceOptions, options: BackboneOptions) -> str:
    """Return a name for the folder of a sample's stores: of what is in memory by content, as its ids are positions."""
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
) -> list[Candidate]:
    # What works on stores alone goes without torch.
    from embedpipe._utils.device import choose_device
    from embedpipe.backbones import load_with_options
    from embedpipe.embedding.run import embed_listing

    backbone = load_with_options(options, choose_device(run.device)[0])
    path = folder / backbone.spec.fingerprint()[:16]
    store = FeatureStore.create(path, backbone.spec)
    cost = _remembered(path.with_suffix(".json"), _cost(embed_listing(part, store, backbone, run, progress)))
    if cost is None:  # the run that embedded was killed before it could say
        few = _part(part, np.arange(min(len(part), FEW)))
        with tempfile.TemporaryDirectory(prefix="embedpipe-rank-") as spare:
            thrown_away = FeatureStore.create(Path(spare) / "store", backbone.spec)
            measured = _cost(embed_listing(few, thrown_away, backbone, run, Progress(False)))
        cost = _remembered(path.with_suffix(".json"), measured)
    name = f"{backbone.spec.provider}/{backbone.spec.name}"
    prior = find_prior(name) if options.weights == "default" else None
    label = (f"{name} ({options.weights})" if options.weights not in ("default", "none") else name) + _random(options)
    return [
        replace(one, prior=prior, cost=cost, pretrained=_is_pretrained(options))
        for one in _read(label, store, part.table.column("id").combine_chunks())
    ]


def _cost(summary: EmbedSummary) -> Cost | None:
    """Return what a run took; None where it had nothing to embed."""
    found = summary.bottleneck
    return None if found is None else Cost(1000 / found.rate, summary.engine, summary.embedded)


def _remembered(file: Path, measured: Cost | None) -> Cost | None:
    """Return the cost as measured on most items, by this run or an earlier one, and keep it."""
    kept = Cost(**json.loads(file.read_text())) if file.exists() else None
    if measured is None or (kept is not None and kept.items > measured.items):
        return kept
    with whole_file(file) as part:
        part.write_text(json.dumps(asdict(measured)))
    return measured


def _read(name: str, store: FeatureStore, ids: pa.Array) -> list[Candidate]:
    """Return a candidate a layer, of those of the ids that the store has."""
    there = store.table.rows(ids, ["id"]).column("id").combine_chunks()
    found = []
    for layer in store.spec.layers:
        known, X = read_vectors(store.table, layer.column, layer.dim, there)
        finite = np.isfinite(X).all(axis=1)
        found.append(Candidate(name, layer.name, known.filter(pa.array(finite)).to_pylist(), X[finite]))
    return found


def _is_pretrained(options: BackboneOptions) -> bool:
    return options.weights != "none"


def _random(options: BackboneOptions) -> str:
    return "" if _is_pretrained(options) else " (random)"
