"""The store of `embed` where no name is given."""

from __future__ import annotations

import os
from pathlib import Path

from embedpipe.errors import UsageError
from embedpipe.sources.locations import absolute, is_url, printable


def own_store(source: str) -> str:
    """Return NAME.features in the working folder, for a local source of that name.

    Raises UsageError if the source is a URL, or if a store of that name holds another source.
    """
    from embedpipe.store import FeatureStore

    if is_url(source):
        raise UsageError(f"--to must name the store of a source at a URL, got none for {source}")
    location = absolute(source)
    path = Path(location)
    to = f"{path.name if path.is_dir() else path.stem}.features"
    if FeatureStore.exists(to):
        roots = FeatureStore(to).counts("source_root")
        if roots and printable(location) not in roots:
            raise UsageError(
                f"{to} holds another source, {', '.join(roots)}: give --to {to} to add to it, or another name"
            )
    elif os.path.lexists(to):
        raise UsageError(f"{to} exists and is not a feature store: give another name with --to")
    return to
