import asyncio
import gzip
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescreen import __version__
from facescreen.errors import FetchFailedError, FetchTimeoutError, ImageTooLargeError, UrlNotAllowedError
from facescreen.images.fetch import MAX_REDIRECTS, Fetcher, _is_public

MAX_BYTES = 50_000
Writer = asyncio.StreamWriter
Answer = Callable[[str, Writer], Awaitable[None]]


class Server:
    """An HTTP server on loopback that remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[str] = []
        self.port = 0
        self._answer = answer

    async def __call__(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        try:
            await self._answer(request.split()[1], writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


@asynccontextmanager
async def fetching(*allowed_hosts: str, timeout_seconds: float = 5) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(timeout_seconds=timeout_seconds, max_bytes=MAX_BYTES, allowed_hosts=allowed_hosts)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


def always(status: str, body: bytes = b"", **headers: str) -> Answer:
    head = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]

    async def answer(path: str, writer: Writer) -> None:
        writer.write("\r\n".join([*head, "", ""]).encode() + body)

    return answer


async def test_the_body_comes_back_and_the_host_keeps_its_name() -> None:
    async with serving(always("200 OK", b"image", Content_Length="5")) as server, fetching("localhost") as fetcher:
        assert await fetcher.fetch(f"http://LOCALHOST:{server.port}/a%20b/ü.jpg?size=1#part") == b"image"
        request = server.requests[0]
        assert request.startswith("GET /a%20b/%C3%BC.jpg?size=1 HTTP/1.1\r\n")
        assert f"Host: localhost:{server.port}\r\n" in request
        assert "cookie" not in request.lower()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "127.0.0.1.",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "0.0.0.0",  # noqa: S104
        "0",
        "①②⑦.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1%25lo]",
        "169.254.169.254",
        "metadata.google.internal",
        "nowhere.invalid",
        "user:password@127.0.0.1",
        "user@example.com",
        "",
        "exa mple.com",
        "a" * 64 + ".com",
        "a..b",
        "xn--",
        "example.com:99999",
        "[::1",
    ],
)
async def test_no_spelling_gets_to_a_private_address(host: str) -> None:
    async with serving(always("200 OK", b"secret")) as server, fetching() as fetcher:
        for url in (f"http://{host}/", f"http://{host}:{server.port}/", f"https://{host}/"):
            with pytest.raises(UrlNotAllowedError):
                await fetcher.fetch(url)
        assert server.requests == []


@pytest.mark.parametrize("port", ["", ":22", ":8080"])
async def test_nothing_is_told_of_which_names_there_are(port: str) -> None:
    told = set()
    async with fetching() as fetcher:
        for host in ("127.0.0.1", "localhost", "10.0.0.1", "nowhere.invalid", "[::1]", "metadata.google.internal"):
            with pytest.raises(UrlNotAllowedError) as caught:
                await fetcher.fetch(f"http://{host}{port}/")
            told.add(str(caught.value))
    assert len(told) == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1/", "only public addresses and the hosts in URL_ALLOWED_HOSTS are"),
        ("http://user:password@camera.example/a.jpg", "user name or a password, which are never sent"),
        ("https://user@camera.example/a.jpg", "user name or a password, which are never sent"),
        ("http://camera.example:8080/a.jpg", "only ports 80 and 443 are, unless URL_ALLOWED_HOSTS has"),
        ("ftp://camera.example/a.jpg", "only http and https URLs"),
        ("http://[::1/", "no host can be read from it"),
        ("http://camera.example:99999/", "no host can be read from it"),
    ],
)
async def test_what_the_url_itself_shows_is_told(url: str, told: str) -> None:
    async with fetching() as fetcher:
        with pytest.raises(UrlNotAllowedError) as caught:
            await fetcher.fetch(url)
    assert told in str(caught.value)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    "media_type", ["multipart/x-mixed-replace; boundary=--x", "Video/mp4", "audio/mpeg", "text/event-stream"]
)
async def test_a_film_is_refused_before_it_ends(media_type: str) -> None:
    async def film(path: str, writer: Writer) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n\r\n".encode())
        while not writer.is_closing():
            writer.write(b"--x\r\nContent-Type: image/jpeg\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(film) as server, fetching("localhost") as fetcher:
        with pytest.raises(FetchFailedError, match="a film, not one picture; give the URL of a single picture"):
            await fetcher.fetch(f"http://localhost:{server.port}/")


@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "file:///etc/passwd", "//example.com/", "", "http:x", "\ud800", "http://\0/"]
)
async def test_other_urls_are_not_fetched(url: str) -> None:
    async with fetching("example.com") as fetcher:
        with pytest.raises(UrlNotAllowedError):
            await fetcher.fetch(url)


async def test_the_upstream_is_told_who_asks() -> None:
    async with serving(always("200 OK", b"x")) as server, fetching("127.0.0.1") as fetcher:
        await fetcher.fetch(f"http://127.0.0.1:{server.port}/a.jpg")
    assert f"User-Agent: facescreen/{__version__}\r\n" in server.requests[0]


async def test_an_exemption_is_for_that_name_and_port_only() -> None:
    async with serving(always("200 OK", b"image")) as server, serving(always("200 OK", b"secret")) as other:
        async with fetching(f"127.0.0.1:{server.port}") as fetcher:
            assert await fetcher.fetch(f"http://127.0.0.1:{server.port}/") == b"image"
            for url in (
                f"http://127.0.0.1:{other.port}/",
                f"http://localhost:{server.port}/",
                f"http://127.1:{server.port}/",
            ):
                with pytest.raises(UrlNotAllowedError):
                    await fetcher.fetch(url)
        assert other.requests == []


@pytest.mark.parametrize("allowed", ["::1", "[::1]", "[::1]:{port}"])
async def test_an_exempt_ipv6_address(allowed: str) -> None:
    server = Server(always("200 OK", b"image"))
    try:
        listening = await asyncio.start_server(server, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    port = listening.sockets[0].getsockname()[1]
    async with listening, fetching(allowed.format(port=port)) as fetcher:
        assert await fetcher.fetch(f"http://[::1]:{port}/") == b"image"
        assert f"Host: [::1]:{port}\r\n" in server.requests[0]


class TestResolving:
    """The resolver is the one thing of the network that loopback cannot stand in for."""

    @pytest.fixture
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        """What the names resolve to, one list per question; the last one stays."""
        prepared: list[list[str]] = []

        def getaddrinfo(host: str, port: int, **options: int) -> list[object]:
            addresses = prepared.pop(0) if len(prepared) > 1 else prepared[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return prepared

    async def test_one_bad_answer_blocks_the_name(self, answers: list[list[str]]) -> None:
        answers.append(["93.184.215.14", "10.0.0.1"])
        async with fetching() as fetcher:
            with pytest.raises(UrlNotAllowedError):
                await fetcher.fetch("http://example.com/")

    async def test_the_checked_answer_is_the_one_that_is_dialled(self, answers: list[list[str]]) -> None:
        async with serving(always("200 OK", b"image")) as server, fetching("example.com") as fetcher:
            answers.extend([["127.0.0.1"], ["127.0.0.2"]])
            assert await fetcher.fetch(f"http://example.com:{server.port}/") == b"image"
            assert answers == [["127.0.0.2"]]

    async def test_the_next_address_is_tried(self, answers: list[list[str]]) -> None:
        async with serving(always("200 OK", b"image")) as server, fetching("example.com") as fetcher:
            answers.append(["127.0.0.2", "127.0.0.1"])
            assert await fetcher.fetch(f"http://example.com:{server.port}/") == b"image"

    async def test_public_names_are_not_dialled_on_odd_ports(self, answers: list[list[str]]) -> None:
        answers.append(["93.184.215.14"])
        async with fetching() as fetcher:
            with pytest.raises(UrlNotAllowedError):
                await fetcher.fetch("http://example.com:22/")


class TestRedirects:
    async def test_three_are_followed_and_not_a_fourth(self) -> None:
        async def answer(path: str, writer: Writer) -> None:
            left = int(path[1:])
            await always("302 Found", Location=f"{left - 1}")(path, writer) if left else await always("200 OK", b"end")(
                path, writer
            )

        async with serving(answer) as server, fetching("localhost") as fetcher:
            assert await fetcher.fetch(f"http://localhost:{server.port}/{MAX_REDIRECTS}") == b"end"
            with pytest.raises(FetchFailedError, match="redirected"):
                await fetcher.fetch(f"http://localhost:{server.port}/{MAX_REDIRECTS + 1}")

    @pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
    async def test_every_hop_is_checked(self, status: str) -> None:
        async with serving(always("200 OK", b"secret")) as secret, fetching("localhost") as fetcher:
            for target in (
                f"http://127.0.0.1:{secret.port}/",
                f"//127.0.0.1:{secret.port}/",
                "http://169.254.169.254/",
                "file:///etc/passwd",
                "http://user@localhost/",
                "http://[",
            ):
                async with serving(always(status, Location=target)) as server:
                    with pytest.raises(UrlNotAllowedError):
                        await fetcher.fetch(f"http://localhost:{server.port}/")
            assert secret.requests == []

    async def test_nowhere(self) -> None:
        async with serving(always("302 Found")) as server, fetching("localhost") as fetcher:
            with pytest.raises(FetchFailedError):
                await fetcher.fetch(f"http://localhost:{server.port}/")


class TestUpstream:
    @pytest.mark.parametrize(
        "answer",
        [
            always("404 Not Found", b"image"),
            always("500 Oops"),
            always("304 Not Modified"),
            always("200 OK", b"short", Content_Length="100"),
            always("200 OK", b"no chunk", Transfer_Encoding="chunked"),
            always("200 OK", b"no gzip", Content_Encoding="gzip"),
            always("200 OK", gzip.compress(bytes(1_000))[:-9], Content_Encoding="gzip"),
            always("200 OK", b"x", Content_Encoding="br"),
            always("nonsense"),
        ],
    )
    async def test_faults_name_no_address(self, answer: Answer) -> None:
        async with serving(answer) as server, fetching("localhost") as fetcher:
            with pytest.raises(FetchFailedError) as caught:
                await fetcher.fetch(f"http://localhost:{server.port}/")
            for secret in ("127.0.0.1", "localhost", str(server.port)):
                assert secret not in str(caught.value)

    async def test_a_refused_connection(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with fetching("127.0.0.1") as fetcher:
                with pytest.raises(FetchFailedError):
                    await fetcher.fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/")

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", ""])
    async def test_bodies_are_counted_after_decoding(self, encoding: str) -> None:
        compressors: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
        compress = compressors.get(encoding, bytes)
        for size in (MAX_BYTES, MAX_BYTES + 1, 100 * MAX_BYTES):
            body = compress(bytes(size))
            async with (
                serving(always("200 OK", body, Content_Encoding=encoding)) as server,
                fetching("localhost") as fetcher,
            ):
                if size == MAX_BYTES:
                    assert await fetcher.fetch(f"http://localhost:{server.port}/") == bytes(size)
                else:
                    with pytest.raises(ImageTooLargeError):
                        await fetcher.fetch(f"http://localhost:{server.port}/")

    async def test_a_compressed_bomb_is_never_inflated_whole(self) -> None:
        bomb = gzip.compress(bytes(400 * MAX_BYTES))
        async with serving(always("200 OK", bomb, Content_Encoding="gzip")) as server, fetching("localhost") as fetcher:
            tracemalloc.start()
            try:
                with pytest.raises(ImageTooLargeError):
                    await fetcher.fetch(f"http://localhost:{server.port}/")
                assert tracemalloc.get_traced_memory()[1] < 40 * MAX_BYTES
            finally:
                tracemalloc.stop()

    async def test_an_endless_body_ends_at_the_limit(self) -> None:
        async def answer(path: str, writer: Writer) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(bytes(10_000))
                await writer.drain()

        async with serving(answer) as server, fetching("localhost") as fetcher:
            with pytest.raises(ImageTooLargeError):
                await fetcher.fetch(f"http://localhost:{server.port}/")

    async def test_one_deadline_for_everything(self) -> None:
        async def drip(path: str, writer: Writer) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

        async def silence(path: str, writer: Writer) -> None:
            await asyncio.sleep(0.5)

        for answer in (drip, silence):
            async with serving(answer) as server, fetching("localhost", timeout_seconds=0.2) as fetcher:
                with pytest.raises(FetchTimeoutError):
                    await fetcher.fetch(f"http://localhost:{server.port}/")

    async def test_the_environment_has_no_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving(always("200 OK", b"proxied")) as proxy, serving(always("200 OK", b"image")) as server:
            for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
            async with fetching("localhost") as fetcher:
                assert await fetcher.fetch(f"http://localhost:{server.port}/") == b"image"
            assert proxy.requests == []


class TestTls:
    @pytest.fixture
    def context(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
        """A server's context with a certificate for ``localhost``, from an authority that OpenSSL here trusts."""
        trustme = pytest.importorskip("trustme")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        return context

    async def test_the_name_is_verified(self, context: ssl.SSLContext) -> None:
        names: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: names.append(name)
        async with (
            serving(always("200 OK", b"image"), context) as server,
            fetching("localhost", "127.0.0.1") as fetcher,
        ):
            assert await fetcher.fetch(f"https://localhost:{server.port}/") == b"image"
            assert names == ["localhost"]
            with pytest.raises(FetchFailedError):
                await fetcher.fetch(f"https://127.0.0.1:{server.port}/")

    async def test_an_unknown_authority_is_not_trusted(
        self, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        async with serving(always("200 OK", b"image"), context) as server, fetching("localhost") as fetcher:
            with pytest.raises(FetchFailedError):
                await fetcher.fetch(f"https://localhost:{server.port}/")

    async def test_a_step_down_to_http_is_refused(self, context: ssl.SSLContext) -> None:
        async with serving(always("200 OK", b"image")) as plain:
            redirect = always("302 Found", Location=f"http://localhost:{plain.port}/")
            async with serving(redirect, context) as server, fetching("localhost") as fetcher:
                with pytest.raises(UrlNotAllowedError):
                    await fetcher.fetch(f"https://localhost:{server.port}/")
            assert plain.requests == []


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.19.255.255",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "64:ff9b:1::808:808",
        "100::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not _is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_addresses_that_are(address: str) -> None:
    assert _is_public(address)


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_private(address: object) -> None:
    from ipaddress import ip_address

    parsed = ip_address(str(address))
    if parsed.is_private or parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        assert not _is_public(str(address))
