"""A Rekognition on a loopback socket that keeps its collections in memory and fails as it is told.

It shares the pictures of :mod:`tests.painted` and no code with the service: a square of one bright colour on grey is a
face, and who it is, is the colour. Requests keep to botocore's service model or are refused; the limits of images are
those of https://docs.aws.amazon.com/rekognition/latest/dg/limits.html.
"""

import base64
import hashlib
import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from statistics import fmean
from typing import Any, NamedTuple, Self, TypeVar
from uuid import uuid4

import botocore.session
import cv2
import numpy as np
from botocore import xform_name
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

MAX_BYTES = 5 * 1024 * 1024
MIN_SIDE = 80
MIN_FACE = 40 / 1920
"""Shortest side of a face: 40 pixels in an image of up to 1920, in proportion in a larger one."""

MAX_FACES = 100
CONFIDENCE = 99.5
VERSION = {"FaceModelVersion": "7.0"}

# AWS means left and right as the viewer sees them.
_LANDMARKS = {
    "eyeLeft": (0.3, 0.3),
    "eyeRight": (0.7, 0.3),
    "nose": (0.5, 0.5),
    "mouthLeft": (0.35, 0.75),
    "mouthRight": (0.65, 0.75),
}
_MODEL = botocore.session.get_session().get_service_model("rekognition")

_Found = TypeVar("_Found")
Request = Mapping[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What goes over the wire; as a fault it replaces the answer, and nothing is done."""

    status: int
    body: bytes
    content_type: str = "application/x-amz-json-1.1"


class Silence(Enum):
    """Faults without an answer: the connection hangs until the server stops, or is closed before or after the work."""

    HANG = auto()
    DROP = auto()
    DROP_AFTER = auto()


@dataclass(frozen=True)
class Partial:
    """A success in part: IndexFaces indexes no face, the others of ``PARTIAL`` fail for the first face of the request.

    Args:
        reason: what the answer says of these faces, such as ``LOW_SHARPNESS``.
    """

    reason: str


Fault = Reply | Silence | Partial
PARTIAL = {"IndexFaces", "DeleteFaces", "AssociateFaces", "DisassociateFaces"}


def refusal(code: str, message: str = "", status: int = 400) -> Reply:
    """An error in the words of AWS JSON 1.1."""
    return Reply(status, json.dumps({"__type": code, "Message": message}).encode())


THROTTLED = refusal("ThrottlingException", "Rate exceeded")
THROUGHPUT_EXCEEDED = refusal("ProvisionedThroughputExceededException", "Provisioned rate exceeded")
SERVER_ERROR = refusal("InternalServerError", "Internal server error", 500)
UNAVAILABLE = Reply(503, b"<html><body><b>Http/1.1 Service Unavailable</b></body></html>", "text/html")
EXPIRED_CREDENTIALS = refusal("ExpiredTokenException", "The security token included in the request is expired")
UNRECOGNIZED_CLIENT = refusal("UnrecognizedClientException", "The security token included in the request is invalid")
ACCESS_DENIED = refusal("AccessDeniedException", "User is not authorized to perform this operation")
MALFORMED = Reply(200, b'{"FaceRecords": [{"Face": ')
"""Half an object: botocore takes it for an answer without members."""


class _RefusedError(Exception):
    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.reply = refusal(code, message)


class Call(NamedTuple):
    """A request, its blobs as bytes."""

    operation: str
    parameters: Request


@dataclass(frozen=True)
class Square:
    """A painted face: left, top, width and height as ratios of the image's sides, and its colour around mid-grey."""

    box: tuple[float, ...]
    vector: tuple[float, ...]

    def bounding_box(self) -> Answer:
        return dict(zip(("Left", "Top", "Width", "Height"), self.box, strict=True))

    def detail(self) -> Answer:
        left, top, width, height = self.box
        return {
            "BoundingBox": self.bounding_box(),
            "Landmarks": [
                {"Type": name, "X": left + x * width, "Y": top + y * height} for name, (x, y) in _LANDMARKS.items()
            ],
            "Pose": {"Roll": 0.0, "Yaw": 0.0, "Pitch": 0.0},
            "Quality": {"Brightness": 80.0, "Sharpness": 90.0},
            "Confidence": CONFIDENCE,
        }


@dataclass(eq=False)
class IndexedFace:
    """A face in a collection; ``digest`` is the SHA-256 of the image that it was indexed from."""

    square: Square
    digest: bytes
    image_id: str
    external_image_id: str | None
    face_id: str = field(default_factory=lambda: str(uuid4()))
    user_id: str | None = None

    def describe(self) -> Answer:
        optional = {"ExternalImageId": self.external_image_id, "UserId": self.user_id}
        return {
            "FaceId": self.face_id,
            "ImageId": self.image_id,
            "BoundingBox": self.square.bounding_box(),
            "Confidence": CONFIDENCE,
            "IndexFacesModelVersion": VERSION["FaceModelVersion"],
        } | {name: value for name, value in optional.items() if value}


@dataclass
class Collection:
    arn: str
    created: float = field(default_factory=time.time)
    faces: dict[str, IndexedFace] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)

    def faces_of(self, user_id: str) -> list[IndexedFace]:
        return [face for face in self.faces.values() if face.user_id == user_id]

    def describe(self, user_id: str) -> Answer:
        return {"UserId": user_id, "UserStatus": "ACTIVE" if self.faces_of(user_id) else "CREATED"}


