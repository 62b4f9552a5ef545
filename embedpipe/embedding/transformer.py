"""`EmbeddingTransformer`: a frozen backbone as a scikit-learn transformer."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from embedpipe._utils.cache import drop_entry, keep_limit, mark_used, open_cache
from embedpipe._utils.config import usable_cores
from embedpipe._utils.device import choose_device
from embedpipe._utils.missing import is_missing
from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import BackboneOptions
from embedpipe.decoding import payload_hash
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.updating import embed_listing
from embedpipe.errors import ItemError, StoreError, UsageError
from embedpipe.sources import list_items
from embedpipe.sources.listing import Listing
from embedpipe.store import FeatureStore
from embedpipe.store.delta_log import refuse_forked
from embedpipe.store.schema import matrix

#: The part of the cache folder that holds the stores of vectors.
PART = "transformer"
_BACKBONE = BackboneOptions()
_RUN = RunOptions()


class EmbeddingTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transform images or texts into the features of a frozen backbone.

    The weights are loaded on first use, shared by clones of the process, and never pickled. Vectors are looked up by
    content in a feature store, so that cross-validation and grid search embed each item once, also over several
    processes. A missing or blank text gets a vector of zeros.

    Parameters
    ----------
    backbone, modality, weights, arch, layer, drop_last, pooling, image_size, dimensions, chunk, frequencies, \
precision, decode, range, channels, offline
        As in `BackboneOptions`. Several layers are concatenated. ``modality="text"`` alone selects the default
        backbone for texts.
    device, batch_size, threads
        As in `RunOptions`.
    store : str or path-like, optional
        The feature store in which vectors are looked up and kept. ``"default"`` is one store per backbone in the
        cache folder (environment variable ``EMBEDPIPE_CACHE``). None keeps no vectors.

    Attributes
    ----------
    spec_ : BackboneSpec
        The spec of the vectors.
    n_features_in_ : int
        Always 1: one column of items.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from embedpipe import EmbeddingTransformer
    >>> photos = np.stack([np.full((32, 32, 3), gray, np.uint8) for gray in (0, 40, 210, 250)])
    >>> embedding = EmbeddingTransformer("torchvision/resnet18", weights="none", store=None)
    >>> embedding.fit_transform(photos).shape
    (4, 512)
    >>> model = make_pipeline(embedding, LogisticRegression()).fit(photos, [0, 0, 1, 1])
    >>> model.predict(photos).tolist()
    [0, 0, 1, 1]

    One column of a table, with the other columns as they are:

    >>> from sklearn.compose import make_column_transformer
    >>> text = EmbeddingTransformer(modality="text")
    >>> columns = make_column_transformer((text, "body"), ("passthrough", ["age"]))
    """

    #: Tells skrub to pass each column separately.
    __single_column_transformer__ = True

    def __init__(
        self,
        backbone: str = _BACKBONE.backbone,
        *,
        modality: str | None = _BACKBONE.modality,
        weights: str = _BACKBONE.weights,
        arch: str | None = _BACKBONE.arch,
        layer: Sequence[str] = _BACKBONE.layer,
        drop_last: int = _BACKBONE.drop_last,
        pooling: str | Sequence[str] | None = _BACKBONE.pooling,
        image_size: int | None = _BACKBONE.image_size,
        dimensions: int | None = _BACKBONE.dimensions,
        chunk: bool = _BACKBONE.chunk,
        frequencies: str | None = _BACKBONE.frequencies,
        precision: str = _BACKBONE.precision,
        decode: str | None = _BACKBONE.decode,
        range: str | None = _BACKBONE.range,
        channels: str | None = _BACKBONE.channels,
        offline: bool = _BACKBONE.offline,
        device: str | None = _RUN.device,
        batch_size: int | None = _RUN.batch_size,
        threads: int | None = _RUN.threads,
        store: str | Path | None = "default",
    ) -> None:
        self.backbone = backbone
        self.modality = modality
        self.weights = weights
        self.arch = arch
        self.layer = layer
        self.drop_last = drop_last
        self.pooling = pooling
        self.image_size = image_size
        self.dimensions = dimensions
        self.chunk = chunk
        self.frequencies = frequencies
        self.precision = precision
        self.decode = decode
        self.range = range
        self.channels = channels
        self.offline = offline
        self.device = device
        self.batch_size = batch_size
        self.threads = threads
        self.store = store

    def fit(self, X: Any, y: Any = None) -> Self:
        """Load the backbone, which defines the number of features. Nothing is learned from ``X``.

        Parameters
        ----------
        X : sequence of n_samples paths, PIL images, uint8 arrays (h, w, 3) or encoded bytes; or of texts
            Or a table or array with one such column. For a backbone of texts, strings are texts and `pathlib.Path`
            objects are text files.
        y : ignored

        Raises
        ------
        UsageError
            ``X`` is empty or has several columns, or a parameter is invalid.
        """
        items_of(X)
        self.spec_ = self._load().spec
        self._n_features_out = sum(layer.dim for layer in self.spec_.layers)
        self.n_features_in_ = 1
        self._column = str(X.name) if getattr(X, "name", None) is not None else None
        if hasattr(self, "feature_names_in_"):  # of an earlier fit on a frame
            delattr(self, "feature_names_in_")
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.asarray([str(name) for name in X.columns], dtype=object)
            self._column = self.feature_names_in_[0]
        return self

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the features, such as ``body_0``, ``body_1`` for a column named ``body``."""
        if (column := getattr(self, "_column", None)) is None:
            names: npt.NDArray[np.object_] = super().get_feature_names_out(input_features)
            return names
        return np.asarray([f"{column}_{i}" for i in range(self._n_features_out)], dtype=object)

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Embed items.

        Parameters
        ----------
        X : sequence of n_samples items
            As in `fit`.

        Returns
        -------
        X : float32 array (n_samples, dim)

        Raises
        ------
        UsageError
            An item cannot be read, decoded or embedded. The message names up to five items and the reasons.
        """
        check_is_fitted(self, "spec_")
        items = items_of(X)
        backbone = self._load()
        if backbone.spec.modality == "image":
            return self._embed(items, backbone)
        has_text = np.array([not _is_blank(item) for item in items])
        X_out = np.zeros((len(items), self._n_features_out), np.float32)
        if has_text.any():
            texts = [item for item, usable in zip(items, has_text, strict=True) if usable]
            X_out[has_text] = self._embed(texts, backbone)
        return X_out

    def _embed(self, items: list[Any], backbone: Backbone) -> npt.NDArray[np.float32]:
        """Return the features of items (n, dim), from the store if it has them."""
        ids = [f"{i:09d}" for i in range(len(items))]
        listing = list_items(items, ids, modality=backbone.spec.modality)
        digests = self._digests(listing)
        refuse_forked()  # the store in the cache is not damaged then
        path = self._store_path(backbone)
        try:
            return self._embed_into(path, listing, digests, backbone)
        except StoreError:
            if path is None or self.store != "default":
                raise
            drop_entry(Path(path))  # damaged: the next call makes it again
            return self._embed_into(None, listing, digests, backbone)

    def _embed_into(
        self, path: str | None, listing: Listing, digests: list[str], backbone: Backbone
    ) -> npt.NDArray[np.float32]:
        unique = list(dict.fromkeys(digests))
        with contextlib.ExitStack() as stack:
            if path is None:
                path = stack.enter_context(tempfile.TemporaryDirectory(prefix="embedpipe-"))
            elif "://" not in path:
                # One process embeds the missing items while the others wait for its results.
                try:
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FileLock(f"{path}.lock"))
                except OSError as error:
                    raise StoreError(
                        f"cannot write next to the feature store {path!r}: {error}; give another store or None, or "
                        "set the environment variable EMBEDPIPE_CACHE"
                    ) from error
            store = FeatureStore.create(path, backbone.spec)
            known = _ids_by_content(store, unique)
            if missing := [digest for digest in unique if digest not in known]:
                first = dict(zip(reversed(digests), reversed(range(len(digests))), strict=True))
                part = _part(listing, [first[digest] for digest in missing], missing)
                embed_listing(part, store, backbone, self._run_options(), Progress(False))
                known = _ids_by_content(store, unique)
                self._refuse_failures(store, listing, digests, known)
                keep_limit()
            vectors = _vectors(store, [known[digest] for digest in unique])
        place = {digest: i for i, digest in enumerate(unique)}
        return vectors[[place[digest] for digest in digests]]

    def _run_options(self) -> RunOptions:
        return RunOptions(device=self.device, batch_size=self.batch_size, threads=self.threads)

    def _load(self) -> Backbone:
        layer = (self.layer,) if isinstance(self.layer, str) else tuple(self.layer)
        names = [field.name for field in dataclasses.fields(BackboneOptions) if field.name != "layer"]
        options = BackboneOptions(layer=layer, **{name: getattr(self, name) for name in names})
        return load_with_options(options, choose_device(self.device)[0])

    def _store_path(self, backbone: Backbone) -> str | None:
        if self.store != "default":
            return None if self.store is None else str(self.store)
        if (stores := open_cache(PART)) is None:
            return None
        mark_used(path := stores / backbone.spec.fingerprint()[:16])
        return str(path)

    def _digests(self, listing: Listing) -> list[str]:
        def digest(row: int) -> str | ItemError:
            try:
                return payload_hash(listing.read(row))
            except ItemError as error:
                return error

        with ThreadPoolExecutor(self.threads or usable_cores()) as pool:
            digests = list(pool.map(digest, range(len(listing))))
        refuse_items({row: str(error) for row, error in enumerate(digests) if isinstance(error, ItemError)}, listing)
        return [digest for digest in digests if isinstance(digest, str)]

    def _refuse_failures(self, store: FeatureStore, listing: Listing, digests: list[str], ids: dict[str, str]) -> None:
        failures = store.failures()
        messages = dict(zip(failures["id"].to_pylist(), failures["message"].to_pylist(), strict=True))
        refuse_items({row: messages.get(d, "") for row, d in enumerate(digests) if d not in ids}, listing)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def items_of(X: Any) -> list[Any]:
    """Return the items of a sequence, or of the only column of a table or 2-D array."""
    if isinstance(X, str | bytes | Path):
        raise UsageError(f"X must be a sequence of items, got a single item {X!r:.100}: pass a list")
    if hasattr(X, "columns"):
        if len(X.columns) != 1:
            raise UsageError(f"X must have one column, got {len(X.columns)}: {list(X.columns)}. Choose one")
        X = X[next(iter(X.columns))]
    if isinstance(X, np.ndarray) and X.ndim == 2:
        if X.shape[1] != 1:
            raise UsageError(f"X must have shape (n_samples,), (n_samples, 1) or (n_samples, h, w, 3), got {X.shape}")
        X = X[:, 0]
    items = list(X)
    if not items:
        raise UsageError("X must hold at least one item, got none")
    return items


