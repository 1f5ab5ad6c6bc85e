import base64
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from facescreen.errors import (
    ImageTooLargeError,
    InputError,
    InvalidBase64Error,
    PathNotAllowedError,
    UrlNotAllowedError,
)
from facescreen.images.fetch import Fetcher
from facescreen.images.sources import ImageSources, describe

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
MAX_BYTES = 20_000


def picture(file_format: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(stream, file_format)
    return stream.getvalue()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(timeout_seconds=1, max_bytes=MAX_BYTES, allowed_hosts=())
    yield fetcher
    await fetcher.aclose()


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``face.jpg``, in the working directory."""
    folder = tmp_path / "elsewhere" / "samples"
    folder.mkdir(parents=True)
    (folder / "face.jpg").write_bytes(JPEG)
    for name in ("noending", "gate 2026-12-01T08:30.jpg", "cam1:30.jpg"):
        (folder / name).write_bytes(JPEG)
    (tmp_path / "elsewhere" / "outside.jpg").write_bytes(b"outside")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def sources(samples: Path, fetcher: Fetcher) -> ImageSources:
    return ImageSources(roots=[Path("samples")], fetcher=fetcher, max_bytes=MAX_BYTES)


INLINE_ONLY = ImageSources(
    roots=(), fetcher=Fetcher(timeout_seconds=1, max_bytes=MAX_BYTES, allowed_hosts=()), max_bytes=MAX_BYTES
)


async def read_inline(text: str) -> bytes:
    source = await INLINE_ONLY.read(text)
    assert source.identifier == describe(text)
    return source.data


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
async def test_short_base64_of_every_format_is_no_path(file_format: str) -> None:
    data = picture(file_format)
    assert len(data) < 3_000
    assert await read_inline(base64.b64encode(data).decode()) == data


class TestInline:
    @settings(deadline=None)
    @given(
        body=st.binary(max_size=5_000),
        url_safe=st.booleans(),
        padded=st.booleans(),
        line_length=st.integers(10, 100),
        line_end=st.sampled_from(["", "\n", "\r\n", " \t"]),
    )
    async def test_base64_of_any_spelling_comes_back(
        self, body: bytes, url_safe: bool, padded: bool, line_length: int, line_end: str
    ) -> None:
        data = JPEG[:4] + body
        text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
        text = text if padded else text.rstrip("=")
        lines = [text[start : start + line_length] for start in range(0, len(text), line_length)]
        assert await read_inline(line_end.join(lines)) == data

    @settings(deadline=None)
    @given(
        data=st.binary(min_size=1, max_size=2_000),
        head=st.sampled_from(["data:image/jpeg", "DATA:image/png", "data:", "data:image/svg+xml;name=a.b"]),
        escaped=st.booleans(),
    )
    async def test_data_urls_come_back(self, data: bytes, head: str, escaped: bool) -> None:
        payload = base64.b64encode(data)
        text = quote_from_bytes(payload, safe="") if escaped else payload.decode()
        assert await read_inline(f"{head};base64,{text}") == data
        assert await read_inline(f"{head},{quote_from_bytes(data)}") == data

    @pytest.mark.parametrize(
        "text", ["", "   ", "data:image/png;base64", "data:image/png;base64,", "data:;base64,%%%", "*" * 5_000]
    )
    async def test_what_is_no_base64_says_so(self, text: str) -> None:
        with pytest.raises(InvalidBase64Error):
            await read_inline(text)

    @pytest.mark.parametrize("head", ["", "data:image/jpeg;base64,"])
    async def test_the_limit_is_the_last_length_that_is_read(self, head: str) -> None:
        largest = JPEG + bytes(MAX_BYTES - len(JPEG))
        assert await read_inline(head + base64.b64encode(largest).decode()) == largest
        with pytest.raises(ImageTooLargeError):
            await read_inline(head + base64.b64encode(largest + b"\0").decode())

    async def test_percent_encoding_is_limited_too(self) -> None:
        with pytest.raises(ImageTooLargeError):
            await read_inline("data:image/jpeg," + "a" * (MAX_BYTES + 1))

    @settings(deadline=None)
    @given(st.text(max_size=50) | st.text(alphabet="dat:/.,;%=abAB9\ud800\0\n", max_size=80))
    async def test_any_text_is_bytes_or_a_documented_error(self, text: str) -> None:
        assert describe(text).isprintable()
        try:
            await read_inline(text)
        except InputError:
            return


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3 ",
        b"PK\x03\x04\x14\0\x06\0\x08",
        b"<svg xmlns='http://www.w3.org'>",
        bytes(range(16)),
    ],
    ids=["pdf", "docx", "svg", "padded"],
)
async def test_short_base64_of_what_is_no_picture_is_no_path(data: bytes) -> None:
    assert await read_inline(base64.b64encode(data).decode()) == data


class TestPaths:
    @pytest.mark.parametrize(
        "text",
        [
            "samples/face.jpg",
            "./samples/face.jpg",
            " samples/face.jpg\n",
            "samples/noending",
            "samples/gate 2026-12-01T08:30.jpg",
            "./samples/cam1:30.jpg",
        ],
    )
    async def test_a_file_in_a_root_is_read(self, sources: ImageSources, text: str) -> None:
        image = await sources.read(text)
        assert image.data == JPEG
        assert image.identifier == text.strip()

    async def test_absolute_paths_and_the_roots_own_name_work_from_anywhere(
        self, samples: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir("/")
        sources = ImageSources(roots=[Path("/nowhere"), samples], fetcher=fetcher, max_bytes=MAX_BYTES)
        for text in (str(samples / "face.jpg"), "samples/face.jpg"):
            assert (await sources.read(text)).data == JPEG

    async def test_a_root_beside_the_working_directory(self, samples: Path, fetcher: Fetcher) -> None:
        sources = ImageSources(roots=[Path("../elsewhere/samples")], fetcher=fetcher, max_bytes=MAX_BYTES)
        assert (await sources.read("../elsewhere/samples/face.jpg")).data == JPEG

    async def test_every_refusal_reads_the_same(self, sources: ImageSources, samples: Path) -> None:
        os.mkfifo(samples / "fifo.jpg")
        (samples / "link.jpg").symlink_to("../outside.jpg")
        (samples / "up").symlink_to("..")
        messages = set()
        for text in (
            "samples/missing.jpg",
            "samples",
            "samples/.",
            "outside.jpg",
            "samples/../outside.jpg",
            "samples/up/outside.jpg",
            "samples/link.jpg",
            "samples/fifo.jpg",
            "samples/face.jpg/x.jpg",
            "samples/a\0b.jpg",
            "samples/" + "x" * 300 + ".jpg",
            "samples-too/face.jpg",
            "/etc/passwd",
            "cam1:30.jpg",
            "file:samples/face.jpg",
            "javascript:alert(1)",
            "/proc/self/environ",
            "/dev/zero",
            "~/face.jpg",
            "\ud800.jpg",
            "nonsense",
        ):
            with pytest.raises(PathNotAllowedError) as caught:
                await sources.read(text)
            messages.add(str(caught.value))
        assert len(messages) == 1

    async def test_without_roots_the_message_names_the_setting(self, samples: Path, fetcher: Fetcher) -> None:
        sources = ImageSources(roots=(), fetcher=fetcher, max_bytes=MAX_BYTES)
        with pytest.raises(PathNotAllowedError, match="IMAGE_INPUT_ROOTS turns"):
            await sources.read("samples/face.jpg")

    async def test_the_size_is_limited(self, sources: ImageSources, samples: Path) -> None:
        (samples / "large.jpg").write_bytes(bytes(MAX_BYTES))
        assert len((await sources.read("samples/large.jpg")).data) == MAX_BYTES
        (samples / "large.jpg").write_bytes(bytes(MAX_BYTES + 1))
        with pytest.raises(ImageTooLargeError):
            await sources.read("samples/large.jpg")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.jpg",
        "gopher://example.com/a.jpg",
        "rtsp://camera.example/1",
        "http://127.0.0.1/a.jpg",
        "HTTPS://[::1]/a.jpg",
        "http:samples/face.jpg",
    ],
)
async def test_urls_that_are_not_fetched(sources: ImageSources, url: str) -> None:
    with pytest.raises(UrlNotAllowedError):
        await sources.read(url)


@pytest.mark.parametrize(
    ("source", "identifier"),
    [
        ("samples/a b.jpg", "samples/a b.jpg"),
        ("https://example.com:8443/a/b.jpg?token=1#x", "https://example.com:8443/a/b.jpg"),
        ("https://example.com/@a/b@2x.jpg?mail=me@example.com", "https://example.com/@a/b@2x.jpg"),
        ("https://me:secret@example.com:8443/a/@b.jpg?token=1#x", "https://b.jpg"),
        ("http://me:sec?ret@example.com/", "http://example.com/"),
        ("http://to/ken@example.com/", "http://example.com/"),
        ("me:secret@example.com/x.jpg", "example.com/x.jpg"),
        ("m_e:secret@example.com/x.jpg", "example.com/x.jpg"),
        ("jdbc:mysql://me:secret@example.com/x", "example.com/x"),
        ("samples/b@2x.jpg", "samples/b@2x.jpg"),
        ("http://p@ss@example.com/#a?b", "http://example.com/"),
        ("https://example.com?q=/x", "https://example.com"),
        ("ftp://user@example.com/x.jpg", "ftp://example.com/x.jpg"),
        ("a\nb.jpg", "a\N{REPLACEMENT CHARACTER}b.jpg"),
        ("\ud800.jpg", "\N{REPLACEMENT CHARACTER}.jpg"),
        (f"ftp://{'x' * 10_000}", f"ftp://{'x' * 4_090}"),
        # printf '\xff\xd8\xff' | sha256sum
        ("/9j/", "sha256:6e568e1f67fba258"),
        ("data:image/jpeg;base64,/9j/", "sha256:6e568e1f67fba258"),
    ],
)
def test_identifiers(source: str, identifier: str) -> None:
    assert describe(source) == identifier


@given(
    scheme=st.sampled_from(
        ["http://", "HTTPS:", "http:\\\\", "https:///", "ftp://", "jdbc:mysql://", "x_y://", "//", ""]
    ),
    user=st.text(alphabet="ab.1/?#@\\\\ %:[", min_size=1, max_size=12),
    password=st.text(alphabet="cd.2/?#@\\\\ %:[", max_size=12),
)
@example(scheme="", user="ab", password="//cd")
@example(scheme="http://", user="a", password="1.2/c@d")
def test_nothing_of_a_user_or_password_is_kept_however_it_is_written(scheme: str, user: str, password: str) -> None:
    assert not {*"abcd12"} & {*describe(f"{scheme}{user}:{password}@xyz.net/z.jpg").removeprefix(scheme)}


def test_inline_data_that_does_not_decode_is_never_quoted() -> None:
    for text in ("data:image/png;base64,*secret*", "data:nocomma", "*secret*" * 1_000):
        assert describe(text).startswith("sha256:")
        assert len(describe(text)) == len("sha256:") + 16
