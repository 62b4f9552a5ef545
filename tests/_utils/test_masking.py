"""Passwords and keys in URLs are shown by no message."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from command import run
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

import embedpipe
from embedpipe._utils.messages.masking import masked, show_secret
from embedpipe.errors import Failure, ReadError, SourceError, UsageError, WriteError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://me:secret@bucket/x", "s3://me:***@bucket/x"),
        ("'https://token@host/x.csv' and http://h", "'https://***@host/x.csv' and http://h"),
        ("s3://b/x?access_key=a&secret_key=b&scheme=http", "s3://b/x?access_key=***&secret_key=***&scheme=http"),
        (
            "https://h/x?X-Amz-Credential=a%2Fb&X-Amz-Signature=c#f",
            "https://h/x?X-Amz-Credential=***&X-Amz-Signature=***#f",
        ),
        ("https://h/x?AWSAccessKeyId=a&sig=b", "https://h/x?AWSAccessKeyId=***&sig=***"),
        ('{"url": "s3://a:b@c?token=d"}', '{"url": "s3://a:***@c?token=***"}'),
    ],
)
def test_secrets_of_urls_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "abfss://container@account.dfs.core.windows.net/photos",
        "s3://bucket/photos?endpoint_override=localhost:9000&scheme=http",
        "https://host:8080/a?keyword=cat&page=2",
        "https://host/a:b@c.jpg",
        "a:b@c?key=d",
        "parquet:///data/x.parquet?column=text&row=3",
    ],
)
def test_other_urls_stay(text: str) -> None:
    assert masked(text) == text


@given(st.text(alphabet=st.characters(categories=["L", "N"], include_characters="-._~%+"), min_size=4))
def test_no_password_is_left(secret: str) -> None:
    for url in (f"s3://k9x7:q{secret}z@bucket/photos", f"https://host/x?a=1&secret_key=q{secret}z"):
        assert f"q{secret}z" not in masked(f"cannot open {url!r}: no route to {url}")


def test_the_token_of_an_own_server_is_shown() -> None:
    address = f"http://127.0.0.1:8700/?token={show_secret('k3J-_x')}"
    assert masked(f"{address} https://h/x?token=other") == f"{address} https://h/x?token=***"


def test_errors_and_failures_show_no_secret() -> None:
    url = "s3://me:hunter2@bucket/x.jpg"
    for kind in (SourceError, WriteError):
        assert str(pickle.loads(pickle.dumps(kind(f"cannot open {url}")))) == "cannot open s3://me:***@bucket/x.jpg"
    assert "hunter2" not in Failure.of("x", None, ReadError(f"cannot read {url}")).message
    assert "hunter2" not in Failure.of("x", None, OSError(f"cannot read {url}")).message


@pytest.mark.parametrize("url", ["s3://me:hunter2@bucket/photos", "https://example.org/x.csv?token=hunter2"])
def test_a_url_with_a_secret_is_refused_before_it_is_stored(url: str, tmp_path: Path) -> None:
    for call in (
        lambda: embedpipe.embed(url, tmp_path / "x", backbone=TINY),
        lambda: embedpipe.FeatureStore(url),
        lambda: embedpipe.fit(url),
    ):
        with pytest.raises(UsageError, match=r"must not hold a password or key, got .*\*{3}") as error:
            call()
        assert "hunter2" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_no_verb_shows_a_secret() -> None:
    url = "nosuch://me:hunter2@bucket/photos?token=hunter3"
    for arguments in (["embed", url, "--to", "x"], ["info", url], ["embed", url, "--to", "x", "--json"], ["fit", url]):
        result = run(*arguments)
        assert result.exit_code != 0
        assert "nosuch://me:***@bucket/photos?token=***" in result.output
        assert "hunter" not in result.output, arguments
