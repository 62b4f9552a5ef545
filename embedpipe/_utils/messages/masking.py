"""Passwords and keys in URLs, which no message, log or JSON object shows."""

from __future__ import annotations

import re

#: What stands in the place of a secret.
MASK = "***"
#: The password of ``scheme://user:password@host``; for a web server all before the ``@``, which may be a token.
_PASSWORD = re.compile(
    r"""(?P<user>[a-z][a-z0-9+.-]*://[^\s/:@?#'"]*:)[^\s/@'"]+(?=@)|(?P<scheme>https?://)[^\s/:@?#'"]+(?=@)""",
    re.IGNORECASE,
)
#: A value in the query of a URL whose name is that of a secret: ``sig``, ``access_key``, ``X-Amz-Signature``.
_QUERY = re.compile(
    r"""(?P<name>[?&](?:[\w.%-]*?[_.-]|aws)?(?:key|apikey|access_?key|accesskeyid|secret|secret_?key|token|sig|signature"""
    r"""|credential|credentials|password|passwd|pwd)=)(?P<value>[^\s&#'"<>]+)""",
    re.IGNORECASE,
)
#: A token of the Hugging Face hub.
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
#: Secrets that are shown all the same.
_shown: set[str] = set()


def show_secret(secret: str) -> str:
    """Return a secret that messages show from now on: the token of a server that this process starts."""
    _shown.add(secret)
    return secret


def masked(text: str) -> str:
    """Return a text without tokens of the hub, and without the passwords and keys of the URLs in it.

    Examples
    --------
    >>> masked("cannot open s3://me:secret@bucket/photos?secret_key=abc&scheme=http")
    'cannot open s3://me:***@bucket/photos?secret_key=***&scheme=http'
    """
    text = _TOKEN.sub(MASK, text)
    if "://" not in text:
        return text
    text = _PASSWORD.sub(lambda match: f"{match['user'] or match['scheme']}{MASK}", text)
    return _QUERY.sub(lambda match: match[0] if match["value"] in _shown else f"{match['name']}{MASK}", text)
