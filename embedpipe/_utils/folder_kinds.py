"""What a folder is that embedpipe made: one kind is easily given for another. And where results may be written."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path, PurePath

from embedpipe._utils.atomic import check_writable
from embedpipe._utils.machine.permissions import closed
from embedpipe.errors import UsageError

#: What `embedpipe fit` and `embedpipe export` make.
HEAD, EXPORTED = "a head", "an exported model"
#: Names that a folder of a kind has, and the kind.
KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("_delta_log",), "a feature store"),
    (("head.skops", "manifest.json"), HEAD),
    (("run.json", "cells"), "the folder of a benchmark"),
    (("backbone.safetensors", "result.json"), "the folder of a fine-tuning run"),
    (("model.json", "predict.py"), EXPORTED),
)
#: What to do with a kind that was given for a feature store.
_NO_STORE = {
    HEAD: "`embedpipe predict` takes it, and `embedpipe.load_head` shows it in Python",
    EXPORTED: "`embedpipe predict` takes it",
}
#: Patterns of the files of folders that are replaced whole, and what file managers leave everywhere.
FILES = {
    HEAD: ("manifest.json", "head.skops", "neighbours*.faiss", "*.safetensors", "README.md"),
    EXPORTED: ("model.json", "model.onnx*", "model.xml", "model.bin", "predict.py", "tokenizer.json", "README.md"),
}
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
#: The begin of a URL in a path, as `pathlib` makes one slash of two.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)


def folder_kind(path: str | os.PathLike[str]) -> str:
    """Return what a local folder is, such as ``a head``; empty if embedpipe did not make it."""
    if "://" in os.fspath(path) or not os.path.isdir(path):  # noqa: PTH112  pathlib raises for a name that is too long
        return ""
    # pathlib raises for a folder that must not be looked into.
    return next((kind for names, kind in KINDS if all(os.path.exists(Path(path, name)) for name in names)), "")  # noqa: PTH110


def path_kind(path: str | os.PathLike[str]) -> str:
    """Return what a path is, such as ``a head`` or ``a file``; empty if nothing is there."""
    kind = folder_kind(path)
    if not kind and "://" not in os.fspath(path) and os.path.exists(path):  # noqa: PTH110  as above
        kind = "a folder of other files" if Path(path).is_dir() else "a file" if Path(path).is_file() else ""
    return kind


def but_is(path: str | os.PathLike[str]) -> str:
    """Return what a path is instead, such as ``, but a head``; empty if nothing is there."""
    kind = path_kind(path)
    return f", but {kind}" if kind else ""


def no_store(path: str | os.PathLike[str]) -> str:
    """Return the message of a path that holds no feature store: what it is instead, and what to do."""
    advice = _NO_STORE.get(path_kind(path), "create one with `embedpipe embed`")
    return f"there is no feature store at {os.fspath(path)!r}{but_is(path)}: {advice}"


def check_name(path: str | os.PathLike[str]) -> Path:
    """Return a local path.

    Raises UsageError for a name that no file or folder can have, such as one of 300 letters, or below a closed folder.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        raise UsageError(closed(path)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{os.fspath(path)!r:.300} cannot be the name of a file or folder: {reason}") from error
    return Path(path)


def refuse_url(to: str | os.PathLike[str], need: str) -> None:
    """Raise UsageError if a place to write to is a URL, also one that has become a path; ``need`` says what is needed.

    The command line makes paths of its arguments.
    """
    text = os.fspath(to)
    if "://" not in text and isinstance(to, PurePath) and _URL.match(text):
        text = text.replace(":/", "://", 1)
    if "://" in text:
        raise UsageError(f"{need}, got the URL {text!r}")


def check_file(to: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write, which is replaced.

    Raises UsageError for a URL, a folder, a name that cannot be a file's, or a place in the folder of a store, whose
    `vacuum` deletes what is not the store's; and WriteError for a place in which nothing can be written.
    """
    refuse_url(to, "a result is written to a local file")
    path = check_name(to)
    if path.is_dir() or any(parent.is_file() for parent in path.absolute().parents):
        raise UsageError(f"{str(path)!r} must not be a folder, nor lie below a file")
    for parent in path.absolute().parents:
        if folder_kind(parent) == "a feature store":
            raise UsageError(
                f"{str(path)!r} must not lie in {str(parent)!r}, a feature store, whose folder holds nothing else"
            )
    check_writable(path)
    return path


def check_replaceable(folder: Path, kind: str) -> None:
    """Raise UsageError unless a folder is new, empty, or one of a kind without files of others, which would be lost.

    Raises WriteError if nothing can be written beside it, where the new folder is made before it is put in place.
    """
    check_name(folder)
    in_a_file = any(place.is_file() for place in (folder, *folder.parents))
    if in_a_file or (folder.is_dir() and any(folder.iterdir())):
        if folder_kind(folder) != kind:
            found = path_kind(folder) or "below a file"
            raise UsageError(f"{str(folder)!r} must be a new or empty folder, or {kind}, and is {found}: give another")
        others = sorted(path.name for path in folder.iterdir())
        others = [name for name in others if not any(fnmatch(name, known) for known in (*FILES[kind], *LITTER))]
        if others:
            raise UsageError(
                f"{str(folder)!r} is {kind} that would be replaced, and {others[0]!r} in it would be lost: move it "
                "elsewhere, or give a new folder"
            )
    check_writable(folder)