def similarity(one: ArrayLike, other: ArrayLike) -> float:
    """``100 * (1 - d/2)**2`` for the cosine distance d in 0..2.

    Squared, so that yellow, which has much of red and of green, stays below 50 with both. A colour keeps more than 99
    with itself after JPEG.
    """
    a, b = np.asarray(one, float), np.asarray(other, float)
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(100 * ((1 + np.clip(cosine, -1, 1)) / 2) ** 2)


def squares(data: bytes) -> list[Square]:
    """The faces of an encoded image after its EXIF rotation, the largest first."""
    if len(data) > MAX_BYTES:
        raise _RefusedError("ImageTooLargeException", "Image size is too large")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as opened:
            image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        raise _RefusedError("InvalidImageFormatException", "Request has invalid image format") from None
    rows, columns, _ = image.shape
    if min(rows, columns) < MIN_SIDE:
        raise _RefusedError("InvalidParameterException", "Request has invalid parameters")
    colourful = (np.ptp(image, axis=2) > 100).astype(np.uint8)
    _, _, components, _ = cv2.connectedComponentsWithStats(colourful)
    boxes = [box for box in components[1:, :4].tolist() if min(box[2:]) >= MIN_FACE * max(1920, rows, columns)]
    found = []
    for x, y, w, h in sorted(boxes, key=lambda box: (-box[2] * box[3], box))[:MAX_FACES]:
        colour = np.median(image[y : y + h, x : x + w], axis=(0, 1))
        found.append(Square((x / columns, y / rows, w / columns, h / rows), tuple((colour / 255 - 0.5).tolist())))
    return found


def _checked(shape: Any, value: Any) -> Any:
    """The value, its blobs decoded, if it keeps to the limits of its shape, most of which botocore leaves to AWS."""
    match shape.type_name:
        case "blob":
            return base64.b64decode(value)
        case "structure":
            return {name: _checked(shape.members[name], member) for name, member in value.items()}
        case "list":
            value = [_checked(shape.member, member) for member in value]
    limits, size = shape.metadata, value if isinstance(value, int | float) else len(value)
    within = limits.get("min", size) <= size <= limits.get("max", size) and value in limits.get("enum", [value])
    if not within or ("pattern" in limits and not re.fullmatch(limits["pattern"], value)):
        raise _RefusedError("ValidationException", f"1 validation error detected: {shape.name} is out of bounds")
    return value


