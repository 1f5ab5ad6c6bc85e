"""The protocol over a real socket: the real boto3, and requests that it would never send."""

import base64
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest
import uvicorn
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationNotFoundError
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from facescreen import errors
from facescreen.acting import ANYBODY, actor
from facescreen.api.bodies import MAX_JSON_VALUES
from facescreen.api.rate_limits import RateLimit, RateLimits
from facescreen.api.rekognition.attempts import Attempts
from facescreen.api.rekognition.endpoint import Caller, Operation, RekognitionEndpoint
from facescreen.api.rekognition.faults import RekognitionFault
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.factory import Services
from facescreen.services.trail import TrailService
from tests import conftest
from tests.at_rest import events

KEY_ID, SECRET = "AKIDEXAMPLE", "a made-up secret"
KEYS = {KEY_ID: SECRET}
CONTENT_TYPE = "application/x-amz-json-1.1"
UNSIGNED_HEADERS = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": "RekognitionService.ListCollections"}
ANY_NUMBER = RateLimits(per_address=RateLimit(""), per_key=RateLimit(""), failures=RateLimit(""))
NO_RETRIES = Config(retries={"total_max_attempts": 1})

Answer = Mapping[str, Any] | Exception


@dataclass
class Desk:
    """Operations that note what they are asked, and give or raise the answers in turn, the last one for ever."""

    answers: list[Answer] = field(default_factory=lambda: [{}])
    asked: list[tuple[str, dict[str, Any], Caller]] = field(default_factory=list)
    actors: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.asked.clear()
        self.actors.clear()
        self.answers[:] = [{}]

    def operations(self) -> dict[str, Operation]:
        names = ("CreateCollection", "DescribeCollection", "DetectFaces", "ListCollections", "SearchFaces")
        return {name: self._operation(name) for name in names}

    def _operation(self, name: str) -> Operation:
        async def operation(request: dict[str, Any], caller: Caller) -> Mapping[str, Any]:
            self.asked.append((name, request, caller))
            self.actors.append(actor.get())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return operation


@contextmanager
def serving(app: Starlette) -> Iterator[int]:
    """The application on a port of this machine, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", access_log=False, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, Desk]]:
    """An endpoint at ``/rekognition`` that wants signatures, and one at ``/lenient`` that takes unsigned requests."""
    desk = Desk()
    strict = RekognitionEndpoint(desk.operations(), KEYS, rate_limits=ANY_NUMBER, allow_unsigned_on_loopback=False)
    lenient = RekognitionEndpoint(desk.operations(), KEYS, rate_limits=ANY_NUMBER, allow_unsigned_on_loopback=True)
    paths = {"/rekognition": strict, "/rekognition/": strict, "/lenient": lenient, "/lenient/": lenient}
    with serving(Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()])) as port:
        yield port, desk


@pytest.fixture
def port(server: tuple[int, Desk]) -> int:
    return server[0]


@pytest.fixture
def desk(server: tuple[int, Desk]) -> Desk:
    server[1].clear()
    return server[1]


ClientFactory = Callable[..., Any]


@pytest.fixture
def connect(port: int) -> Iterator[ClientFactory]:
    """Clients as anybody makes them; they are closed in the end."""
    made: list[Any] = []

    def client(
        path: str = "/rekognition", *, key: str = KEY_ID, secret: str = SECRET, config: Config = NO_RETRIES
    ) -> Any:
        made.append(
            boto3.client(
                "rekognition",
                endpoint_url=f"http://127.0.0.1:{port}{path}",
                region_name="eu-west-1",
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=config,
            )
        )
        return made[-1]

    yield client
    for each in made:
        each.close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    document: dict[str, Any]


def send(port: int, body: bytes | str = b"{}", *, method: str = "POST", **headers: str | None) -> Reply:
    """What the lenient endpoint answers to this, whatever it is; ``headers`` replace, add or (None) leave out."""
    given = UNSIGNED_HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        sent = {name: value for name, value in given.items() if value is not None}
        connection.request(method, "/lenient", body, sent)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, told, json.loads(response.read()))


@asynccontextmanager
async def asking(desk: Desk | None = None, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client on this machine of an endpoint that wants signatures unless told otherwise."""
    given: dict[str, Any] = {"rate_limits": ANY_NUMBER, "allow_unsigned_on_loopback": False} | options
    app = RekognitionEndpoint((desk or Desk()).operations(), KEYS, **given)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


