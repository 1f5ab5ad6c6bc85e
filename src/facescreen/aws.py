"""AWS through boto3: calls off the event loop, within a deadline, and every fault in our words.

Nothing here loads boto3 before the first call.
"""

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Self

from facescreen.config import Settings
from facescreen.errors import (
    AwsAccessDeniedError,
    AwsBucketMissingError,
    AwsCredentialsError,
    AwsError,
    AwsQuotaError,
    AwsServiceError,
    AwsThrottledError,
    AwsTimeoutError,
    AwsUnreachableError,
)
from facescreen.lifeline import require_wanted

Service = Literal["rekognition", "s3"]

CONNECTIONS = 16
"""Calls of one service that are under way at the same time."""

ATTEMPTS = 3
"""Of one call, the first one included: the default of the ``standard`` retry mode."""

_ADVICE: Mapping[type[AwsError], str] = {
    AwsThrottledError: "{service} asks to be called less often; try again shortly",
    AwsTimeoutError: "{service} did not answer in time; try again shortly",
    AwsUnreachableError: "{service} cannot be reached; check the network, AWS_REGION and AWS_ENDPOINT_URL",
    AwsServiceError: "{service} failed; try again later",
    AwsCredentialsError: (
        "{service} cannot be called with the AWS credentials: they are missing, wrong or expired, or this machine's "
        "clock is wrong"
    ),
    AwsAccessDeniedError: "the AWS credentials do not allow {operation} on {service}; allow it in IAM",
    AwsBucketMissingError: "the bucket does not exist; create it or correct AWS_S3_BUCKET_NAME",
    AwsQuotaError: "a limit of the AWS account is reached in {service}; remove what is not needed or have it raised",
}

_BY_CODE: Mapping[str, type[AwsError]] = {
    code: error
    for error, codes in {
        AwsThrottledError: (
            "BandwidthLimitExceeded PriorRequestNotComplete ProvisionedThroughputExceededException "
            "RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown ThrottledException Throttling "
            "ThrottlingException TooManyRequestsException"
        ),
        AwsTimeoutError: "RequestTimeout RequestTimeoutException",
        AwsCredentialsError: (
            "AuthFailure AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException IncompleteSignature "
            "IncompleteSignatureException InvalidAccessKeyId InvalidClientTokenId InvalidSignatureException "
            "InvalidToken MissingAuthenticationToken MissingAuthenticationTokenException RequestExpired "
            "RequestInTheFuture RequestTimeTooSkewed SignatureDoesNotMatch TokenRefreshRequired "
            "UnrecognizedClientException"
        ),
        AwsAccessDeniedError: "AccessDenied AccessDeniedException AllAccessDisabled UnauthorizedOperation",
        AwsBucketMissingError: "InvalidBucketName NoSuchBucket",
        AwsQuotaError: "LimitExceededException ServiceQuotaExceededException TooManyBuckets",
    }.items()
    for code in codes.split()
}
"""Error codes of Rekognition, S3 and those that all services share."""

_BY_STATUS: Mapping[int, type[AwsError]] = {401: AwsCredentialsError, 403: AwsAccessDeniedError, 429: AwsThrottledError}
"""For answers whose code says nothing."""

_BY_EXCEPTION: Mapping[str, type[AwsError]] = {
    name: error
    for error, names in {
        AwsTimeoutError: "ConnectTimeoutError ReadTimeoutError",
        AwsUnreachableError: (
            "BaseEndpointResolverError ConnectionError EndpointProviderError HTTPClientError IncompleteReadError "
            "InvalidRegionError ProtocolError"
        ),
        AwsCredentialsError: (
            "ConfigNotFound ConfigParseError CredentialRetrievalError InvalidConfigError LoginError "
            "MetadataRetrievalError NoAuthTokenError NoCredentialsError PartialCredentialsError ProfileNotFound "
            "RefreshWithMFAUnsupportedError SSOError TokenRetrievalError UnknownCredentialError"
        ),
    }.items()
    for name in names.split()
}
"""Exceptions of botocore and urllib3 and their base classes, by name so that neither need be loaded."""


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """Where AWS is and how long it may take. Credentials come from boto3's usual chain and nowhere else.

    Args:
        region: ``None`` is what that chain says.
        endpoint_urls: addresses to call instead of AWS.
        connect_timeout_seconds, read_timeout_seconds: of each attempt.
        deadline_seconds: of a call with all its attempts.
    """

    region: str | None
    endpoint_urls: Mapping[Service, str]
    connect_timeout_seconds: float
    read_timeout_seconds: float
    deadline_seconds: float

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        urls: dict[Service, str | None] = {
            "rekognition": settings.aws_endpoint_url_rekognition or settings.aws_endpoint_url,
            "s3": settings.aws_endpoint_url_s3 or settings.aws_endpoint_url,
        }
        return cls(
            region=settings.aws_region,
            endpoint_urls={service: url for service, url in urls.items() if url},
            connect_timeout_seconds=settings.aws_connect_timeout_seconds,
            read_timeout_seconds=settings.aws_read_timeout_seconds,
            deadline_seconds=settings.aws_deadline_seconds,
        )


