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

from embedpipe.errors import BackboneError, Failure, TemporaryError, UnreachableError

#: What delta-rs says without credentials: its last try is the metadata server of a cloud, which does not answer.
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|no credentials found|credential provider was not enabled")

#: What pyarrow and delta-rs say when a server refuses the user, or has no such bucket.
_REFUSED = re.compile(
    r"status code:? 40[13] \w+|<Code>(?:ExpiredToken|InvalidToken|NoSuchBucket)<|AWS Error (?:ACCESS_DENIED"
    r"|EXPIRED_TOKEN|INVALID_ACCESS_KEY_ID|INVALID_SIGNATURE|NO_SUCH_BUCKET|SIGNATURE_DOES_NOT_MATCH"
    r"|UNRECOGNIZED_CLIENT)"
)

#: The answer of a server in XML.
_ANSWER = re.compile(r"<Code>(\w+)</Code>\s*<Message>([^<]*)")

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
    return refusal(text) is None and bool(_MESSAGES.search(text))


def refusal(message: str) -> str | None:
    """Return why a storage refuses the user, from the message of an error; None for an error of another kind."""
    if _NO_CREDENTIALS.search(message):
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    text = one_line(message)
    if (refused := _REFUSED.search(text)) is None:
        return None
    answer = _ANSWER.search(text)
    words = f"{answer[1]}: {answer[2].rstrip('. ')}" if answer else refused[0]
    return f"the server refuses the request ({words}): check the bucket, the credentials and what they may do"


def one_line(message: str) -> str:
    """Return the message of an error of delta-rs in one line, without colours."""
    return " ".join(re.sub(r"\x1b\[\d+m|↳", "", message).split())


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
    except Exception as error:  # delta-rs has a type of its own
        if not is_outage(error):
            raise
        text = one_line(str(error))
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
