"""Signatures: what botocore signs verifies, and nothing else does."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from facescreen.api.rekognition.faults import RekognitionFault
from facescreen.api.rekognition.sigv4 import MAX_SKEW, RawRequest, Signer, verify

KEY_ID, SECRET, REGION = "AKIDEXAMPLE", "a made-up secret/with+signs", "eu-central-1"
SECRETS = {"OTHER": "another made-up secret", KEY_ID: SECRET}
TARGET = "RekognitionService.ListCollections"

HEADER_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
HEADER_NAMES = st.from_regex(r"[Xx]-[A-Za-z]{1,8}", fullmatch=True).filter(
    lambda name: name.lower() != "x-amzn-trace-id"
)


def signed(
    *,
    body: bytes = b"{}",
    path: str = "/rekognition",
    headers: Mapping[str, str] | None = None,
    credentials: tuple[str, str] = (KEY_ID, SECRET),
    scope: tuple[str, str] = ("rekognition", REGION),
    token: str | None = None,
    before: Callable[[AWSRequest], None] = lambda _: None,
) -> RawRequest:
    """A request as botocore signs it and a server receives it."""
    request = AWSRequest("POST", f"http://127.0.0.1:8000{path}", {"X-Amz-Target": TARGET} | dict(headers or {}), body)
    before(request)
    SigV4Auth(Credentials(*credentials, token), *scope).add_auth(request)
    raw_path, _, query = path.partition("?")
    sent = [(b"host", b"127.0.0.1:8000")]
    sent += [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.items()]
    return RawRequest(method="POST", path=raw_path.encode(), query=query.encode(), headers=sent, body=body)


def signed_at(request: RawRequest) -> datetime:
    return datetime.strptime(request.header("x-amz-date") or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def check(request: RawRequest, *, late: timedelta = timedelta(0)) -> Signer:
    return verify(request, SECRETS, signed_at(request) + late)


def refusal(request: RawRequest, *, late: timedelta = timedelta(0)) -> str:
    with pytest.raises(RekognitionFault) as caught:
        check(request, late=late)
    assert caught.value.status == 400
    assert SECRET not in caught.value.message
    return f"{caught.value.name}: {caught.value.message}"


def with_header(request: RawRequest, name: str, value: str | None) -> RawRequest:
    """The same request with a header replaced, added or (None) taken away after it was signed."""
    others = [(key, old) for key, old in request.headers if key != name.encode()]
    return replace(request, headers=others if value is None else [*others, (name.encode(), value.encode())])


def edited(request: RawRequest, old: str, new: str) -> RawRequest:
    authorization = request.header("authorization") or ""
    assert old in authorization
    return with_header(request, "authorization", authorization.replace(old, new))


@given(
    body=st.binary(max_size=200),
    path=st.sampled_from(["/", "/rekognition", "/rekognition/", "/a%20b/~c/%C3%A9", "/rekognition?b=2&a=1&a=0&c"]),
    headers=st.dictionaries(HEADER_NAMES, HEADER_TEXT, max_size=3),
    secret=st.text(min_size=1, max_size=40),
    region=st.sampled_from(["us-east-1", "ap-northeast-3"]),
)
def test_what_botocore_signs_verifies(
    body: bytes, path: str, headers: dict[str, str], secret: str, region: str
) -> None:
    request = signed(
        body=body, path=path, headers=headers, credentials=("ANYBODY", secret), scope=("rekognition", region)
    )
    now = signed_at(request)
    assert verify(request, {"ANYBODY": secret}, now) == Signer("ANYBODY", region)
    with pytest.raises(RekognitionFault, match="does not match"):
        verify(request, {"ANYBODY": secret + "x"}, now)


@given(data=st.data(), body=st.binary(min_size=1, max_size=50))
def test_nothing_that_is_signed_can_be_changed(data: st.DataObject, body: bytes) -> None:
    request = signed(body=body, path="/rekognition?a=1", headers={"X-Extra": "1"})
    names = (request.header("authorization") or "").partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-target", "x-extra"} <= set(names)
    position = data.draw(st.integers(0, len(body) - 1))
    flipped = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
    changed = data.draw(
        st.sampled_from(
            [
                replace(request, body=flipped),
                replace(request, body=body[:-1]),
                replace(request, method="PUT"),
                replace(request, path=b"/rekognition/"),
                replace(request, query=b"a=2"),
                replace(request, query=b""),
                with_header(request, "host", "127.0.0.1:8001"),
                with_header(request, "x-amz-target", "RekognitionService.DeleteCollection"),
                with_header(request, "x-amz-date", f"{signed_at(request) + timedelta(seconds=1):%Y%m%dT%H%M%SZ}"),
                with_header(request, "x-extra", None),
                replace(request, headers=[*request.headers, (b"x-amz-target", b"RekognitionService.DeleteFaces")]),
                edited(request, f"/{REGION}/", "/us-east-1/"),
                edited(request, KEY_ID, "OTHER"),
                edited(request, "x-amz-target;x-extra", "x-amz-target"),
            ]
        )
    )
    assert refusal(changed).startswith("InvalidSignatureException: The request signature we calculated does not match")


@given(st.integers(0, 63), st.sampled_from("0123456789abcdefg\u00e9"))
def test_no_other_signature_will_do(position: int, digit: str) -> None:
    request = signed()
    signature = (request.header("authorization") or "")[-64:]
    other = signature[:position] + digit + signature[position + 1 :]
    if other == signature:
        assert check(request).access_key_id == KEY_ID
    else:
        assert refusal(edited(request, signature, other)).startswith("InvalidSignatureException")


@pytest.mark.parametrize("way", [-1, 1])
def test_the_clocks_may_differ_by_five_minutes_and_no_more(way: int) -> None:
    request = signed()
    assert check(request, late=way * MAX_SKEW) == Signer(KEY_ID, REGION)
    late = way * (MAX_SKEW + timedelta(seconds=1))
    told = "Signature expired: {} is now earlier than {} ({} - 5 min.)"
    if way < 0:
        told = "Signature not yet current: {} is still later than {} ({} + 5 min.)"
    at, now = signed_at(request), signed_at(request) + late
    stamps = [f"{moment:%Y%m%dT%H%M%SZ}" for moment in (at, now - way * MAX_SKEW, now)]
    assert refusal(request, late=late) == f"InvalidSignatureException: {told.format(*stamps)}"


@pytest.mark.parametrize("authorization", [None, "", "Basic Zm9vOmJhcg==", "Bearer abc"])
def test_an_unsigned_request_lacks_a_token(authorization: str | None) -> None:
    request = with_header(signed(), "authorization", authorization)
    assert refusal(request) == "MissingAuthenticationTokenException: Missing Authentication Token"


@pytest.mark.parametrize("name", ["Credential", "Signature", "SignedHeaders"])
def test_an_authorization_without_a_part_is_incomplete(name: str) -> None:
    told = f"IncompleteSignatureException: Authorization header requires '{name}' parameter."
    assert refusal(edited(signed(), f"{name}=", "Other=")) == told
    told_of_all = refusal(with_header(signed(), "authorization", "AWS4-HMAC-SHA256 nonsense,,=,=="))
    assert f"requires '{name}' parameter." in told_of_all


@pytest.mark.parametrize("date", [None, "yesterday", "2026-01-01T00:00:00Z", "20261301T000000Z"])
def test_a_request_without_a_readable_date_is_incomplete(date: str | None) -> None:
    request = with_header(signed(), "x-amz-date", date)
    with pytest.raises(RekognitionFault, match="IncompleteSignatureException"):
        verify(request, SECRETS, datetime.now(UTC))


def test_other_algorithms_are_not_supported() -> None:
    for algorithm in ("AWS4-HMAC-SHA512", "AWS4-ECDSA-P256-SHA256"):
        told = refusal(edited(signed(), "AWS4-HMAC-SHA256", algorithm))
        assert told.startswith("IncompleteSignatureException: Unsupported AWS 'algorithm'")


@pytest.mark.parametrize("name", ["host", "x-amz-date", "x-amz-target"])
def test_what_says_where_when_and_what_must_be_signed(name: str) -> None:
    request = edited(signed(), "host;x-amz-date;x-amz-target", "host;x-amz-date;x-amz-target".replace(name, "x-none"))
    told = f"InvalidSignatureException: '{name}' must be a 'SignedHeader' in the AWS Authorization."
    assert refusal(request) == told


def test_a_header_of_amazon_that_was_added_on_the_way_is_refused() -> None:
    told = refusal(with_header(signed(), "x-amz-other", "1"))
    assert told == "InvalidSignatureException: 'x-amz-other' must be a 'SignedHeader' in the AWS Authorization."


def test_the_scope_must_be_of_this_service_and_day() -> None:
    request = signed()
    today = f"{signed_at(request):%Y%m%d}"
    cases = {
        f"{KEY_ID}/": "IncompleteSignatureException: Credential must have exactly 5 slash-delimited elements",
        f"{KEY_ID}/19700101/": "InvalidSignatureException: Date in Credential scope does not match",
    }
    for credential, told in cases.items():
        assert refusal(edited(request, f"{KEY_ID}/{today}/", credential)).startswith(told)
    assert "valid terminator: 'aws4_request'" in refusal(edited(request, "/aws4_request", "/aws5_request"))
    assert "to a valid region" in refusal(edited(request, f"/{REGION}/", "/Mars!/"))
    assert "correct service: 'rekognition'" in refusal(signed(scope=("s3", REGION)))


def test_an_unknown_key_and_a_session_token_are_not_recognized() -> None:
    told = "UnrecognizedClientException: The security token included in the request is invalid."
    assert refusal(signed(credentials=("NOBODY", SECRET))) == told
    assert refusal(signed(token="session")) == told


def test_a_declared_hash_must_be_that_of_the_body() -> None:
    def declare(value: str) -> Callable[[AWSRequest], None]:
        return lambda request: request.headers.add_header("X-Amz-Content-SHA256", value)

    body_hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}
    assert check(signed(before=declare(body_hash))) == Signer(KEY_ID, REGION)
    for value in ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", body_hash.upper(), ""):
        assert "'x-amz-content-sha256' header does not match" in refusal(signed(before=declare(value)))
