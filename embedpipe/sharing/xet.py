"""Transfers by xet, the hub's storage of chunks, where it answers: its client goes on trying where it does not.

Mirrors of the hub have no such storage, and firewalls that let the hub through often stop it. The hub takes and gives
the same files without it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

from embedpipe.sharing.location import Repository

#: Seconds to wait for an answer.
TIMEOUT = 5.0


@contextmanager
def xet_if_it_answers(
    repository: Repository, right: Literal["read", "write"], revision: str = "main"
) -> Iterator[None]:
    """Let huggingface_hub transfer files of a repository without xet inside the block, unless its storage answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_XET or _answers(repository, right, revision):
        yield
        return
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = False


def _answers(repository: Repository, right: str, revision: str) -> bool:
    from huggingface_hub import constants, get_session, get_token

    token = get_token()
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    address = f"{constants.ENDPOINT}/api/{repository.type}s/{repository.name}/xet-{right}-token/{quote(revision, '')}"
    try:
        response = get_session().get(address, headers=headers, timeout=TIMEOUT)
        storage = urlsplit(response.headers.get(constants.HUGGINGFACE_HEADER_X_XET_ENDPOINT, ""))
        if response.status_code != 200 or storage.hostname is None:
            return False
        if storage.scheme not in getproxies():
            socket.create_connection((storage.hostname, storage.port or 443), TIMEOUT).close()
    except Exception:  # what is wrong with the hub itself, the transfer without xet says
        return False
    return True
