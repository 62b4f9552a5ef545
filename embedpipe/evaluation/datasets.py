"""`evaluate_datasets`: backbones and heads on several datasets, which are embedded first or are in stores."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.cache import drop_entry, keep_limit, mark_used, open_cache
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.embedding.run import embed
from embedpipe.errors import (
    BackboneError,
    ConcurrentWriteError,
    SourceError,
    StoreError,
    StoreNotFoundError,
    UsageError,
)
from embedpipe.evaluation.comparison.evaluate import evaluate
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import open_stores
from embedpipe.evaluation.grid import EvaluationGrid
from embedpipe.evaluation.shared_rows import shared_rows
from embedpipe.heads.zero_shot.text_heads import is_text_head
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions
from embedpipe.splits.splits import Splits
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import EvaluateDatasetsParameters

OPTIONS = (EvaluateOptions, SourceOptions, BackboneOptions, ComputeOptions)
#: Options of a backbone that load it again.
WEIGHTS = ("weights", "frequencies", "offline")
EVALUATED = {field.name for field in fields(EvaluateOptions)}
#: The part of the cache folder that holds the stores of datasets.
PART = "datasets"


@takes_options(*OPTIONS)
def evaluate_datasets(
    data: Any,
    *,
    backbones: Sequence[str] = (),
    heads: Sequence[Any] = (),
    splits: str | Path | Splits | None = None,
    progress: bool | None = None,
    **options: Unpack[EvaluateDatasetsParameters],
) -> EvaluationGrid:
    """Evaluate backbones and heads on one or several datasets, as `embedpipe.evaluate` does on each.

    Parameters
    ----------
    data : str, path-like, FeatureStore, sequence of these, or dict of name -> data
        With ``backbones``: datasets as in `embedpipe.embed`, each of which every backbone embeds; the stores are kept
        in the cache folder. Without: feature stores; those of the same items are one dataset. A dict of name -> store,
        or list of stores, says which.
    backbones : sequence of str
        Names ``provider/name``. The other options of a backbone and of a source are those of all.
    heads : sequence of str or scikit-learn estimators, optional
        As of `embedpipe.evaluate`.
    splits : path or Splits, optional
        As of `embedpipe.evaluate`, for one dataset.
    progress : bool, optional
        Show progress on standard error; by default only in a terminal.

    Returns
    -------
    EvaluationGrid
        With the average rank of each row over the datasets, which all must have (Demsar, JMLR 7, 2006).

    Raises
    ------
    UsageError
        As `embedpipe.evaluate`; if there are stores with ``backbones``, or data that are no stores without.
    BackboneError, SourceError
        If no backbone could embed a dataset.

    Examples
    --------
    >>> grid = embedpipe.evaluate_datasets({"photos": "photos.features"}, heads=["lda", "knn"], repeats=1)
    >>> grid
    EvaluationGrid(1 dataset, best photos: 'lda')
    """
    # A margin is that of equivalence here, as crops of boxes have none in an evaluation.
    values: dict[str, Any] = {**options}
    (chosen,) = build_options((EvaluateOptions,), {name: values[name] for name in values if name in EVALUATED})
    values.pop("margin", None)
    _, source, backbone, compute = build_options(OPTIONS, values)
    # Names of classes are embedded by the weights that made the vectors.
    named = any(map(is_text_head, heads if isinstance(heads, list | tuple) else [heads]))
    weights: dict[str, Any] = {name: getattr(backbone, name) for name in WEIGHTS} if named else {}
    failed: dict[str, str] = {}
    shown = Progress(progress)
    with tempfile.TemporaryDirectory(prefix="embedpipe-") as temporary:
        if backbones:
            folders = open_cache(PART) or Path(temporary), Path(temporary)
            embedding = _Embedding(folders, _names(backbones, backbone), chosen, source, backbone, compute, progress)
            sources = _named(data)
            _require_all(sources.values())
            datasets = {name: embedding.embed(name, one, failed) for name, one in sources.items()}
            chosen = replace(chosen, label=EvaluateOptions().label)  # the name that embedding gives to it
        else:
            for given, usual in ((source, SourceOptions(label=source.label)), (backbone, BackboneOptions(**weights))):
                if given != usual and given != BackboneOptions(layer=chosen.layer, **weights):
                    raise UsageError(
                        f"options of sources and backbones need backbones to embed with ({option('backbones')})"
                    )
            try:
                datasets = _store_groups(data)
            except StoreNotFoundError as error:
                raise StoreNotFoundError(f"{error}, or name backbones to embed with ({option('backbones')})") from error
        if splits is not None and len(datasets) > 1:
            raise UsageError(f"splits are those of one dataset, got {len(datasets)}: {', '.join(datasets)}")
        evaluations = {}
        for name, stores in datasets.items():
            if len(datasets) > 1:
                shown.say(f"{name}:")
            fields: Any = asdict(chosen)
            evaluation = evaluate(stores, heads=heads, splits=splits, progress=progress, **fields, **weights)
            for store in stores:
                if store.summary is not None and store.summary.failed:
                    spec = store.spec
                    evaluation.notes.append(
                        f"{store.summary.failed:,} of {store.summary.seen:,} items could not be embedded by "
                        f"{spec.provider}/{spec.name}: they are left out for all"
                    )
            evaluations[name] = evaluation
    return EvaluationGrid(evaluations, failed)


class _Embedding:
    """Embeds datasets by each backbone into stores of the first folder, and items in memory into the second."""

    def __init__(
        self,
        folders: tuple[Path, Path],
        names: Sequence[str],
        chosen: EvaluateOptions,
        source: SourceOptions,
        backbone: BackboneOptions,
        compute: ComputeOptions,
        progress: bool | None,
    ) -> None:
        layers = [part.strip() for name in chosen.layer for part in name.split("+")]
        label = source.label if source.label != EvaluateOptions().label else None
        self.folders, self.names, self.progress = folders, names, progress
        self.options: dict[str, Any] = asdict(compute) | asdict(backbone) | asdict(source)
        self.options |= {"layer": tuple(dict.fromkeys(layers)), "label": label}
        self.shown = Progress(progress)

    def embed(self, dataset: str, source: Any, failed: dict[str, str]) -> list[FeatureStore]:
        """Return one store for each backbone; a backbone that fails is noted, and all that fail are an error."""
        if isinstance(source, FeatureStore) or (isinstance(source, str | Path) and FeatureStore.exists(source)):
            raise UsageError(
                f"backbones must be left out for feature stores, which hold vectors already, and {dataset!r} is one"
            )
        stores, errors = [], []
        for name in self.names:
            self.shown.say(f"{dataset}: {name}")
            try:
                stores.append(self._store(source, name))
            except (BackboneError, SourceError, StoreError) as error:
                failed[f"{dataset}, {name}"] = str(error)
                errors.append(error)
        if not stores:
            raise errors[0]
        keep_limit()
        return stores

    def _store(self, source: Any, name: str) -> FeatureStore:
        options = self.options | {"backbone": name}
        if isinstance(source, str | Path):
            identity = [str(Path(source).resolve()) if "://" not in str(source) else str(source), options]
            key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
            path = self.folders[0] / key[:16]
        else:  # items in memory have no name by which they could be found again
            path = Path(tempfile.mkdtemp(dir=self.folders[1]))
        try:
            store = embed(source, path, progress=self.progress, prune=True, force=True, **options)
        except ConcurrentWriteError:
            raise
        except StoreError:  # other weights of the same name, or damage: it is made again
            drop_entry(path)
            store = embed(source, path, progress=self.progress, **options)
        mark_used(path)
        return store


def _names(backbones: Sequence[str], common: BackboneOptions) -> list[str]:
    if isinstance(backbones, str) or common.backbone:
        raise UsageError(
            f"{option('backbones')} must be a list of names, got {backbones or common.backbone!r}: write "
            f"{option('backbones', ['A', 'B'])}"
        )
    return [*dict.fromkeys(backbones)]


def _named(data: Any) -> dict[str, Any]:
    """Return the datasets by their names: those of their files or folders, as short as uniqueness allows."""
    if isinstance(data, Mapping):
        return {str(name): one for name, one in data.items()}
    items = [data] if isinstance(data, str | Path | FeatureStore) else list(data)
    if not items:
        raise UsageError("data must name at least one dataset, got none")
    return dict(zip(_short([_path(item, i) for i, item in enumerate(items)]), items, strict=True))


def _require_all(sources: Iterable[Any]) -> None:
    """Raise SourceError for a file or folder that does not exist, before others are embedded for minutes."""
    for source in sources:
        name = str(source) if isinstance(source, str | Path) else ""
        if name and not re.search(r"://|[*?\[{]", name) and not Path(name).exists():
            open_source(source)


def _path(item: Any, i: int) -> str:
    return str(item) if isinstance(item, str | Path) else f"data {i + 1}"


def _short(paths: Sequence[str]) -> list[str]:
    """Return the last parts of paths without suffixes of tables; the paths themselves where these are not unique."""
    names = []
    for path in paths:
        last = PurePosixPath(path.replace(os.sep, "/").rstrip("/"))
        names.append(last.stem if last.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet", ".txt") else last.name)
    unique = len({*names}) == len(names) and all(names)
    if not unique and len({*paths}) < len(paths):
        raise UsageError(f"datasets must be different, got one twice: {', '.join(paths)}")
    return names if unique else [*paths]


def _store_groups(data: Any) -> dict[str, list[FeatureStore]]:
    """Return the stores of each dataset: those that the user names, or those of the same items.

    Stores of one source hold the same items. So do others, unless no or few items are the same.
    """
    if isinstance(data, Mapping):
        return {str(name): open_stores(stores) for name, stores in data.items()}
    stores = open_stores(data)
    groups: list[list[FeatureStore]] = []
    for store in stores:
        for group in groups:
            if _same_items(group[0], store):
                group.append(store)
                break
        else:
            groups.append([store])
    if len(groups) == 1:
        return {stores[0].path: stores}
    roots = [next(iter(group[0].counts("source_root")), group[0].path) for group in groups]
    unique = len({*roots}) == len(roots)
    return dict(zip(_short(roots if unique else [group[0].path for group in groups]), groups, strict=True))


def _same_items(first: FeatureStore, other: FeatureStore) -> bool:
    """Return whether stores hold the same items. Raises UsageError if they do not, and are of one source."""
    ids = first.to_arrow(["id"]).column("id").combine_chunks()
    try:
        shared_rows(ids, first, [other])
    except UsageError:
        if first.counts("source_root").keys() & other.counts("source_root").keys():
            raise
        return False
    return True