class _Rekognition:
    """The operations under botocore's names: checked parameters → members of the answer."""

    def __init__(self, page_size: int) -> None:
        self.collections: dict[str, Collection] = {}
        self._page_size = page_size
        self._ends: dict[str | None, str] = {None: ""}

    def create_collection(self, request: Request) -> Answer:
        name = request["CollectionId"]
        if name in self.collections:
            raise _RefusedError("ResourceAlreadyExistsException", f"The collection id: {name} already exists")
        self.collections[name] = Collection(f"aws:rekognition:us-east-1:123456789012:collection/{name}")
        return {"StatusCode": 200, "CollectionArn": self.collections[name].arn, **VERSION}

    def describe_collection(self, request: Request) -> Answer:
        found = self._collection(request)
        counts = {"FaceCount": len(found.faces), "UserCount": len(found.users)}
        return {"CollectionARN": found.arn, "CreationTimestamp": found.created, **counts, **VERSION}

    def list_collections(self, request: Request) -> Answer:
        names, more = self._page(self.collections, request)
        return {"CollectionIds": names, "FaceModelVersions": [*VERSION.values()] * len(names), **more}

    def delete_collection(self, request: Request) -> Answer:
        self._collection(request)
        del self.collections[request["CollectionId"]]
        return {"StatusCode": 200}

    def detect_faces(self, request: Request) -> Answer:
        return {"FaceDetails": [square.detail() for square in _seen(request)]}

    def index_faces(self, request: Request, reason: str | None = None) -> Answer:
        faces, found = self._collection(request).faces, _seen(request)
        most = 0 if reason else request.get("MaxFaces", MAX_FACES)
        digest, external_id = hashlib.sha256(request["Image"]["Bytes"]).digest(), request.get("ExternalImageId")
        same = [face for face in faces.values() if (face.digest, face.external_image_id) == (digest, external_id)]
        known = {face.square: face for face in same if external_id}
        image_id = next((face.image_id for face in known.values()), str(uuid4()))
        indexed = [known.get(square) or IndexedFace(square, digest, image_id, external_id) for square in found[:most]]
        faces.update({face.face_id: face for face in indexed})
        reasons = [reason or "EXCEEDS_MAX_FACES"]
        return {
            "FaceRecords": [{"Face": face.describe(), "FaceDetail": face.square.detail()} for face in indexed],
            "UnindexedFaces": [{"Reasons": reasons, "FaceDetail": square.detail()} for square in found[most:]],
            **VERSION,
        }

    def list_faces(self, request: Request) -> Answer:
        collection = self._collection(request)
        faces = collection.faces_of(request["UserId"]) if "UserId" in request else collection.faces.values()
        wanted = {face.face_id for face in faces} & set(request.get("FaceIds", collection.faces))
        page, more = self._page(wanted, request)
        return {"Faces": [collection.faces[face_id].describe() for face_id in page], **more, **VERSION}

    def delete_faces(self, request: Request, reason: str | None = None) -> Answer:
        faces = self._collection(request).faces
        unassociated, unsuccessful = _sorted_out(
            faces, request, lambda face: "ASSOCIATED_TO_AN_EXISTING_USER" if face.user_id else None, reason
        )
        deleted = [faces.pop(face.face_id).face_id for face in unassociated]
        # The model does not allow an empty list of these.
        return {"UnsuccessfulFaceDeletions": unsuccessful} | ({"DeletedFaces": deleted} if deleted else {})

    def search_faces_by_image(self, request: Request) -> Answer:
        faces, found = self._collection(request).faces.values(), _seen(request)
        if not found:
            raise _RefusedError("InvalidParameterException", "There are no faces in the image. Should be at least 1.")
        scores = ((similarity(found[0].vector, face.square.vector), face) for face in faces)
        best = _best(scores, request.get("FaceMatchThreshold", 80), request.get("MaxFaces"))
        return {
            "SearchedFaceBoundingBox": found[0].bounding_box(),
            "SearchedFaceConfidence": CONFIDENCE,
            "FaceMatches": [{"Similarity": score, "Face": face.describe()} for score, face in best],
            **VERSION,
        }

    def create_user(self, request: Request) -> Answer:
        users = self._collection(request).users
        if request["UserId"] in users:
            raise _RefusedError("ConflictException", f"The user id: {request['UserId']} already exists")
        users.add(request["UserId"])
        return {}

    def delete_user(self, request: Request) -> Answer:
        collection, user_id = self._user(request)
        for face in collection.faces_of(user_id):
            face.user_id = None
        collection.users.remove(user_id)
        return {}

    def list_users(self, request: Request) -> Answer:
        collection = self._collection(request)
        page, more = self._page(collection.users, request)
        return {"Users": [collection.describe(user_id) for user_id in page], **more}

    def associate_faces(self, request: Request, reason: str | None = None) -> Answer:
        collection, user_id = self._user(request)
        before, threshold = collection.faces_of(user_id), request.get("UserMatchThreshold", 75)

        def obstacle(face: IndexedFace) -> str | None:
            if face.user_id:
                return "ASSOCIATED_TO_A_DIFFERENT_USER" if face.user_id != user_id else None
            unlike = before and similarity(_mean(before), face.square.vector) < threshold
            return "LOW_MATCH_CONFIDENCE" if unlike else None

        suitable, unsuccessful = _sorted_out(collection.faces, request, obstacle, reason)
        added = [face for face in suitable if not face.user_id]
        if len(before) + len(added) > MAX_FACES:
            raise _RefusedError("ServiceQuotaExceededException", f"A user has at most {MAX_FACES} faces")
        for face in added:
            face.user_id = user_id
        return {
            "AssociatedFaces": [{"FaceId": face.face_id} for face in added],
            "UnsuccessfulFaceAssociations": unsuccessful,
            "UserStatus": collection.describe(user_id)["UserStatus"],
        }

    def disassociate_faces(self, request: Request, reason: str | None = None) -> Answer:
        collection, user_id = self._user(request)

        def obstacle(face: IndexedFace) -> str | None:
            return None if face.user_id in {None, user_id} else "ASSOCIATED_TO_A_DIFFERENT_USER"

        suitable, unsuccessful = _sorted_out(collection.faces, request, obstacle, reason)
        removed = [face for face in suitable if face.user_id]
        for face in removed:
            face.user_id = None
        return {
            "DisassociatedFaces": [{"FaceId": face.face_id} for face in removed],
            "UnsuccessfulFaceDisassociations": unsuccessful,
            "UserStatus": collection.describe(user_id)["UserStatus"],
        }

    def search_users_by_image(self, request: Request) -> Answer:
        collection, found = self._collection(request), _seen(request)
        users = [(user_id, faces) for user_id in collection.users if (faces := collection.faces_of(user_id))]
        scores = ((similarity(searched.vector, _mean(faces)), user) for searched in found[:1] for user, faces in users)
        best = _best(scores, request.get("UserMatchThreshold", 80), request.get("MaxUsers"))
        reasons = ["FACE_NOT_LARGEST"]
        return {
            "UserMatches": [{"Similarity": score, "User": collection.describe(user_id)} for score, user_id in best],
            "UnsearchedFaces": [{"FaceDetails": square.detail(), "Reasons": reasons} for square in found[1:]],
            **({"SearchedFace": {"FaceDetail": found[0].detail()}} if found else {}),
            **VERSION,
        }

    def _collection(self, request: Request) -> Collection:
        name = request["CollectionId"]
        if name not in self.collections:
            raise _RefusedError("ResourceNotFoundException", f"The collection id: {name} does not exist")
        return self.collections[name]

    def _user(self, request: Request) -> tuple[Collection, str]:
        collection, user_id = self._collection(request), request["UserId"]
        if user_id not in collection.users:
            raise _RefusedError("ResourceNotFoundException", f"The user id: {user_id} does not exist")
        return collection, user_id

    def _page(self, keys: Iterable[str], request: Request) -> tuple[list[str], Answer]:
        """The next keys in their order, and the token of the page after them; what is deleted between shifts none."""
        token = request.get("NextToken")
        if token not in self._ends:
            raise _RefusedError("InvalidPaginationTokenException", "Request has invalid pagination token")
        rest = sorted(key for key in keys if key > self._ends[token])
        size = min(request.get("MaxResults") or self._page_size, self._page_size)
        if len(rest) <= size:
            return rest, {}
        following = uuid4().hex
        self._ends[following] = rest[size - 1]
        return rest[:size], {"NextToken": following}


