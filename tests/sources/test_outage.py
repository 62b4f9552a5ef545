"""Storage that does not answer: told apart from wrong usage, and no run waits for it item by item."""

from __future__ import annotations

import errno
import urllib.error
from email.message import Message

import pytest
from deltalake.exceptions import DeltaError

from embedpipe.errors import Failure, SourceError, StoreError, UnreachableError, WeightsError
from embedpipe.sources.access.outage import OutageWatch, is_outage, outages_raised, refusal

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
AWS = "When listing objects under key 'photos/' in bucket 'b': AWS Error {} during ListObjectsV2 operation: no"
DELTA = "Generic S3 error\n ↳ Error performing GET http://h/b in 2s, after 10 retries\n ↳ {}"


def http(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://h", code, "words", Message(), None)


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        TimeoutError("timed out"),
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        urllib.error.URLError(REFUSED),
        http(503),
        http(429),
        *(OSError(AWS.format(kind)) for kind in ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE")),
        OSError(AWS.format("UNKNOWN (HTTP status 503)")),
        OSError(DELTA.format("HTTP error\n ↳ error sending request\n ↳ client error (Connect)")),
        OSError(DELTA.format("Server returned non-2xx status code: 503 Service Unavailable")),
    ],
    ids=repr,
)
def test_outages_are_known_also_as_a_cause(error: OSError) -> None:
    assert is_outage(error)
    with pytest.raises(UnreachableError, match="try again later") as raised, outages_raised():
        raise StoreError("cannot write") from error
    assert raised.value.exit_code == 75


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "denied"),
        OSError(errno.ENOSPC, "No space left on device"),
        http(404),
        http(403),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(AWS.format("ACCESS_DENIED")),
        OSError(AWS.format("NO_SUCH_BUCKET")),
        OSError("Error performing PUT http://169.254.169.254/latest/api/token - HTTP error - client error (Connect)"),
        OSError(DELTA.format("builder error\n ↳ URL scheme is not allowed")),
        ValueError("operation timed out"),
    ],
    ids=repr,
)
def test_what_a_later_run_does_not_mend_stays_as_it_is(error: Exception) -> None:
    assert not is_outage(error)
    with pytest.raises(SourceError), outages_raised():
        raise SourceError("cannot list") from error


def test_weights_that_cannot_be_downloaded_stay_an_error_of_the_backbone() -> None:
    with pytest.raises(WeightsError), outages_raised():
        raise WeightsError("no network: give --weights FILE") from REFUSED


def test_an_error_of_delta_rs_is_an_outage_too() -> None:
    with pytest.raises(UnreachableError, match=r"try again later"), outages_raised():
        raise DeltaError("Generic S3 error: Error performing GET: HTTP error: error sending request")
    with pytest.raises(DeltaError, match="no such table"), outages_raised():
        raise DeltaError("no such table")


def test_many_outages_in_a_row_end_a_run() -> None:
    watch = OutageWatch()
    away = Failure("1", None, "read", "OSError", "no answer", temporary=True)
    for _ in range(3):
        for _ in range(OutageWatch.MOST_IN_A_ROW - 1):
            watch(away)
        watch("an item")
    assert watch.count == 3 * (OutageWatch.MOST_IN_A_ROW - 1)
    for _ in range(OutageWatch.MOST_IN_A_ROW - 1):
        watch(away)
    with pytest.raises(UnreachableError, match=r"items in a row could not be read, the last with: no answer"):
        watch(away)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "Server returned non-2xx status code\n ↳ 403 Forbidden\n ↳ <Error><Code>SignatureDoesNotMatch</Code>"
            "<Message>Check your key.</Message></Error>",
            "the server refuses the request (SignatureDoesNotMatch: Check your key): check the bucket",
        ),
        (
            "Server returned non-2xx status code: 401 Unauthorized",
            "refuses the request (status code: 401 Unauthorized)",
        ),
        ("404 Not Found <Error><Code>NoSuchBucket</Code><Message>No b</Message>", "request (NoSuchBucket: No b)"),
        ("400 Bad Request <Code>ExpiredToken</Code><Message>It ended.</Message>", "request (ExpiredToken: It ended)"),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body", "request (AWS Error ACCESS_DENIED)"),
        ("credential provider was not enabled", "there are no credentials: set AWS_ACCESS_KEY_ID"),
        ("Server returned non-2xx status code: 404 Not Found <Code>NoSuchKey</Code>", None),
        ("Server returned non-2xx status code: 503 Service Unavailable <Code>SlowDown</Code>", None),
        ("No such file or directory", None),
    ],
)
def test_a_refusal_is_told_from_damage_and_from_an_outage(message: str, words: str | None) -> None:
    found = refusal(message)
    assert found is None if words is None else words in str(found)
    assert found is None or not is_outage(OSError(message))