def refused(call: Callable[[], object]) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value


def test_boto3_is_answered(connect: ClientFactory, desk: Desk) -> None:
    desk.answers = [{"StatusCode": 200, "CollectionArn": "arn:x", "FaceModelVersion": None}]
    answer = connect().create_collection(CollectionId="staff", Tags={"für": "jeden Tag"})
    metadata = answer.pop("ResponseMetadata")
    assert answer == {"StatusCode": 200, "CollectionArn": "arn:x"}
    assert metadata["HTTPHeaders"]["content-type"] == CONTENT_TYPE
    assert metadata["RequestId"] == metadata["HTTPHeaders"]["x-amzn-requestid"]
    asked = {"CollectionId": "staff", "Tags": {"für": "jeden Tag"}}
    assert desk.asked == [("CreateCollection", asked, Caller("eu-west-1", KEY_ID))]


def test_moments_and_bytes_arrive(connect: ClientFactory, desk: Desk) -> None:
    created = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC)
    desk.answers = [{"CreationTimestamp": created, "FaceCount": 2**40}]
    description = connect().describe_collection(CollectionId="c")
    assert (description["CreationTimestamp"], description["FaceCount"]) == (created, 2**40)
    photo = bytes(range(256)) * 100
    desk.answers = [{"FaceDetails": []}]
    connect().detect_faces(Image={"Bytes": photo})
    assert desk.asked[-1][:2] == ("DetectFaces", {"Image": {"Bytes": photo}})


@pytest.mark.parametrize("path", ["/rekognition", "/rekognition/"])
def test_either_spelling_of_the_path_is_signed_as_it_is_sent(connect: ClientFactory, desk: Desk, path: str) -> None:
    connect(path).list_collections()
    assert len(desk.asked) == 1


def test_wrong_keys_are_refused(connect: ClientFactory, desk: Desk) -> None:
    for path in ("/rekognition", "/lenient"):
        wrong = refused(connect(path, secret="another secret").list_collections)
        assert wrong.response["Error"]["Code"] == "InvalidSignatureException"
        unknown = refused(connect(path, key="AKIDUNKNOWN").list_collections)
        assert unknown.response["Error"]["Code"] == "UnrecognizedClientException"
        assert unknown.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not desk.asked


def test_unsigned_requests_are_answered_where_they_are_allowed(connect: ClientFactory, desk: Desk) -> None:
    unsigned = Config(signature_version=UNSIGNED).merge(NO_RETRIES)
    connect("/lenient", config=unsigned).list_collections(MaxResults=3)
    assert desk.asked == [("ListCollections", {"MaxResults": 3}, Caller("us-east-1", None))]
    error = refused(connect("/rekognition", config=unsigned).list_collections)
    assert error.response["Error"]["Code"] == "MissingAuthenticationTokenException"
    assert len(desk.asked) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Forwarded", "for=192.0.2.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Client-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("Origin", "http://localhost:3000"),
        ("Origin", "null"),
        ("Host", "faces.example"),
        ("Host", "192.0.2.1:8000"),
        ("Host", "not_a_name.example"),
        ("Host", ""),
        ("Authorization", ""),
    ],
)
def test_unsigned_requests_that_may_come_from_elsewhere_are_refused(
    port: int, desk: Desk, name: str, value: str
) -> None:
    assert send(port).status == 200
    reply = send(port, **{name: value})
    assert (reply.status, reply.document["__type"]) == (400, "MissingAuthenticationTokenException")
    assert len(desk.asked) == 1


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        ("127.0.0.1", "localhost:8000", 200),
        ("127.8.9.1", "127.0.0.1", 200),
        ("::1", "[::1]:8000", 200),
        ("::ffff:127.0.0.1", "localhost", 200),
        ("192.0.2.1", "localhost", 400),
        ("::ffff:192.0.2.1", "localhost", 400),
        ("2001:db8::1", "localhost", 400),
        ("", "localhost", 400),
        ("127.0.0.1", "localhost.example", 400),
    ],
)
async def test_only_this_machine_may_leave_requests_unsigned(address: str, host: str, status: int) -> None:
    app = RekognitionEndpoint(Desk().operations(), KEYS, rate_limits=ANY_NUMBER, allow_unsigned_on_loopback=True)
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        response = await client.post("/", content=b"{}", headers=UNSIGNED_HEADERS)
    assert response.status_code == status