def _seen(request: Request) -> list[Square]:
    if "Bytes" not in request["Image"]:
        raise _RefusedError("InvalidS3ObjectException", "Unable to get object metadata from S3")
    return squares(request["Image"]["Bytes"])


def _mean(faces: list[IndexedFace]) -> list[float]:
    """The one vector that stands for a user, as at AWS."""
    return [fmean(channel) for channel in zip(*(face.square.vector for face in faces), strict=True)]


def _best(scores: Iterable[tuple[float, _Found]], threshold: float, most: int | None) -> list[tuple[float, _Found]]:
    return sorted((score for score in scores if score[0] >= threshold), key=lambda score: -score[0])[:most]


def _sorted_out(
    faces: Mapping[str, IndexedFace],
    request: Request,
    obstacle: Callable[[IndexedFace], str | None],
    reason: str | None,
) -> tuple[list[IndexedFace], list[Answer]]:
    """The requested faces without an obstacle, and what is told of the others; a given reason is the first one's."""
    suitable, unsuccessful = [], []
    for face_id in dict.fromkeys(request["FaceIds"]):
        face = faces.get(face_id)
        wrong, reason = reason or (obstacle(face) if face else "FACE_NOT_FOUND"), None
        if wrong:
            user = {"UserId": face.user_id} if face and face.user_id else {}
            unsuccessful.append({"FaceId": face_id, "Reasons": [wrong], **user})
        elif face:
            suitable.append(face)
    return suitable, unsuccessful