def _is_blank(item: Any) -> bool:
    """Return whether a cell of texts is missing or blank: None, NaN, NA, NaT or white space."""
    return not item.strip() if isinstance(item, str) else is_missing(item)


def _ids_by_content(store: FeatureStore, digests: list[str]) -> dict[str, str]:
    """Return content hash -> id for the stored ones of ``digests``."""
    rows = store.refresh().table.read(["id", "content_hash"])
    rows = rows.filter(pc.is_in(rows.column("content_hash"), value_set=pa.array(digests, pa.string())))
    return dict(zip(rows["content_hash"].to_pylist(), rows["id"].to_pylist(), strict=True))


def _vectors(store: FeatureStore, ids: list[str]) -> npt.NDArray[np.float32]:
    """Return the stored vectors of these ids in their order, with layers joined end to end."""
    rows = store.table.rows(pa.array(ids, pa.string()), ["id", *store.dims])
    place = pc.index_in(pa.array(ids, pa.string()), value_set=rows.column("id").combine_chunks())
    blocks = [matrix(rows.column(name), dim, name) for name, dim in store.dims.items()]
    X: npt.NDArray[np.float32] = np.concatenate(blocks, axis=1)[np.asarray(place)]
    return X


def _part(listing: Listing, rows: list[int], ids: list[str]) -> Listing:
    """Return some rows of a listing with other ids."""
    part = listing.take(np.array(rows, np.int64))
    table = part.table.set_column(0, "id", pa.array(ids, pa.string()))
    return Listing(table, "transformer", part.read, excerpts=False)


def refuse_items(problems: dict[int, str], listing: Listing) -> None:
    """Raise UsageError, naming up to five items, if an item cannot be embedded: transformers keep every row."""
    if not problems:
        return
    uris = listing.table.column("uri")
    lines = [
        f"  item {row} ({uris[row].as_py() or 'in memory'}): {reason}" for row, reason in list(problems.items())[:5]
    ]
    more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise UsageError(
        f"every item of X must be readable, and {len(problems)} of {len(listing)} are not; drop or repair them:\n"
        + "\n".join(lines)
        + more
    )
