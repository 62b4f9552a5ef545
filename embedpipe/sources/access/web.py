"""Reading files of web servers, without those of the private network."""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection
from typing import Any

from embedpipe._utils.option_names import option
from embedpipe._utils.version import __version__
from embedpipe.errors import ReadError

SCHEMES = ("http", "https")

#: Bounds of one file: a server that sends for ever would fill the memory or hold up the run.
MAX_BYTES = 1 << 30
MAX_SECONDS = 300.0
TIMEOUT = 30.0

_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def host_of(url: str) -> str:
    """Return ``host:port`` of a URL of a web server, ``""`` if it names none."""
    scheme, _, rest = url.partition("://")
    try:
        parts = urllib.parse.urlsplit(f"//{rest}")
        return f"{parts.hostname}:{parts.port or _PORTS[scheme.lower()]}" if parts.hostname else ""
    except ValueError:  # a port that is no number
        return ""


def read_url(url: str, private: Collection[str]) -> bytes:
    """Return the contents of a file of a web server.

    Every address that is connected to, also after a redirect, must be public, as a table of somebody else could name
    services of the local network. The name is resolved once, so that an answer that changes is of no use.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``.
    private : collection of str
        ``host:port`` of the servers whose address may be private, as the user has named them.

    Raises
    ------
    ReadError
        An address is private, the server does not answer or ends the connection early, or the file exceeds `MAX_BYTES`
        or `MAX_SECONDS`.
    """
    proxies = urllib.request.getproxies()
    allowed = {*private, *(host_of(proxy) for proxy in proxies.values() if "://" in proxy)}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        _Guard(proxies, allowed),
        _Http(allowed),
        _Https(allowed),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    safe = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(safe, headers={"User-Agent": f"embedpipe/{__version__}"})
    end = time.monotonic() + MAX_SECONDS
    data = bytearray()
    try:
        with contextlib.closing(opener.open(request, timeout=TIMEOUT)) as answer:
            while part := answer.read1(1 << 20):
                data += part
                if len(data) > MAX_BYTES or time.monotonic() > end:
                    raise ReadError(
                        f"{url} must have at most {MAX_BYTES >> 30} GB and take at most {MAX_SECONDS:.0f} s, "
                        f"got {len(data):,} bytes so far"
                    )
            if answer.length:  # http.client takes the end of a connection for the end of the file
                raise ConnectionError(f"the connection ended {answer.length:,} bytes before the end of the file")
    except ReadError:
        raise
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        cause = error.reason if isinstance(error.reason, ReadError) else error
        raise ReadError(f"cannot read {url}: {cause}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReadError(f"cannot read {url}: {error or type(error).__name__}") from error
    return bytes(data)


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet, also one that is wrapped in an IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


def _addresses(host: str, port: int, allowed: Collection[str]) -> list[Any]:
    """Return the socket addresses of a server. Raises ReadError if one is private."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if f"{host.lower()}:{port}" not in allowed and not is_public(str(address[0])):
            raise ReadError(
                f"{host} has the private address {address[0]}, which a table or store may not name: if you trust "
                f"it, give {option('allow_root', f'http://{host}:{port}/')}"
            )
    return found


def _connect(allowed: Collection[str], address: tuple[str, int], timeout: Any, source: Any = None) -> socket.socket:
    """Connect to the first address that answers, in place of `socket.create_connection`."""
    error: OSError | None = None
    for family, kind, protocol, _, where in _addresses(*address, allowed):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(TIMEOUT)
            connection.connect(where)
        except OSError as reason:
            connection.close()
            error = reason
        else:
            return connection
    raise error or OSError(f"{address[0]} has no address")


class _Guard(urllib.request.BaseHandler):
    """Checks the server behind a proxy, to which no connection is made here."""

    def __init__(self, proxies: dict[str, str], allowed: Collection[str]) -> None:
        self._proxies, self._allowed = proxies, allowed

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        if request.type in self._proxies and not urllib.request.proxy_bypass(request.host):
            host, _, port = host_of(request.full_url).rpartition(":")
            with contextlib.suppress(socket.gaierror):  # only the proxy knows the name
                _addresses(host, int(port), self._allowed)
        return request

    https_request = http_request


class _Http(urllib.request.HTTPHandler):
    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._allowed = allowed

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(_guarded, http.client.HTTPConnection, self._allowed), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._allowed = allowed

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(_guarded, http.client.HTTPSConnection, self._allowed), request)


def _guarded(kind: type[http.client.HTTPConnection], allowed: Collection[str], host: str, **options: Any) -> Any:
    connection = kind(host, **options)
    connection._create_connection = functools.partial(_connect, allowed)  # type: ignore[attr-defined]
    return connection
