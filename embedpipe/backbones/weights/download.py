"""Published weight files, from the libraries' local caches or downloaded into them.

Without a network connection the error comes within seconds and names the file to provide.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from embedpipe._utils.checksums import file_sha256
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import option
from embedpipe.errors import WeightsError

#: Seconds to wait for a connection; the hub's own client retries for minutes.
TIMEOUT = 3.0


def split_revision(repository: str) -> tuple[str, str | None]:
    """Split ``ORG/NAME@REVISION``; the revision is None if there is none."""
    name, _, revision = repository.partition("@")
    return name, revision or None


def pinned(repository: str, folder: Path) -> str:
    """Return ``ORG/NAME@COMMIT`` if a folder is a snapshot in the hub's cache, else the repository as it is."""
    is_snapshot = folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name)
    return f"{split_revision(repository)[0]}@{folder.name}" if is_snapshot else repository


def fetch_files(repository: str, groups: Sequence[Sequence[str]], offline: bool) -> Path:
    """Return the folder of one revision of a hub repository with the first file of each group that it has.

    Raises what `fetch_from_hub` raises.
    """
    for names in groups:
        wanted = f"{names[0]!r} and the other files of the hub repository {repository!r} into a folder"
        folder = fetch_from_hub(repository, names, offline, wanted).parent
        repository = pinned(repository, folder)
    return folder


def fetch_from_hub(repository: str, names: Sequence[str], offline: bool, wanted: str = "") -> Path:
    """Return the first of the named files that a hub repository, ``ORG/NAME`` or ``ORG/NAME@REVISION``, has.

    A file in the hub's local cache is returned without a request to the hub. ``wanted`` is what the user has to get
    where that is more than the file.

    Raises
    ------
    WeightsError
        If it is not in the cache, and cannot be downloaded or ``offline`` is True.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    wanted = wanted or f"the file {names[0]!r} of the hub repository {repository!r}"
    repository, revision = split_revision(repository)
    for name in names:
        try:
            return _whole(Path(hf_hub_download(repository, name, revision=revision, local_files_only=True)))
        except HFValidationError as error:
            raise WeightsError(f"a hub repository must be ORG/NAME or ORG/NAME@REVISION, got {repository!r}") from error
        except LocalEntryNotFoundError:
            continue
    _require_connection(wanted, offline or constants.is_offline_mode(), constants.ENDPOINT)
    for name in names:
        try:
            return _whole(Path(hf_hub_download(repository, name, revision=revision)))
        except LocalEntryNotFoundError as error:  # the hub did not answer
            raise _unreachable(wanted, str(error)) from error
        except EntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise _unreachable(wanted, _GATED) from error
        except (HfHubHTTPError, OSError) as error:
            raise _unreachable(wanted, str(error)) from error
    raise _unreachable(wanted, f"the repository has none of {', '.join(names)}")


def fetch_repository(repository: str, offline: bool) -> Path:
    """Return the folder of a hub repository with a model: its torch weights, configurations and tokenizer.

    A folder in the hub's local cache is returned without a request to the hub.

    Raises
    ------
    WeightsError
        If it is not in the cache, and cannot be downloaded or ``offline`` is True.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = f"the folder of the hub repository {repository!r}"
    repository, revision = split_revision(repository)
    download = partial(snapshot_download, repository, revision=revision, ignore_patterns=_OTHER_FORMATS)
    try:
        folder = Path(download(local_files_only=True))
        if _has_weights(folder):
            return _whole_folder(folder)
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise WeightsError(
            f"there is no folder {repository!r}, and a hub repository must be ORG/NAME or ORG/NAME@REVISION"
        ) from error
    _require_connection(wanted, offline or constants.is_offline_mode(), constants.ENDPOINT)
    try:
        return _whole_folder(Path(download()))
    except GatedRepoError as error:
        raise _unreachable(wanted, _GATED) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _unreachable(wanted, str(error)) from error


def _has_weights(folder: Path) -> bool:
    """Return whether a folder of the hub's cache has weights for torch, with all files that an index of them names.

    A download that was stopped, and another library that looked at one file, leave a part of a repository there.
    """
    indexes = [*folder.rglob("*.safetensors.index.json"), *folder.rglob("*.bin.index.json")]
    try:
        shards = [
            index.with_name(name)
            for index in indexes
            for name in set(parse_json(index.read_bytes())["weight_map"].values())
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True  # which is damaged: loading it says so
    named = [*folder.rglob("*.safetensors"), *folder.rglob("*.bin")]
    return bool(named) and all(shard.is_file() for shard in shards)


def fetch_from_url(url: str, offline: bool) -> Path:
    """Return a published file from the cache folder of torch's hub, checked against the hash in its name.

    Raises
    ------
    WeightsError
        If it is not in the cache, and cannot be downloaded or ``offline`` is True.
    """
    name = urlsplit(url).path.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    if path.is_file():
        if digest:
            _require_digest(path, digest.group(1))
        return path
    wanted = f"the file {name!r}"
    _require_connection(wanted, offline, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), digest.group(1) if digest else None, progress=False)
    except (OSError, RuntimeError) as error:
        raise _unreachable(wanted, str(error)) from error
    return path


def with_revision(path: Path, repository: str = "") -> tuple[Path, ...]:
    """Return a file or folder of the hub's cache, and the file that says which commit a repository's revision is."""
    snapshots = next((parent for parent in path.parents if parent.name == "snapshots"), None)
    revision = None if snapshots is None else snapshots.parent / "refs" / (split_revision(repository)[1] or "main")
    return (path,) if revision is None or not revision.is_file() else (path, revision)


def _whole_folder(folder: Path) -> Path:
    """Return a folder of the hub's cache after checking its files."""
    for file in folder.rglob("*"):
        if file.is_file():
            _whole(file)
    return folder


def _whole(path: Path) -> Path:
    """Return a file of the hub's cache after checking it: large files are named by their SHA-256."""
    digest = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", digest):
        _require_digest(path, digest)
    return path


def _require_digest(path: Path, digest: str) -> None:
    """Raise WeightsError unless the SHA-256 of a file begins with a digest."""
    actual = file_sha256(path)
    if not actual.startswith(digest):
        raise WeightsError(
            f"the cached file {str(path)!r} must have the SHA-256 {digest}, with which it was published, got {actual}: "
            "it is damaged or was changed. Delete it, so that it is downloaded again"
        )


def _require_connection(wanted: str, offline: bool, url: str) -> None:
    if offline:
        raise _unreachable(wanted, f"{option('offline', True)} forbids downloads")
    site = urlsplit(url)
    if site.scheme in getproxies():
        return
    try:
        port = site.port or {"http": 80}.get(site.scheme, 443)
        socket.create_connection((site.hostname or "", port), timeout=TIMEOUT).close()
    except OSError as error:
        raise _unreachable(wanted, f"no network connection ({error})") from error


_GATED = "the repository is gated: accept its conditions on its page, and log in (`hf auth login`, or HF_TOKEN)"

#: Files of a repository with the same weights for other libraries.
_OTHER_FORMATS = ["*.onnx", "*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*", "*.tflite", "*.gguf"]


def _unreachable(wanted: str, why: str) -> WeightsError:
    # Random weights need the configuration of a repository too, which only its folder has.
    alone = f", or use random weights with {option('weights', 'none')}" if wanted.startswith("the file") else ""
    return WeightsError(
        f"the published weights are not on this machine and cannot be downloaded: {why}. "
        f"Get {wanted} and pass it with {option('weights', 'PATH')}{alone}"
    )