OPERATIONS = {name: xform_name(name) for name in _MODEL.operation_names if hasattr(_Rekognition, xform_name(name))}


def _understood(headers: Message, body: bytes) -> Call:
    operation = headers.get("X-Amz-Target", "").removeprefix("RekognitionService.")
    if "Authorization" not in headers:
        raise _RefusedError("MissingAuthenticationTokenException", "Missing Authentication Token")
    if operation not in OPERATIONS:
        raise _RefusedError("UnknownOperationException")
    return Call(operation, _checked(_MODEL.operation_model(operation).input_shape, json.loads(body)))


@dataclass
class _Script:
    operation: str
    fault: Fault
    times: float
    after: int
    struck: threading.Event = field(default_factory=threading.Event)


class RekognitionServer(ThreadingTCPServer):
    """Serves at ``url`` during its ``with`` block, at the end of which it raises what went wrong in itself.

    ``collections`` is what it stores; ``calls`` are all valid requests, those that a fault struck among them.

    Args:
        page_size: most that one page of a list holds.
    """

    request_queue_size = 128

    def __init__(self, *, page_size: int = 2) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.calls: list[Call] = []
        self._rekognition = _Rekognition(page_size)
        self.collections = self._rekognition.collections
        self._scripts: list[_Script] = []
        self._answered: dict[tuple[str, str], tuple[Request, Answer]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._errors:
            raise ExceptionGroup("the Rekognition server failed", self._errors)

    def stop(self) -> None:
        """End what hangs, and refuse connections from now on; leaving the block does it too."""
        self._stopped.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def fail(self, operation: str, fault: Fault, *, times: float = 1, after: int = 0) -> threading.Event:
        """Let calls of an operation, or of all (``*``), meet a fault. Of two faults the earlier scripted strikes first.

        Args:
            times: how many calls it strikes; ``math.inf`` means until :meth:`heal`.
            after: how many calls it spares before.

        Returns:
            An event that is set when it strikes.

        Raises:
            ValueError: there is no such operation, or it cannot succeed in part.
        """
        if operation not in (PARTIAL if isinstance(fault, Partial) else {"*", *OPERATIONS}):
            raise ValueError(f"{operation} cannot fail like this")
        script = _Script(operation, fault, times, after)
        with self._lock:
            self._scripts.append(script)
        return script.struck

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._scripts.clear()

    def reply(self, headers: Message, body: bytes) -> Reply | None:
        """What a request is answered with; None closes the connection."""
        fault = None
        try:
            call = _understood(headers, body)
            fault = self._met(call)
            if isinstance(fault, Reply):
                return fault
            if fault is Silence.HANG:
                self._stopped.wait()
            if fault in {Silence.HANG, Silence.DROP}:
                return None
            reply = Reply(200, json.dumps(self._perform(call, fault)).encode())
        except _RefusedError as error:
            reply = error.reply
        return None if fault is Silence.DROP_AFTER else reply

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self._errors.append(error)

    def _met(self, call: Call) -> Fault | None:
        """Record a call, and say what it meets."""
        with self._lock:
            self.calls.append(call)
            for script in self._scripts:
                if script.operation not in {call.operation, "*"} or not script.times:
                    continue
                if script.after:
                    script.after -= 1
                    continue
                script.times -= 1
                script.struck.set()
                return script.fault
        return None

    def _perform(self, call: Call, fault: Fault | None) -> Answer:
        operation, request = call
        perform = getattr(self._rekognition, OPERATIONS[operation])
        reason = {"reason": fault.reason} if isinstance(fault, Partial) else {}
        token = request.get("ClientRequestToken", str(uuid4()))
        with self._lock:
            # Who repeats a request under its token gets the same answer.
            if (operation, token) not in self._answered:
                self._answered[operation, token] = request, perform(request, **reason)
            asked, answer = self._answered[operation, token]
        if asked != request:
            raise _RefusedError("IdempotentParameterMismatchException", "The token was used for another request")
        return answer


class _Exchange(BaseHTTPRequestHandler):
    """One request on a connection of its own."""

    server: RekognitionServer
    timeout = 10  # who connects and says nothing does not keep the server from stopping

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if reply := self.server.reply(self.headers, body):
            with suppress(ConnectionError):  # the client gave up
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                self.send_header("x-amzn-RequestId", str(uuid4()))
                self.end_headers()
                self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass
