"""Guarded download: the only module that dials out for an image.

Names are resolved once, every answer is checked, and the checked address is the one that is dialled, so neither odd
spellings nor a resolver that answers differently the second time get past. The name keeps its place in the ``Host``
header, in SNI and in the certificate check. No environment variable and no proxy takes part.
"""

import asyncio
import re
import zlib
from collections.abc import Collection, Iterable
from ipaddress import IPv6Network, ip_address, ip_network

import httpcore  # noqa: TID251 - the only fetcher
import httpx  # noqa: TID251 - the only fetcher

from facescreen import __version__
from facescreen.errors import FetchFailedError, FetchTimeoutError, ImageTooLargeError, UrlNotAllowedError
from facescreen.images.resolver import Resolver

MAX_REDIRECTS = 3
MAX_PORT = 65_535

ONLY_HTTP = "only http and https URLs of single pictures are"
"""Why a URL of another scheme is not fetched."""
_NO_URL = "it is written in a way that no host can be read from it"
_STREAMS = ("multipart/", "video/", "audio/", "text/event-stream")
"""Media types of what does not end, or is no picture: cameras send films as ``multipart/x-mixed-replace``."""

_PUBLIC_PORTS = {80, 443}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that IANA has allocated for it; loopback, mapped, compatible, NAT64, local and multicast lie outside."""

# https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry, what is not globally
# reachable there, plus what embeds or relays to IPv4 and one metadata service on a public address.
_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's platform endpoint
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # IETF assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_REDIRECTS = {301, 302, 303, 307, 308}
_UPSTREAM_FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, zlib.error)


class Fetcher:
    """Downloads images from public addresses. Close it when done.

    Args:
        timeout_seconds: deadline for one whole fetch: resolving, redirects and body included.
        max_bytes: largest body, after content decoding.
        allowed_hosts: names (international ones in their ``xn--`` form) or literal addresses, as the URL spells them,
            that may be fetched whatever they resolve to: ``host`` on every port, ``host:port`` on one. All others are
            fetched on ports 80 and 443 only.
    """

    def __init__(self, *, timeout_seconds: float, max_bytes: int, allowed_hosts: Collection[str]) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        # A connection that is never used again never outlives the check of its address.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_GuardedBackend({re.sub(r"[\[\]]", "", host.lower()) for host in allowed_hosts}),
        )

    async def fetch(self, url: str) -> bytes:
        """The body behind an http or https URL, following at most ``MAX_REDIRECTS`` redirects.

        Raises:
            UrlNotAllowedError: here or after a redirect: another scheme, user information, a port or an address that is
                not public, a name that does not resolve (else the answer would tell which internal names exist), or a
                step from https to http.
            FetchTimeoutError: the deadline passed, or too many names wait for an answer.
            ImageTooLargeError: the body is larger than ``max_bytes``.
            FetchFailedError: the upstream refused the connection, failed TLS or HTTP, or answered with an error or
                with a stream that is no picture.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._follow(url)
        except TimeoutError:
            raise FetchTimeoutError(f"the image did not arrive within {self._timeout_seconds:g} seconds") from None
        except _UPSTREAM_FAULTS:
            raise FetchFailedError("the image's server could not be reached or broke off") from None

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def _follow(self, url: str) -> bytes:
        target = _checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            headers: dict[bytes | str, bytes | str] = {
                "Host": target.netloc,
                "User-Agent": f"facescreen/{__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            }
            where = httpcore.URL(
                scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
            )
            async with self._pool.stream("GET", where, headers=headers) as response:
                if response.status not in _REDIRECTS:
                    return await self._body(response)
                location = _header(response, b"location")
                if not location:
                    raise FetchFailedError(f"the image's server answered {response.status} without saying where to")
                target = _checked(location, came_from=target)
        raise FetchFailedError(f"the image's server redirected more than {MAX_REDIRECTS} times")

    async def _body(self, response: httpcore.Response) -> bytes:
        if not 200 <= response.status < 300:
            raise FetchFailedError(f"the image's server answered {response.status}")
        if _header(response, b"content-type").strip().lower().startswith(_STREAMS):
            raise FetchFailedError(
                "the image's server sends a film, not one picture; give the URL of a single picture, "
                "which cameras call a snapshot"
            )
        encoding = _header(response, b"content-encoding").lower()
        if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise FetchFailedError("the image's server chose a content encoding that was not offered")
        # Servers that compress unasked exist; 32 lets zlib tell gzip from deflate.
        inflate = None if encoding in {"", "identity"} else zlib.decompressobj(zlib.MAX_WBITS | 32)
        body = bytearray()
        async for chunk in response.aiter_stream():
            # Bounded while inflating, since 64 KB can hold 64 MB.
            body += inflate.decompress(chunk, self._max_bytes + 1 - len(body)) if inflate else chunk
            if len(body) > self._max_bytes:
                raise ImageTooLargeError(f"the image has more than {self._max_bytes:,} bytes")
        if inflate and not inflate.eof:
            raise FetchFailedError("the image's server broke off")
        return bytes(body)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that it has checked itself."""

    def __init__(self, allowed_hosts: Collection[str]) -> None:
        self._allowed_hosts = allowed_hosts
        self._network = httpcore.AnyIOBackend()
        self._resolver = Resolver()

    async def connect_tcp(  # noqa: PLR0917  (httpcore's interface, and its timeout)
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        exempt = host in self._allowed_hosts or f"{host}:{port}" in self._allowed_hosts
        if not exempt and port not in _PUBLIC_PORTS:
            raise UrlNotAllowedError("only ports 80 and 443 are, unless URL_ALLOWED_HOSTS has this <host>:<port>")
        addresses = await self._resolver.addresses(host, port)
        if not exempt and not (addresses and all(map(_is_public, addresses))):
            raise UrlNotAllowedError
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                continue
        raise httpcore.ConnectError


def _is_public(address: str) -> bool:
    parsed = ip_address(address)
    if parsed.version == 6 and parsed not in _GLOBAL_UNICAST:
        return False
    return not any(parsed in network for network in _NOT_PUBLIC)


def _checked(url: str, *, came_from: httpx.URL | None = None) -> httpx.URL:
    try:
        target = came_from.join(url) if came_from else httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise UrlNotAllowedError(_NO_URL) from None
    if target.scheme not in {"http", "https"}:
        raise UrlNotAllowedError(ONLY_HTTP)
    if not target.raw_host or (target.port or 0) > MAX_PORT:
        raise UrlNotAllowedError(_NO_URL)
    if target.userinfo:
        raise UrlNotAllowedError("it has a user name or a password, which are never sent; give one that needs neither")
    if came_from is not None and came_from.scheme == "https" and target.scheme != "https":
        raise UrlNotAllowedError("the image's server redirects from https to http, which is not followed")
    return target


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode(errors="replace") for key, value in response.headers if key.lower() == name), "")