async def test_unsigned_requests_name_one_host() -> None:
    app = RekognitionEndpoint(Desk().operations(), KEYS, rate_limits=ANY_NUMBER, allow_unsigned_on_loopback=True)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        hosts = [("Host", "localhost"), ("Host", "faces.example")]
        response = await client.post("/", content=b"{}", headers=[*UNSIGNED_HEADERS.items(), *hosts])
    assert (response.status_code, response.json()["__type"]) == (400, "MissingAuthenticationTokenException")


def test_operations_that_are_not_served_are_unknown(connect: ClientFactory, port: int, desk: Desk) -> None:
    error = refused(lambda: connect().detect_labels(Image={"Bytes": b"photo"}))
    assert error.response["Error"]["Code"] == "UnknownOperationException"
    served = "CreateCollection, DescribeCollection, DetectFaces, ListCollections, SearchFaces"
    assert error.response["Error"]["Message"] == f"facescreen has none of this name; its operations are {served}"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error.response["ResponseMetadata"]["RequestId"]
    targets = ("RekognitionService.Nonsense", "Other.ListCollections", "ListCollections", "", None)
    for target in targets:
        reply = send(port, X_Amz_Target=target)
        assert reply.status == 400
        assert reply.document["__type"] == "UnknownOperationException"
        assert served in reply.document["Message"]
        assert reply.headers["x-amzn-errortype"] == "UnknownOperationException"
    assert not desk.asked


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_not_of_the_protocol(port: int, desk: Desk, method: str) -> None:
    reply = send(port, method=method)
    assert (reply.status, reply.document["__type"]) == (404, "UnknownOperationException")
    assert "POST with Content-Type application/x-amz-json-1.1" in reply.document["Message"]
    assert not desk.asked


def test_the_content_type_may_name_its_charset(port: int, desk: Desk) -> None:
    assert send(port, Content_Type=f"{CONTENT_TYPE}; charset=UTF-8").status == 200


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-amz-json-1.0", "text/plain"])
def test_other_content_types_are_not_of_the_protocol(port: int, desk: Desk, content_type: str | None) -> None:
    # A page in a browser can send these, and no others, without asking first.
    reply = send(port, Content_Type=content_type)
    assert (reply.status, reply.document["__type"]) == (404, "UnknownOperationException")
    assert "POST with Content-Type application/x-amz-json-1.1" in reply.document["Message"]
    assert not desk.asked


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe{}",
        b'{"MaxResults": NaN}',
        b'{"MaxResults": 1' + b"0" * 5000 + b"}",
        b"[" * 200_000,
        b"[]",
        b"null",
        b'{"MaxResults": "3"}',
        b'{"MaxResults": 1.5}',
        b'{"MaxResults": true}',
        b'{"MaxResults": 99999999999}',
        b'{"NextToken": {}}',
        b'{"NextToken": "\\ud800"}',
    ],
    ids=range(15),
)
def test_what_is_not_json_of_the_right_types_is_refused(port: int, desk: Desk, body: bytes) -> None:
    reply = send(port, body)
    assert (reply.status, reply.document["__type"]) == (400, "SerializationException")
    assert not desk.asked


