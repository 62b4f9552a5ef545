"""The names of the files of a store and a head in a repository; nothing else is pulled."""

from __future__ import annotations

import re

from embedpipe.sharing.location import Kind

_PROJECTION = r"[0-9a-f]{64}\.safetensors"

#: All names, so that a repository cannot name a file elsewhere.
FILES: dict[Kind, re.Pattern[str]] = {
    "store": re.compile(
        r"part-[0-9a-f]{8}-[0-9a-f]{32}-[0-9a-f]{8}\.parquet|_delta_log/[0-9]{20}\.json|_projections/" + _PROJECTION
    ),
    "head": re.compile(r"manifest\.json|head\.skops|neighbours(-[0-9]{1,3})?\.faiss|" + _PROJECTION),
}

#: What a new push deletes of an earlier one.
REPLACED: dict[Kind, tuple[str, ...]] = {
    "store": ("part-*.parquet", "_delta_log/*.json", "_projections/*.safetensors"),
    "head": ("manifest.json", "*.skops", "neighbours*.faiss", "*.safetensors"),
}
