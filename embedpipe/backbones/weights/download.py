"""Published weight files: from the local caches of the libraries, or downloaded into them.

Without a network the error comes within seconds and names the file to provide.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from embedpipe.errors import WeightsError

#: Seconds to wait for the first sign of the other side; the hub's own client tries for minutes.
PATIENCE = 3.0


def fetch_from_hub(repository: str, names: Sequence[str], offline: bool) -> Path:
    """Return the first of the named files that a hub repository has.

    A file in the hub's local cache is taken as it is, without asking the hub.

    Raises
    ------
    WeightsError
        If it is not in the cache and cannot be, or must not be, downloaded.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    wanted = f"the file {names[0]!r} of the hub repository {repository!r}"
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    _refuse_offline(wanted, offline or constants.is_offline_mode(), constants.ENDPOINT)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # the hub did not answer
            raise _unreachable(wanted, str(error)) from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            raise _unreachable(wanted, str(error)) from error
    raise _unreachable(wanted, f"it has none of {', '.join(names)}")


def fetch_repository(repository: str, offline: bool) -> Path:
    """Return the folder of a hub repository's model of texts: its torch weights, configurations and tokenizer.

    What is in the hub's local cache is taken as it is, without asking the hub.

    Raises
    ------
    WeightsError
        If it is not in the cache and cannot be, or must not be, downloaded.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = f"the folder of the hub repository {repository!r}"
    try:
        return Path(snapshot_download(repository, local_files_only=True, ignore_patterns=_OTHER_FORMATS))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise _unreachable(wanted, f"there is no such folder, nor can a repository be named so: {error}") from error
    _refuse_offline(wanted, offline or constants.is_offline_mode(), constants.ENDPOINT)
    try:
        return Path(snapshot_download(repository, ignore_patterns=_OTHER_FORMATS))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _unreachable(wanted, str(error)) from error


def fetch_from_url(url: str, offline: bool) -> Path:
    """Return a published file, kept where torch's hub keeps it and checked against the hash in its name.

    Raises
    ------
    WeightsError
        If it is not there and cannot be, or must not be, downloaded.
    """
    name = urlsplit(url).path.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    wanted = f"the file {name!r}"
    _refuse_offline(wanted, offline, url)
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), found.group(1) if found else None, progress=False)
    except (OSError, RuntimeError) as error:
        raise _unreachable(wanted, str(error)) from error
    return path


def _refuse_offline(wanted: str, offline: bool, url: str) -> None:
    if offline:
        raise _unreachable(wanted, "nothing is downloaded when offline")
    site = urlsplit(url)
    if site.scheme in getproxies():
        return
    try:
        port = site.port or {"http": 80}.get(site.scheme, 443)
        socket.create_connection((site.hostname or "", port), timeout=PATIENCE).close()
    except OSError as error:
        raise _unreachable(wanted, f"there is no network ({error})") from error


#: Files of a repository that hold the same weights for other libraries.
_OTHER_FORMATS = ["*.onnx", "*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*", "*.tflite", "*.gguf"]


def _unreachable(wanted: str, why: str) -> WeightsError:
    return WeightsError(
        f"the published weights are not on this machine and cannot be downloaded: {why}. "
        f"Get {wanted} and pass it with --weights PATH, "
        "or take random weights, where there are such, with --weights none"
    )