class AwsRefusal(Exception):  # noqa: N818 - not a fault by itself: it is up to the caller what it means
    """The service refuses a call for a reason of its own, such as ``ResourceNotFoundException``.

    It never leaves the adapter of the service.

    Args:
        message: in AWS's words, which may quote what was sent.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


class AwsClient:
    """One service of AWS. Safe for concurrent use; close it when done.

    The client of boto3 is made with the first call, and again after a refusal of the credentials, since boto3 reads
    files with credentials only once.
    """

    def __init__(self, service: Service, access: AwsAccess) -> None:
        self._service = service
        self._access = access
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix=f"aws-{service}")
        self._making = threading.Lock()
        self._client: Any = None
        self._under_way = threading.local()

    async def call(self, operation: str, /, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever AWS takes
        """What the service answers; a streamed ``Body`` is bytes.

        Nothing is sent any more once this has returned, raised or been cancelled, but what was sent before may still
        take effect.

        Args:
            operation: name of boto3's method, such as ``detect_faces``.

        Raises:
            AwsError: the kind that fits, whatever went wrong.
            FileNotFoundError: S3 has no object of this key.
            AwsRefusal: the service refuses for another reason.
        """
        require_wanted()
        given_up = threading.Event()
        try:
            async with asyncio.timeout(self._access.deadline_seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._invoke, operation, parameters, given_up
                )
        except TimeoutError:
            raise self._error(AwsTimeoutError, operation) from None
        finally:
            given_up.set()

    async def aclose(self) -> None:
        """Close the connections, after the calls under way, which end with their timeouts."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._discard(self._client)

    def _invoke(self, operation: str, parameters: dict[str, Any], given_up: threading.Event) -> dict[str, Any]:
        client = None
        self._under_way.given_up = given_up
        try:
            client = self._connected()
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
            if hasattr(answer.get("Body"), "read"):
                with closing(answer["Body"]) as body:
                    answer["Body"] = body.read()
        # Beside its own errors boto3 lets through whatever a malformed answer makes of its parsers.
        except Exception as error:
            translated = self._translated(error, operation)
            if isinstance(translated, AwsCredentialsError):
                self._discard(client)
            raise translated from error
        return answer

    def _connected(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        with self._making:
            if self._client is None:
                self._client = self._made()
            return self._client

    def _discard(self, client: Any) -> None:  # noqa: ANN401
        with self._making:
            if client is not None and client is self._client:
                client.close()
                self._client = None

    def _made(self) -> Any:  # noqa: ANN401
        import boto3  # noqa: PLC0415 - only who uses AWS should wait for it
        from botocore.config import Config  # noqa: PLC0415

        url = self._access.endpoint_urls.get(self._service)
        config = Config(
            connect_timeout=self._access.connect_timeout_seconds,
            read_timeout=self._access.read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            # Only AWS has a host name for every bucket.
            s3={"addressing_style": "path"} if url else None,
        )
        client = boto3.Session().client(self._service, region_name=self._access.region, endpoint_url=url, config=config)
        client.meta.events.register("before-send", self._send_unless_given_up)
        if self._service == "rekognition":
            client.meta.events.register("before-parse", _require_json_object)
        return client

    def _send_unless_given_up(self, **_: object) -> None:
        # A retry that nobody waits for could undo what was done since, such as the clearing up after a timeout.
        if self._under_way.given_up.is_set():
            raise TimeoutError

    def _translated(self, error: Exception, operation: str) -> Exception:
        ancestry = [ancestor.__name__ for ancestor in type(error).__mro__]
        if "ClientError" in ancestry:
            return self._refused(error)
        if self._service == "s3" and "ParamValidationError" in ancestry:
            return self._error(AwsBucketMissingError, operation)  # the name of the bucket can be none
        kind = next((_BY_EXCEPTION[name] for name in ancestry if name in _BY_EXCEPTION), None)
        if kind is None and isinstance(error, RuntimeError):
            kind = AwsCredentialsError  # refreshed, and expired again, is a bare RuntimeError of botocore
        elif kind is None and str(error).startswith("Invalid endpoint"):
            kind = AwsUnreachableError
        return self._error(kind or AwsServiceError, operation)

    def _refused(self, error: Any) -> Exception:  # noqa: ANN401 - botocore.exceptions.ClientError
        told = error.response.get("Error", {})
        code = told.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "NoSuchKey":
            return FileNotFoundError("no object has this key")
        kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (AwsServiceError if status >= 500 else None)
        return self._error(kind, error.operation_name) if kind else AwsRefusal(code, told.get("Message", ""))

    def _error(self, kind: type[AwsError], operation: str) -> AwsError:
        service = {"rekognition": "Rekognition", "s3": "S3"}[self._service]
        return kind(_ADVICE[kind].format(service=service, operation=operation))


def _require_json_object(response_dict: Mapping[str, Any], **_: object) -> None:
    """Refuse successes that are none: botocore takes what it cannot parse for an answer without members."""
    if response_dict["status_code"] < 300 and not isinstance(json.loads(response_dict["body"] or b"{}"), dict):
        raise TypeError("not a JSON object")
