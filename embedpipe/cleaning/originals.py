"""Which row of each group of copies is kept: the one that shows the most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from PIL import Image

from embedpipe.cleaning.kinds import DROPPED
from embedpipe.decoding.image import readable_formats, silence_pillow
from embedpipe.neighbours.duplicates import join_groups
from embedpipe.sources.listing import split_name
from embedpipe.sources.opening import read_uri
from embedpipe.store import FeatureStore
from embedpipe.store.schema import EXCLUDED

READERS = 8


def keep_originals(findings: pa.Table, store: FeatureStore) -> pa.Table:
    """Return all ids of a store, and in ``excluded`` why a row is not kept; see `Findings.keep`."""
    ids = store.ids()
    known, splits, sizes, uris = (
        store.to_arrow([name])[name].to_pylist() if name in store.columns else [None] * len(ids)
        for name in (EXCLUDED, "split", "source_size", "uri")
    )
    reasons = {id: reason for id, reason in zip(ids, known, strict=True) if reason is not None}
    places = {id: place for place, id in enumerate(ids)}
    copies = [row for row in findings.to_pylist() if row["kind"] in DROPPED and row["id"] in places]
    pairs = [(places[row["id"]], places[row["related"]]) for row in copies if row["related"] in places]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    groups = join_groups(np.arange(len(ids)), left, right)
    members = sorted({*left.tolist(), *right.tolist()})
    pictures = [uris[place] if store.spec.modality == "image" else None for place in members]
    pixels = dict(zip(members, count_pixels(pictures), strict=True))

    def worse(place: int) -> tuple[bool, bool, int, int, int]:
        training = split_name(splits[place]) in (None, "train")
        return known[place] is not None, training, -pixels[place], -(sizes[place] or 0), len(ids[place])

    best: dict[int, int] = {}  # of each group, by the number of the group
    for place in members:
        best[groups[place]] = min(best.get(groups[place], place), place, key=worse)
    for row in copies:
        inside = row["related"] in places  # and not in another store
        kept = ids[best[groups[places[row["id"]]]]] if inside else row["related"]
        for id in (row["id"], row["related"]) if inside else (row["id"],):
            if id != kept:
                reasons.setdefault(id, f"{row['kind']} of {kept}")
    return pa.table({"id": ids, EXCLUDED: [reasons.get(id, "") for id in ids]})


def count_pixels(uris: Sequence[str | None]) -> list[int]:
    """Return the number of pixels of each picture, as the header of its file says; 0 if it says none.

    A copy that was saved again as PNG, or with less compression, has a larger file than its original, but not more
    pixels; a smaller picture shows less, however large its file is.
    """
    silence_pillow()
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_count_pixels, uris))


def _count_pixels(uri: str | None) -> int:
    if uri is None:
        return 0
    try:
        payload = read_uri(uri)
        if not isinstance(payload, bytes):  # a part of a picture, or a frame
            return 0
        with Image.open(io.BytesIO(payload), formats=readable_formats()) as picture:
            return picture.width * picture.height
    except Exception:  # a file that is gone or damaged shows nothing; on invalid bytes Pillow raises many types
        return 0
