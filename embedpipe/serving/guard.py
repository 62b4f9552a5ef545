"""Who may ask: the host that a browser names, the site that asks, the token; and the headers of answers."""

from __future__ import annotations

import hmac
import ipaddress
import json
import urllib.parse
from http.cookies import CookieError, SimpleCookie
from typing import Any

#: A page may use nothing but the files of this server, and nobody may frame it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
SAFE = ("GET", "HEAD", "OPTIONS")
LOCAL = ("localhost", "127.0.0.1", "::1")
COOKIE = "embedpipe"


class Guard:
    """Refuses requests before the application sees them (ASGI middleware).

    A page of another site may name this server by a host name of its own (DNS rebinding): that Host is refused. It may
    also send requests here from the reader's browser: Origin and Sec-Fetch-Site tell them.

    Parameters
    ----------
    app : ASGI application
    hosts : collection of str
        Names and addresses by which the server may be called, without port.
    token : str, optional
        What every request must bring: as a cookie, which ``/?token=...`` sets, or as ``Authorization: Bearer``.
    """

    def __init__(self, app: Any, hosts: Any, token: str | None = None) -> None:
        self._app, self._hosts, self._token = app, frozenset(host.lower() for host in hosts), token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                named = {name.lower() for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in named]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        if refusal := self.refusal(scope["method"], scope["path"], headers):
            await _answer(send_with_headers, *refusal)
            return
        if self._token is not None:
            given = urllib.parse.parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if scope["path"] == "/" and given and self._is_token(given):
                cookie = f"{self._cookie(scope)}={self._token}; HttpOnly; SameSite=Lax; Path=/"
                await _answer(send_with_headers, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode())])
                return
            if not self._has_token(scope, headers):
                words = "this server needs the token in the address that embedpipe printed: open that address"
                await _answer(send_with_headers, 401, words)
                return
        await self._app(scope, receive, send_with_headers)

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and reason if a request must not be answered."""
        host = headers.get("host", "")
        if not self._knows(host):
            return 400, f"unknown host {host[:100]!r}: open the address that embedpipe printed"
        site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
        foreign = site not in ("same-origin", "none") or (
            origin is not None and origin.partition("://")[2].lower() != host.lower()
        )
        if foreign and (method not in SAFE or path.startswith("/api/")):
            return 403, "the request comes from another site"
        return None

    def _knows(self, host: str) -> bool:
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or ("*" in self._hosts and _is_address(name))

    def _cookie(self, scope: Any) -> str:
        port = (scope.get("server") or ("", 0))[1]
        return f"{COOKIE}-{port}"  # cookies are shared by all ports of a host

    def _has_token(self, scope: Any, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(given.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie(scope))
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), (self._token or "").encode())


def _is_address(name: str) -> bool:
    """Return whether a host is an address, which no other site can make its own as it can a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _answer(send: Any, status: int, reason: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = json.dumps({"error": reason}).encode() if reason else b""
    first = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*first, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
