"""What a folder is that embedpipe made, for messages: one kind is easily given for another."""

from __future__ import annotations

import os
from pathlib import Path

from embedpipe.errors import UsageError

#: What `embedpipe export` makes.
EXPORTED = "an exported model"
#: Names that a folder of a kind has, and the kind.
KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("_delta_log",), "a feature store"),
    (("head.skops", "manifest.json"), "a head"),
    (("run.json", "cells"), "the folder of a benchmark"),
    (("backbone.safetensors", "result.json"), "the folder of a fine-tuning run"),
    (("model.json", "predict.py"), EXPORTED),
)


def folder_kind(path: str | os.PathLike[str]) -> str:
    """Return what a local folder is, such as ``a head``; empty if embedpipe did not make it."""
    if "://" in os.fspath(path) or not os.path.isdir(path):  # noqa: PTH112  pathlib raises for a name that is too long
        return ""
    return next((kind for names, kind in KINDS if all(Path(path, name).exists() for name in names)), "")


def but_is(path: str | os.PathLike[str]) -> str:
    """Return what a path is instead, such as ``, but a head``; empty if nothing is there."""
    kind = folder_kind(path)
    if not kind and "://" not in os.fspath(path) and os.path.exists(path):  # noqa: PTH110  as above
        kind = "a folder of other files" if Path(path).is_dir() else "a file" if Path(path).is_file() else ""
    return f", but {kind}" if kind else ""


def require_outside_store(path: str | os.PathLike[str]) -> None:
    """Raise UsageError if a file to write lies in the folder of a store: `vacuum` deletes what is not the store's."""
    for parent in Path(path).absolute().parents:
        if folder_kind(parent) == "a feature store":
            raise UsageError(
                f"{os.fspath(path)!r} must not lie in {str(parent)!r}, a feature store, whose folder holds nothing else"
            )
