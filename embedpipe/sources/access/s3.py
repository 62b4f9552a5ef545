"""The S3 server, region and keys that the user set: in the environment, else in a profile of ``~/.aws``."""

from __future__ import annotations

import configparser
import functools
import os
from typing import NamedTuple

from embedpipe.errors import UsageError

#: Variables that go before a profile, and settings of a profile that give credentials.
BEFORE_PROFILE = {"AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"}
CREDENTIALS = {"aws_access_key_id", "credential_process", "role_arn", "sso_session", "sso_start_url"}


class S3Server(NamedTuple):
    """An S3 server other than Amazon's: its URL, ``http://`` or ``https://``, and its region."""

    url: str
    region: str


def s3_server() -> S3Server | None:
    """Return the S3 server that the user set, None for Amazon's.

    ``AWS_ENDPOINT_URL_S3`` goes before ``AWS_ENDPOINT_URL``, and both before ``endpoint_url`` of the profile. Servers
    such as MinIO take any region. Raises UsageError as `profile`.
    """
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or profile().get("endpoint_url")
    if not url:
        return None
    url = url if "://" in url else f"https://{url}"
    return S3Server(url.rstrip("/"), region() or "us-east-1")


def region() -> str | None:
    """Return the region that the user set."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or profile().get("region")


def profile() -> dict[str, str]:
    """Return the settings of the profile that is named by ``AWS_PROFILE``, by default ``default``.

    Raises UsageError if the file cannot be parsed, or if no file has the profile that is named.
    """
    paths = (
        os.environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config"),  # noqa: PTH111  this never raises
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.expanduser("~/.aws/credentials"),  # noqa: PTH111
    )
    return _profile(paths, os.environ.get("AWS_PROFILE"))


def delta_options(path: str) -> dict[str, str] | None:
    """Return what delta-rs needs to know of S3, for the path of a table; None for another storage.

    By itself it refuses ``http://``, asks for a region, and does not look into ``~/.aws`` once a server is named.
    """
    if not path.startswith(("s3://", "s3a://")):
        return None
    server = s3_server()
    options: dict[str, str] = {}
    if server is not None:
        options |= {"aws_endpoint": server.url, "aws_allow_http": str(server.url.startswith("http://")).lower()}
    if name := server.region if server is not None else region():
        options["aws_region"] = name
    if CREDENTIALS & profile().keys() and not BEFORE_PROFILE & os.environ.keys():
        options["aws_force_credential_load"] = "true"
    return options or None


@functools.lru_cache(maxsize=16)
def _profile(paths: tuple[str, str], name: str | None) -> dict[str, str]:
    config, credentials = paths
    found: dict[str, str] = {}
    known = name is None
    for path, section in ((config, f"profile {name}"), (config, name or "default"), (credentials, name or "default")):
        parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="")
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the profiles in {path!r}: {' '.join(str(error).split())}") from error
        except OSError:
            continue
        if parser.has_section(section):
            found, known = found | dict(parser[section]), True
    if not known and not BEFORE_PROFILE & os.environ.keys():
        raise UsageError(f"AWS_PROFILE must name a profile of {config!r} or {credentials!r}, got {name!r}")
    return found
