"""AWS Signature Version 4, the verifying side: pure, and for requests that are signed in their headers.

The order of the checks, the names and the messages are those of AWS's JSON services. One thing is stricter: every
``x-amz-*`` header has to be signed, so that nobody on the way can turn a request into another operation.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import quote

from facescreen.api.rekognition.faults import RekognitionFault

MAX_SKEW = timedelta(minutes=5)
"""How far the client's clock may be from ours, either way."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "rekognition"
_TERMINATOR = "aws4_request"
_TIMESTAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as it came over the wire.

    Attributes:
        path: percent-encoded, as received.
        query: what follows the question mark, as received.
        headers: names in any case; a name may come more than once.
    """

    method: str
    path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value as it is signed (trimmed, inner blanks as one, several values joined); None if there is none."""
        values = [value.decode("latin-1") for key, value in self.headers if key.lower() == name.encode("latin-1")]
        return ",".join(" ".join(value.split()) for value in values) if values else None


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a request, and for which region."""

    access_key_id: str
    region: str


def claimed(request: RawRequest, secrets: Mapping[str, str], now: datetime) -> Signer:
    """Who says to have signed the request, which its headers tell; whether that is so, :func:`verify` does.

    Raises:
        RekognitionFault: as :func:`verify` does for a request that no body can save.
    """
    authorization = _Authorization.of(request)
    _require_current(authorization.timestamp, now)
    _require_signed(request, authorization.signed_headers)
    if authorization.algorithm != _ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': only {_ALGORITHM} is supported.")
    signer = _signer(authorization)
    # Configured keys are permanent: who sends a session token has signed with others.
    if signer.access_key_id not in secrets or request.header("x-amz-security-token") is not None:
        raise RekognitionFault("UnrecognizedClientException", "The security token included in the request is invalid.")
    return signer


def verify(request: RawRequest, secrets: Mapping[str, str], now: datetime) -> Signer:
    """Who signed the request.

    Args:
        request: as it came over the wire; a proxy that changed path or ``Host`` has broken its signature.
        secrets: secret by access key id.
        now: with its time zone.

    Raises:
        RekognitionFault: the request is not signed, not by a known key, not for this service, not now, or not as it is.
    """
    signer = claimed(request, secrets, now)
    authorization = _Authorization.of(request)
    payload = sha256(request.body).hexdigest()
    if request.header("x-amz-content-sha256") not in {None, payload}:
        raise _invalid("The provided 'x-amz-content-sha256' header does not match what was computed.")
    signature = _signature(
        secrets[signer.access_key_id], authorization, canonical=_canonical(request, authorization, payload)
    )
    if not hmac.compare_digest(signature.encode(), authorization.signature.encode()):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
        )
    return signer


@dataclass(frozen=True, slots=True)
class _Authorization:
    """The ``Authorization`` header, and the time that it is for."""

    algorithm: str
    scope: Sequence[str]
    signed_headers: Sequence[str]
    signature: str
    timestamp: str

    @classmethod
    def of(cls, request: RawRequest) -> "_Authorization":
        algorithm, _, rest = (request.header("authorization") or "").partition(" ")
        if not algorithm.startswith("AWS4-"):
            raise RekognitionFault("MissingAuthenticationTokenException", "Missing Authentication Token")
        given = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        timestamp = request.header("x-amz-date")
        missing = [
            f"Authorization header requires '{name}' parameter."
            for name in ("Credential", "Signature", "SignedHeaders")
            if not given.get(name)
        ]
        if not timestamp:
            missing.append("Authorization header requires existence of a 'X-Amz-Date' header.")
        if missing or not timestamp:
            raise _incomplete(" ".join(missing))
        return cls(
            algorithm=algorithm,
            scope=given["Credential"].split("/"),
            signed_headers=given["SignedHeaders"].split(";"),
            signature=given["Signature"],
            timestamp=timestamp,
        )


def _require_current(timestamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(timestamp, _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        raise _incomplete("Date must be in ISO-8601 'basic format'.") from None
    now = now.astimezone(UTC)
    earliest, latest = now - MAX_SKEW, now + MAX_SKEW
    skew = f"{MAX_SKEW // timedelta(minutes=1)} min."
    if signed_at < earliest:
        raise _invalid(
            f"Signature expired: {timestamp} is now earlier than {earliest:{_TIMESTAMP}} ({now:{_TIMESTAMP}} - {skew})"
        )
    if signed_at > latest:
        raise _invalid(
            f"Signature not yet current: {timestamp} is still later than {latest:{_TIMESTAMP}} "
            f"({now:{_TIMESTAMP}} + {skew})"
        )


def _require_signed(request: RawRequest, names: Sequence[str]) -> None:
    amazon = {key.decode("latin-1").lower() for key, _ in request.headers if key.lower().startswith(b"x-amz-")}
    for name in sorted({"host", *amazon} - set(names)):
        raise _invalid(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")


def _signer(authorization: _Authorization) -> Signer:
    if len(authorization.scope) != 5:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
        )
    access_key_id, date, region, service, terminator = authorization.scope
    if not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise _invalid("Credential should be scoped to a valid region.")
    if service != _SERVICE:
        raise _invalid(f"Credential should be scoped to correct service: '{_SERVICE}'.")
    if terminator != _TERMINATOR:
        raise _invalid(f"Credential should be scoped with a valid terminator: '{_TERMINATOR}'.")
    if date != authorization.timestamp[:8]:
        raise _invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
    return Signer(access_key_id, region)


def _canonical(request: RawRequest, authorization: _Authorization, payload: str) -> str:
    pairs = sorted(pair.partition("=")[::2] for pair in request.query.decode("latin-1").split("&") if pair)
    return "\n".join(
        (
            request.method,
            # Encoded a second time, as for every service but S3.
            quote(request.path, safe="/~"),
            "&".join(f"{key}={value}" for key, value in pairs),
            *(f"{name}:{request.header(name) or ''}" for name in authorization.signed_headers),
            "",
            ";".join(authorization.signed_headers),
            payload,
        )
    )


def _signature(secret: str, authorization: _Authorization, *, canonical: str) -> str:
    scope = authorization.scope[1:]
    to_sign = "\n".join((_ALGORITHM, authorization.timestamp, "/".join(scope), sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in (*scope, to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _incomplete(message: str) -> RekognitionFault:
    return RekognitionFault("IncompleteSignatureException", message)


def _invalid(message: str) -> RekognitionFault:
    return RekognitionFault("InvalidSignatureException", message)
