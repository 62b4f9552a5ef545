"""`rank`: backbones compared by a linear probe on the same small sample and folds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.errors import BackboneError, UsageError
from embedpipe.evaluation.ranking.backbones import embed_candidates, store_candidates
from embedpipe.evaluation.ranking.options import RankOptions
from embedpipe.evaluation.ranking.probing import compare
from embedpipe.evaluation.ranking.result import Ranking
from embedpipe.evaluation.ranking.sampling import draw_sample
from embedpipe.evaluation.shared_rows import SharedRows, check_labels, shared_rows
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import LEFT_OUT, used_rows
from embedpipe.store.schema import require_column

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
    """Rank backbones for labelled data, on a small sample that each of them embeds.

    Backbones are ordered by a linear probe in nested cross-validation on the same items and folds, with paired tests
    of the differences from the best. Beside it are reported a kNN classifier, two transferability scores (H-score and
    LogME), the published ImageNet accuracy and the time to embed.

    Vectors of the sample are cached: a second run embeds nothing, and an interrupted run can be continued.

    Parameters
    ----------
    data : str, path-like or in-memory data
        Labelled data as in `embedpipe.embed`; or a feature store, or a list of stores of the same items, whose layers
        are compared without embedding.
    backbones : sequence of str or BackboneOptions
        Names ``provider/name``, which share the other options, or options of each.
    progress : bool, optional
        Show progress on standard error; by default only in a terminal.

    Returns
    -------
    Ranking

    Raises
    ------
    UsageError
        If an option is wrong, or no backbone is given.
    SourceError
        If the data cannot be read.
    TrainingDataError
        If there are no or too few labels.
    BackboneError
        If all backbones failed.

    Examples
    --------
    >>> ranking = embedpipe.rank("photos/", backbones=["timm/tf_efficientnet_lite0"])
    >>> ranking.best.name
    'timm/tf_efficientnet_lite0.in1k'
    """
    source, common, compute, rank_options = build_options(OPTIONS, options)
    progress_shown = Progress(progress)
    label = source.label or "label"
    if stores := _stores(data):
        if backbones or common != BackboneOptions():
            raise UsageError(
                f"{option('backbones')} must be left out for feature stores, which hold vectors already: or give the "
                "data instead"
            )
        source.refuse_for_store(stores[0].path, used=("label",))
        with progress_shown.step("reading rows"):
            table, shared = _common_rows(stores, label)
        drawn = draw_sample(table, label, rank_options)
        drawn = replace(drawn, left_out=shared.left_out | drawn.left_out, notes=[*shared.notes, *drawn.notes])
        ids = table.column("id").take(pa.array(drawn.rows)).combine_chunks()
        with progress_shown.step("reading vectors"):
            candidates = store_candidates(stores, ids)
    else:
        wanted = _wanted(backbones, common, source, rank_options.random)
        with progress_shown.step("listing the source"):
            listing = open_source(data, source, wanted[0].modality or "image")
        drawn = draw_sample(listing.table, "label", rank_options)
        ids = listing.table.column("id").take(pa.array(drawn.rows)).combine_chunks()
        run = RunOptions(**asdict(compute))
        candidates = embed_candidates(listing, drawn.rows, source, wanted, run, progress_shown)
    ranking = compare(label, ids.to_pylist(), drawn, candidates, rank_options.seed, progress_shown)
    # The name of a backbone that was embedded here says that its weights are random.
    return replace(ranking, notes=[*random_notes(store.spec for store in stores), *ranking.notes])


def _stores(data: Any) -> list[FeatureStore]:
    """Return the feature stores in ``data``, if there are any. Strings in a list are items, not stores."""
    items = data if isinstance(data, list | tuple) else [data]
    types = (FeatureStore, os.PathLike) if isinstance(data, list | tuple) else (FeatureStore, os.PathLike, str)
    stores = []
    for item in items:
        if isinstance(item, FeatureStore):
            stores.append(item)
        elif isinstance(item, types) and FeatureStore.exists(path := str(item)):
            stores.append(FeatureStore(path))
        else:
            break
    if stores and len(stores) < len(items):
        raise UsageError(
            f"data must be all feature stores or none, got the store {stores[0].path!r} and {items[len(stores)]!r:.100}"
        )
    return stores


def _common_rows(stores: list[FeatureStore], label: str) -> tuple[pa.Table, SharedRows]:
    """Return id, label and split (if there is one) of the first store, of the rows that all stores have."""
    first = stores[0]
    require_column(label, first.data_columns, first.path, "label")
    names = dict.fromkeys(["id", label, *(["split"] if "split" in first.data_columns else [])])
    table, excluded = used_rows(first.table, [*names])
    shared = shared_rows(table.column("id").combine_chunks(), first, stores[1:])
    table = table.filter(pa.array(shared.kept))
    check_labels(table, label, first, stores[1:])
    return table, replace(shared, left_out=({LEFT_OUT: excluded} if excluded else {}) | shared.left_out)


def _wanted(
    backbones: Sequence[str | BackboneOptions], common: BackboneOptions, source: SourceOptions, random: bool
) -> list[BackboneOptions]:
    """Return the options of each backbone, all with one modality."""
    if common.backbone or isinstance(backbones, str):
        raise UsageError(
            f"{option('backbones')} must be a list of names, got {common.backbone or backbones!r}: write "
            f"{option('backbones', ['A', 'B'])}"
        )
    wanted = [name if isinstance(name, BackboneOptions) else replace(common, backbone=name) for name in backbones]
    if not wanted:
        raise UsageError(
            f"{option('backbones')} must name at least one backbone, got none, such as "
            f"{option('backbones', ['timm/resnet50', 'timm/vit_small_patch16_224'])}"
        )
    if random:
        wanted.append(replace(wanted[0], weights="none"))
    modality = common.modality or ("text" if source.text is not None else _default_modality(wanted))
    return [*dict.fromkeys(each if each.modality else replace(each, modality=modality) for each in wanted)]


def _default_modality(backbones: list[BackboneOptions]) -> Modality:
    """Return the modality of the first backbone that exists."""
    from embedpipe.backbones.registry import modalities_of

    for options in backbones:
        with contextlib.suppress(BackboneError, UsageError):
            return modalities_of(options.backbone, options.weights, options.offline)[0]
    return "image"
