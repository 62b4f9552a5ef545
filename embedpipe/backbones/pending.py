"""Backbones whose spec is known from an earlier run, so that a run without new items loads no network.

The spec is kept in the cache folder, with the checksums of the files that were read for it. It counts only while the
options, the code of embedpipe, the versions of the libraries and all bytes of these files are the same. A backbone of
the user's own code, or of a provider that does not say what it reads, is always loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedpipe._utils.cache import cannot_cache, find_cache, mark_used, open_cache
from embedpipe._utils.checksums import checksum, checksum_of_pieces, file_checksum, read_json, write_json
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import StoreError

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone

#: The part of the cache folder that holds the specs.
PART = "specs"

#: The prefix of a folder in the names of timm and open_clip.
LOCAL = "local-dir:"

#: Code that decides the spec of a backbone.
_CODE = (Path(__file__).parent, Path(__file__).parents[1] / "decoding" / "recipe.py")


@dataclass(frozen=True)
class PendingBackbone:
    """A backbone that is loaded when something is to be embedded.

    Parameters
    ----------
    spec : BackboneSpec
    notes : list of str
        As `Backbone.notes`.
    origin : dict of str to str
        The origin of the weights and the versions of the libraries, as in `Backbone.provenance`.
    load : callable
        Loads the backbone.
    """

    spec: BackboneSpec
    notes: list[str]
    origin: dict[str, str]
    load: Callable[[], Backbone]

    #: Nothing has been embedded.
    device = engine_name = engine_reason = ""

    def reduced(self, spec: BackboneSpec) -> PendingBackbone:
        """Return this backbone with the layers of ``spec``; see `Backbone.reduced`."""
        return dataclasses.replace(self, spec=spec, load=lambda: self.load().reduced(spec))

    @property
    def provenance(self) -> dict[str, str]:
        """What a run records; see `Backbone.provenance`."""
        return {**self.origin, "engine": "none, as nothing was embedded"}


def recall_backbone(options: BackboneOptions, load: Callable[[], Backbone]) -> PendingBackbone | None:
    """Return the backbone of options as `remember_backbone` noted it; None if it is unknown or may have changed.

    Raises UsageError if the cache folder is somebody else's.
    """
    folder = find_cache(PART)
    if folder is None:
        return None
    file = folder / _name_of(options)
    try:
        values = read_json(file)
        spec = BackboneSpec.from_json(values["spec"])
        known = PendingBackbone(spec, list(values["notes"]), dict(values["origin"]), load)
        if values["versions"] != _versions(values["versions"]) or values["files"] != _digests(values["files"]):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StoreError):
        return None
    except importlib.metadata.PackageNotFoundError:  # noted by another installation: loading says what is missing
        return None
    mark_used(file)
    return known


def remember_backbone(options: BackboneOptions, backbone: Backbone) -> None:
    """Note the spec of a backbone that was loaded with these options, for `recall_backbone`."""
    files = backbone.network.files
    try:
        if files is None or any(_changed(path) >= backbone.loading for path in _files_in(files)):
            return  # what was read is not known
        origin = {name: value for name, value in backbone.provenance.items() if name != "engine"}
        values = {
            "spec": backbone.spec.to_json(),
            "notes": backbone.notes,
            "origin": origin,
            "versions": _versions(name for name in origin if name != "weights"),
            "files": _digests(str(path.absolute()) for path in files),
        }
        if (folder := open_cache(PART)) is not None:
            write_json(values, folder / _name_of(options))
    except OSError as error:
        cannot_cache(error)


def _name_of(options: BackboneOptions) -> str:
    """Return the name of the entry: a hash of the options that decide a spec, and of the code."""
    values = {**dataclasses.asdict(options), "offline": None}
    for name in ("weights", "frequencies"):
        values[name] = _place(values[name])
    provider, slash, name = options.backbone.partition("/")
    prefix = LOCAL if name.startswith(LOCAL) else ""
    values["backbone"] = f"{provider}{slash}{prefix}{_place(name.removeprefix(prefix))}"
    return hashlib.sha256(json.dumps([values, _code()], sort_keys=True).encode()).hexdigest()[:32]


def _place(text: str | None) -> str | None:
    """Return a path with its folder, as a relative one names other files elsewhere; any other text as it is."""
    try:
        path = Path(text or "").expanduser()
        return str(path.absolute()) if text and path.exists() else text
    except (OSError, RuntimeError, ValueError):
        return text


@cache
def _code() -> str:
    return checksum_of_pieces(path.read_bytes() for path in _files_in(_CODE) if path.suffix == ".py")


def _versions(names: Iterable[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


def _digests(paths: Iterable[str]) -> dict[str, str]:
    """Return the checksum of each file; that of a folder covers the names and bytes of all files in it."""
    return {path: _digest(Path(path)) for path in paths}


def _digest(path: Path) -> str:
    if not path.is_dir():
        return file_checksum(path)
    lines = [f"{file.relative_to(path).as_posix()}\0{file_checksum(file)}" for file in _files_in([path])]
    return checksum("\n".join(lines).encode("utf-8", "surrogateescape"))


def _files_in(paths: Iterable[Path]) -> list[Path]:
    """Return files, and those of folders at any depth, sorted."""
    return sorted(
        file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if not file.is_dir()
    )


def _changed(path: Path) -> float:
    """Return when a file was changed or put in its place, in seconds of the epoch."""
    info: Any = path.stat()
    return float(max(info.st_mtime, info.st_ctime))
