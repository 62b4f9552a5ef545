"""Whether an error is one of a storage or server that does not answer for now, so that a later call may succeed."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import socket
import ssl
import urllib.error
from collections.abc import Iterator

from embedpipe.errors import BackboneError, EmbedpipeError, Failure, TemporaryError, UnreachableError

#: What delta-rs says without credentials: its last try is the metadata server of a cloud, which does not answer.
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|no credentials found|credential provider was not enabled")

#: Codes of HTTP with which a server asks to come back later.
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Codes of the operating system for a network or a network drive that is gone.
_NETWORK = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET",
        "ENETUNREACH", "ENOTCONN", "EREMOTEIO", "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip

#: What pyarrow and delta-rs say, which raise a plain OSError without a code for whatever a server answers.
_MESSAGES = re.compile(
    r"AWS Error (?:NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|THROTTLING|INTERNAL_FAILURE|REQUEST_TIMEOUT)"
    r"|HTTP status (?:429|5\d\d)|status code:? (?:429|5\d\d)|\b(?:429 Too Many Requests|50[0234] [A-Z])"
    r"|client error \(Connect\)|error sending request|operation timed out|connection closed before|SlowDown",
)


def is_outage(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that a storage or server does not answer for now.

    Examples
    --------
    >>> is_outage(ConnectionRefusedError(111, "Connection refused"))
    True
    >>> is_outage(FileNotFoundError(2, "No such file or directory"))
    False
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if _is_one(error):
            return True
        inner = error.reason if isinstance(error, urllib.error.URLError) else None
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return False


def _is_one(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _LATER
    if isinstance(error, BrokenPipeError | ssl.SSLCertVerificationError):
        return False
    if isinstance(error, socket.gaierror):  # a name that no server knows is a typing error more often than an outage
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, TimeoutError | ConnectionError | http.client.IncompleteRead):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NETWORK
    if not isinstance(error, OSError) and all(kind.__name__ != "DeltaError" for kind in type(error).__mro__):
        return False
    text = " ".join(str(error).split())
    return not lacks_credentials(text) and bool(_MESSAGES.search(text))


def lacks_credentials(message: str) -> bool:
    """Return whether the message of an error of delta-rs says that it found no credentials."""
    return _NO_CREDENTIALS.search(message) is not None


@contextlib.contextmanager
def outages_raised(place: str = "") -> Iterator[None]:
    """Raise UnreachableError in place of an error of the block that `is_outage`; also a decorator.

    The message names ``place``, for errors that do not.
    Weights that cannot be downloaded stay a WeightsError, as the machine may have no network on purpose.
    """
    try:
        yield
    except (TemporaryError, BackboneError):
        raise
    except (EmbedpipeError, OSError) as error:
        if not is_outage(error):
            raise
        text = " ".join(re.sub(r"\x1b\[\d+m|↳", "", str(error)).split())
        text = f"cannot reach {place!r}: {text}" if place else text
        raise UnreachableError(f"{text}: the storage or server does not answer for now, so try again later") from error


class OutageWatch:
    """Ends a run when many items in a row cannot be read because of an outage: each would wait for the server.

    Attributes
    ----------
    count : int
        Items that could not be read because of an outage.
    """

    MOST_IN_A_ROW = 32

    def __init__(self) -> None:
        self.count = self._in_a_row = 0

    def __call__(self, outcome: object) -> None:
        """Take note of the outcome of an item. Raises UnreachableError after `MOST_IN_A_ROW` outages in a row."""
        if not (isinstance(outcome, Failure) and outcome.temporary):
            self._in_a_row = 0
            return
        self.count += 1
        self._in_a_row += 1
        if self._in_a_row == self.MOST_IN_A_ROW:
            raise UnreachableError(
                f"{self._in_a_row} items in a row could not be read, the last with: {outcome.message}. What was "
                "finished is in the store: run again when the server answers"
            )