@pytest.mark.parametrize(
    "values",
    [b"{}," * MAX_JSON_VALUES + b"0", b",".join([b"[" * 500 + b"]" * 500] * (MAX_JSON_VALUES // 500))],
    ids=["side by side", "in each other"],
)
def test_documents_of_too_many_values_are_not_looked_at(port: int, desk: Desk, values: bytes) -> None:
    reply = send(port, b'{"Unknown": [%s]}' % values)
    assert (reply.status, reply.document["__type"]) == (400, "SerializationException")
    assert reply.document["Message"] == "the request body has more than 10,000 values"
    assert not desk.asked


def test_what_breaks_a_constraint_is_refused(connect: ClientFactory, port: int, desk: Desk) -> None:
    error = refused(lambda: connect().describe_collection(CollectionId="no spaces"))
    assert error.response["Error"]["Code"] == "ValidationException"
    assert error.response["Error"]["Message"] == (
        "1 validation error detected: Value 'no spaces' at 'collectionId' failed to satisfy constraint: "
        r"Member must satisfy regular expression pattern: [a-zA-Z0-9_.\-]+"
    )
    large = base64.b64encode(bytes(5_242_881)).decode()
    reply = send(port, json.dumps({"Image": {"Bytes": large}}), X_Amz_Target="RekognitionService.DetectFaces")
    assert reply.document["Message"] == (
        "1 validation error detected: Value at 'image.bytes' failed to satisfy constraint: "
        "Member must have length less than or equal to 5242880"
    )
    reply = send(port, '{"Image": {"Bytes": "no base64!"}}', X_Amz_Target="RekognitionService.DetectFaces")
    assert reply.document["__type"] == "SerializationException"
    assert not desk.asked


def test_faults_of_operations_become_exceptions_of_boto3(connect: ClientFactory, desk: Desk) -> None:
    client = connect()
    desk.answers = [RekognitionFault("ResourceNotFoundException", "The collection id: c does not exist")]
    with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
        client.describe_collection(CollectionId="c")
    response = caught.value.response
    code = "ResourceNotFoundException"
    assert response["Error"] == {"Code": code, "Message": "The collection id: c does not exist"}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == code


def test_the_body_of_a_fault_has_every_member_that_rekognition_sends(port: int, desk: Desk) -> None:
    desk.answers = [RekognitionFault("AccessDeniedException", "no")]
    reply = send(port)
    code, request_id = "AccessDeniedException", reply.headers["x-amzn-requestid"]
    assert reply.document == {"__type": code, "Code": code, "Message": "no", "Logref": request_id}


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.OverloadedError("m"), "ThrottlingException", 500),
        (errors.DatabaseBusyError("m"), "ThrottlingException", 500),
        (errors.AwsThrottledError("m"), "ThrottlingException", 500),
        (errors.StorageFullError("m"), "InternalServerError", 500),
        (errors.AwsTimeoutError("m"), "InternalServerError", 500),
        (errors.WeightsMissingError("m"), "InternalServerError", 500),
        (errors.ImageTooLargeError("m"), "ImageTooLargeException", 400),
        (errors.UnsupportedFormatError("m"), "InvalidImageFormatException", 400),
        (errors.ImageUndecodableError("m"), "InvalidImageFormatException", 400),
        (errors.NoFaceError("m"), "InvalidParameterException", 400),
        (errors.InvalidThresholdError("m"), "InvalidParameterException", 400),
        (errors.CollectionNotFoundError("m"), "ResourceNotFoundException", 400),
        (errors.CollectionExistsError("m"), "ResourceAlreadyExistsException", 400),
        (errors.EntryPendingError("m"), "ConflictException", 400),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_our_errors_have_names_of_aws(
    connect: ClientFactory, desk: Desk, error: errors.FacescreenError, code: str, status: int
) -> None:
    desk.answers = [error]
    response = refused(connect().list_collections).response
    assert response["Error"] == {"Code": code, "Message": "m"}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize("answer", [RuntimeError("a secret path"), {"CollectionIds": [1]}, {"Unknown": 1}])
def test_the_unforeseen_is_logged_and_not_told(
    connect: ClientFactory, desk: Desk, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    desk.answers = [answer]
    response = refused(connect().list_collections).response
    request_id = response["ResponseMetadata"]["RequestId"]
    told = f"unexpected error; it is logged as request {request_id}"
    assert response["Error"] == {"Code": "InternalServerError", "Message": told}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 500
    (record,) = (record for record in caplog.records if record.message == "rekognition_request_failed")
    assert vars(record)["request_id"] == request_id
    assert record.exc_info


def test_boto3_tries_again_when_there_is_too_much_to_do(connect: ClientFactory, desk: Desk) -> None:
    desk.answers = [errors.OverloadedError("busy"), {"CollectionIds": ["c"]}]
    standard = Config(retries={"mode": "standard", "total_max_attempts": 2})
    answer = connect(config=standard).list_collections()
    assert answer["CollectionIds"] == ["c"]
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


def test_the_access_key_is_who_acts(connect: ClientFactory, port: int, desk: Desk) -> None:
    connect().list_collections()
    httpx.post(f"http://127.0.0.1:{port}/lenient", content="{}", headers=UNSIGNED_HEADERS).raise_for_status()
    assert desk.actors == [f"rekognition:{KEY_ID}", ANYBODY]


async def test_whoever_is_gone_is_not_answered() -> None:
    desk = Desk()
    endpoint = RekognitionEndpoint(desk.operations(), KEYS, rate_limits=ANY_NUMBER, allow_unsigned_on_loopback=True)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def note(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    given = {"host": "localhost"} | {name.lower(): value for name, value in UNSIGNED_HEADERS.items()}
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    request = {"type": "http", "method": "POST", "raw_path": b"/", "query_string": b"", "headers": headers}
    await endpoint({**request, "client": ("127.0.0.1", 1)}, receive, note)
    assert not sent
    assert not desk.asked


def credential(key_id: str = KEY_ID, *, at: datetime | None = None) -> dict[str, str]:
    """Headers of a request that was signed with nothing."""
    moment = at or datetime.now(UTC)
    scope = f"{key_id}/{moment:%Y%m%d}/eu-west-1/rekognition/aws4_request"
    headers = "SignedHeaders=host;x-amz-date;x-amz-target"
    authorization = f"AWS4-HMAC-SHA256 Credential={scope}, {headers}, Signature=0"
    return {**UNSIGNED_HEADERS, "X-Amz-Date": f"{moment:%Y%m%dT%H%M%SZ}", "Authorization": authorization}


@pytest.mark.parametrize(
    ("headers", "name", "is_read"),
    [
        (credential(), "InvalidSignatureException", True),
        (UNSIGNED_HEADERS, "MissingAuthenticationTokenException", False),
        (credential("AKIDUNKNOWN"), "UnrecognizedClientException", False),
        (credential(at=datetime.now(UTC) - timedelta(hours=1)), "InvalidSignatureException", False),
        (credential() | {"Content-Type": "application/json"}, "UnknownOperationException", False),
        (credential() | {"X-Amz-Target": "RekognitionService.Nonsense"}, "UnknownOperationException", False),
    ],
)
async def test_what_the_headers_are_refused_for_is_not_read(headers: dict[str, str], name: str, is_read: bool) -> None:
    asked = []

    async def body() -> AsyncIterator[bytes]:
        asked.append("body")
        yield b"{}"

    def around(app: ASGIApp) -> ASGIApp:
        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append("layer")
            await app(scope, receive, send)

        return layer

    async with asking(around=around) as client:
        response = await client.post("/", content=body(), headers=headers)
    assert response.headers["x-amzn-errortype"] == name
    assert asked == (["layer", "body"] if is_read else [])


async def test_nobody_guesses_signatures_for_long() -> None:
    limits = replace(ANY_NUMBER, failures=RateLimit("3/day"))
    async with asking(rate_limits=limits, allow_unsigned_on_loopback=True) as client:
        guesses = [credential(), credential("AKIDUNKNOWN"), UNSIGNED_HEADERS | {"Origin": "null"}, credential()]
        answers = [await client.post("/", content=b"{}", headers=headers) for headers in guesses]
        names = [answer.headers["x-amzn-errortype"] for answer in answers]
        assert names == [
            "InvalidSignatureException",
            "UnrecognizedClientException",
            "MissingAuthenticationTokenException",
            "ThrottlingException",
        ]
        assert (await client.post("/", content=b"{}", headers=UNSIGNED_HEADERS)).status_code == 200


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (RuntimeError("unforeseen"), "internal_error"),
        (errors.EntryPendingError("m"), "entry_pending"),
        (errors.DeadlineExceededError("m"), "deadline_exceeded"),
        (RekognitionFault("InvalidParameterException", "m"), "InvalidParameterException"),
        (errors.OverloadedError("m"), None),
        ({}, None),
    ],
)
async def test_each_attempt_that_fails_leaves_an_event(settings: Settings, answer: Answer, outcome: str | None) -> None:
    database = Database(settings.database_url)
    desk = Desk([answer])
    layers = {"around": lambda app: Attempts(app, TrailService(database)), "allow_unsigned_on_loopback": True}
    async with asking(desk, **layers) as client:
        for headers in (UNSIGNED_HEADERS, credential()):  # nobody knows who asked for the second one
            target = {"X-Amz-Target": "RekognitionService.CreateCollection"}
            await client.post("/", content=b'{"CollectionId": "c"}', headers=headers | target)
    await database.aclose()
    recorded = [(event["actor"], event["action"], event["outcome"]) for event in events(settings)]
    assert recorded == ([(ANYBODY, "collection.create", outcome)] if outcome else [])


async def test_an_attempt_that_its_deadline_ends_leaves_an_event(settings: Settings) -> None:
    hurried = {"request_timeout_seconds": 0.5, "rekognition_allow_unsigned": True}
    async with conftest.serving(settings.model_copy(update=hurried)) as client:
        services: Services = client.services  # type: ignore[attr-defined]
        headers = {**UNSIGNED_HEADERS, "X-Amz-Target": "RekognitionService.CreateCollection"}
        async with services.database.write():
            url = "http://127.0.0.1/rekognition"
            response = await client.post(url, content=b'{"CollectionId": "c"}', headers=headers)
        assert response.headers["x-amzn-errortype"] == "InternalServerError"
        async with services.database.write():  # after those that were waiting
            pass
    recorded = [(event["actor"], event["action"], event["outcome"]) for event in events(settings)]
    assert recorded[-1] == (ANYBODY, "collection.create", "deadline_exceeded")


def test_only_operations_of_rekognition_can_be_served() -> None:
    operation = Desk().operations()["ListCollections"]
    with pytest.raises(OperationNotFoundError):
        RekognitionEndpoint({"ListBuckets": operation}, KEYS, rate_limits=ANY_NUMBER, allow_unsigned_on_loopback=False)


@pytest.mark.parametrize("docs_enabled", [True, False])
async def test_clients_whose_endpoint_has_no_path_are_answered(settings: Settings, docs_enabled: bool) -> None:
    chosen = {"rekognition_allow_unsigned": True, "docs_enabled": docs_enabled}
    async with conftest.serving(settings.model_copy(update=chosen)) as client:
        root = client.base_url.copy_with(path="/")
        listed = await client.post(root, content=b"{}", headers=UNSIGNED_HEADERS)
        assert listed.json()["CollectionIds"] == ["default"]
        unknown = await client.post(root, content=b"{}", headers=UNSIGNED_HEADERS | {"X-Amz-Target": "Other.Get"})
        assert unknown.json()["__type"] == "UnknownOperationException"
        untargeted = await client.post(root, content=b"{}")
        assert untargeted.headers["content-type"] == "application/problem+json"
        assert untargeted.status_code == (405 if docs_enabled else 404)
        assert (await client.get(root)).is_redirect is docs_enabled
