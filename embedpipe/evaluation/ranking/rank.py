"""Which source model fits the data: every backbone by a linear probe on the same small sample and folds, with hints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.errors import BackboneError, UsageError, nearest
from embedpipe.evaluation.ranking.backbones import embed_candidates, store_candidates
from embedpipe.evaluation.ranking.options import RankOptions
from embedpipe.evaluation.ranking.probing import compare
from embedpipe.evaluation.ranking.result import Ranking
from embedpipe.evaluation.ranking.sampling import draw
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import RankParameters

OPTIONS = (SourceOptions, BackboneOptions, ComputeOptions, RankOptions)


@takes_options(*OPTIONS)
def rank(
    data: Any,
    *,
    backbones: Sequence[str | BackboneOptions] = (),
    progress: bool | None = None,
    **options: Unpack[RankParameters],
) -> Ranking:
    """Say which backbone fits labelled data, from a small sample that each of them embeds.

    Stores of the sample are kept in the cache folder: a second run embeds nothing, a killed one goes on.

    Parameters
    ----------
    data : str, path-like or in-memory data
        As `embedpipe.embed` takes it; or a feature store, or a list of several of the same items, whose vectors are
        compared as they are, layer by layer.
    backbones : sequence of str or BackboneOptions
        ``provider/name``, with the options that are given for all, or each with its own.
    progress : bool, optional
        As in `embedpipe.embed`.
    **options
        Fields of `SourceOptions`, `BackboneOptions`, `ComputeOptions` and `RankOptions`: ``label="species"``,
        ``sample=1000``, ``random=True``...

    Raises
    ------
    UsageError
        If an option is wrong, or no backbone is named.
    SourceError
        If the data cannot be listed.
    TrainingDataError
        If there are no labels, or too few to compare on.
    BackboneError
        If no backbone at all could be used.

    Examples
    --------
    >>> ranking = embedpipe.rank("photos/", backbones=["timm/resnet50", "timm/vit_small_patch16_224"])  # doctest: +SKIP
    >>> ranking.to_frame()  # doctest: +SKIP
    """
    source, common, compute, rank_options = build_options(OPTIONS, options)
    show = Progress(progress)
    label = source.label or "label"
    if stores := _stores(data):
        if backbones or common != BackboneOptions():
            raise UsageError("stores hold their vectors already: leave backbones out, or give what they were made from")
        table = _common_rows(stores, label)
        drawn = draw(table, label, rank_options)
        ids = table.column("id").take(pa.array(drawn.rows)).combine_chunks()
        candidates = store_candidates(stores, ids)
    else:
        wanted = _wanted(backbones, common, source, rank_options.random)
        listing = open_source(data, source, wanted[0].modality or "image")
        drawn = draw(listing.table, "label", rank_options)
        ids = listing.table.column("id").take(pa.array(drawn.rows)).combine_chunks()
        run = RunOptions(**asdict(compute))
        candidates = embed_candidates(listing, drawn.rows, source, wanted, run, show)
    return compare(label, ids.to_pylist(), drawn, candidates, rank_options.seed, show)


def _stores(data: Any) -> list[FeatureStore]:
    """Return the feature stores that data is, if it is any. A string in a list is an item, a path or a text."""
    given = data if isinstance(data, list | tuple) else [data]
    kinds = (FeatureStore, os.PathLike) if isinstance(data, list | tuple) else (FeatureStore, os.PathLike, str)
    found = []
    for one in given:
        if isinstance(one, FeatureStore):
            found.append(one)
        elif isinstance(one, kinds) and FeatureStore.exists(path := str(one)):
            found.append(FeatureStore(path))
        else:
            break
    if found and len(found) < len(given):
        raise UsageError(f"{found[0].path!r} is a feature store, and {given[len(found)]!r:.100} is none: give one kind")
    return found


def _common_rows(stores: list[FeatureStore], label: str) -> pa.Table:
    """Return id, label and, where there is one, split of the rows that all stores have, as the first has them."""
    first = stores[0]
    if label not in first.data_columns:
        raise UsageError(
            f"{first.path!r} has no column {label!r}{nearest(label, first.data_columns)}: it has {first.data_columns}"
        )
    table = first.to_arrow([*dict.fromkeys(["id", label, *(["split"] if "split" in first.data_columns else [])])])
    for other in stores[1:]:
        table = table.filter(pc.is_in(table.column("id"), value_set=other.to_arrow(["id"]).column("id")))
        if not table.num_rows:
            raise UsageError(f"{other.path!r} has none of the ids of {first.path!r}: give stores of the same items")
    return table


def _wanted(
    backbones: Sequence[str | BackboneOptions], common: BackboneOptions, source: SourceOptions, random: bool
) -> list[BackboneOptions]:
    """Return the options of each backbone, all of one modality."""
    if common.backbone or isinstance(backbones, str):
        raise UsageError(f"{common.backbone or backbones!r} is one backbone: give a list of names, backbones=[...]")
    found = [one if isinstance(one, BackboneOptions) else replace(common, backbone=one) for one in backbones]
    if not found:
        raise UsageError("which backbones? Name them, as in --backbones timm/resnet50,timm/vit_small_patch16_224")
    if random:
        found.append(replace(found[0], weights="none"))
    modality = common.modality or ("text" if source.text is not None else _usual_modality(found))
    return [*dict.fromkeys(one if one.modality else replace(one, modality=modality) for one in found)]


def _usual_modality(backbones: list[BackboneOptions]) -> Modality:
    """Return what the first backbone that there is embeds."""
    from embedpipe.backbones.registry import modalities_of

    for one in backbones:
        with contextlib.suppress(BackboneError, UsageError):
            return modalities_of(one.backbone)[0]
    return "image"
