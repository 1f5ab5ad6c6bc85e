"""Rekognition's operations on facescreen's own collections: what its service model says, in and out.

What the model leaves open:

- Left and right of landmarks are the viewer's. ``Roll`` is clockwise; yaw and pitch are not estimated and left out, as
  are all attributes beyond the default ones, whichever are asked for.
- A list without ``MaxResults`` has as many as the model allows, a search without ``MaxFaces`` or ``MaxUsers`` as well.
- A user's similarity is that of its nearest face. A search for users by one of a user's own faces is without that user.
- Two images are the same if their pixels are; without ``ExternalImageId`` they have the same one, namely none.
- Tags are refused, for there is nothing to read them with.
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from facescreen.api.rekognition.endpoint import Caller, Operation
from facescreen.api.rekognition.faults import RekognitionFault
from facescreen.aws import AwsClient, AwsRefusal
from facescreen.db.members import KnownFace
from facescreen.domain.faces import Box, Face, Point
from facescreen.errors import (
    AwsAccessDeniedError,
    AwsBucketMissingError,
    AwsCredentialsError,
    DefaultCollectionError,
    ImageTooLargeError,
)
from facescreen.services.collections import CollectionService
from facescreen.services.faces import MAX_FACES, FaceService, PersonMatch, SeenFace, UnusedFace
from facescreen.services.people import Obstacle, PeopleService, Reassignment, TokenReusedError, TooManyFacesError
from facescreen.services.quality import QualityFault, QualityFilter

Request = Mapping[str, Any]
Answer = dict[str, Any]

FACE_MODEL_VERSION = "1.0"
"""Of facescreen's faces as they are here: detected and embedded by the configured detector and model."""

ACCOUNT = "000000000000"

MAX_OBJECT_BYTES = 15 * 1024 * 1024
"""Of an image in S3: https://docs.aws.amazon.com/rekognition/latest/dg/limits.html."""

# Where the service model names no default, it is the largest value that it allows.
_COLLECTIONS, _FACES, _USERS, _MATCHES = 4096, 4096, 500, 4096
_ALIKE, _ALIKE_TO_USER = 80.0, 75.0

_FAULTS = {
    QualityFault.SMALL: "SMALL_BOUNDING_BOX",
    QualityFault.UNCERTAIN: "LOW_CONFIDENCE",
    QualityFault.DARK: "LOW_BRIGHTNESS",
    QualityFault.BLURRED: "LOW_SHARPNESS",
}
_OBSTACLES = {
    Obstacle.MISSING: "FACE_NOT_FOUND",
    Obstacle.OTHERS: "ASSOCIATED_TO_A_DIFFERENT_USER",
    Obstacle.UNLIKE: "LOW_MATCH_CONFIDENCE",
}


class Operations:
    """The operations of the facade.

    Args:
        s3: where images come from that a request names as ``S3Object``.
    """

    def __init__(
        self, *, collections: CollectionService, faces: FaceService, people: PeopleService, s3: AwsClient
    ) -> None:
        self._collections = collections
        self._faces = faces
        self._people = people
        self._s3 = s3

    def by_name(self) -> Mapping[str, Operation]:
        """Each operation by its name in the service model."""
        return {
            "CreateCollection": self.create_collection,
            "DescribeCollection": self.describe_collection,
            "ListCollections": self.list_collections,
            "DeleteCollection": self.delete_collection,
            "DetectFaces": self.detect_faces,
            "IndexFaces": self.index_faces,
            "ListFaces": self.list_faces,
            "DeleteFaces": self.delete_faces,
            "SearchFaces": self.search_faces,
            "SearchFacesByImage": self.search_faces_by_image,
            "CompareFaces": self.compare_faces,
            "CreateUser": self.create_user,
            "DeleteUser": self.delete_user,
            "ListUsers": self.list_users,
            "AssociateFaces": self.associate_faces,
            "DisassociateFaces": self.disassociate_faces,
            "SearchUsers": self.search_users,
            "SearchUsersByImage": self.search_users_by_image,
        }

    async def create_collection(self, request: Request, caller: Caller) -> Answer:
        if request.get("Tags"):
            raise _invalid("this service keeps no tags")
        created = await self._collections.create(request["CollectionId"])
        return {
            "StatusCode": 200,
            "CollectionArn": _arn(created.collection.name, caller),
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def describe_collection(self, request: Request, caller: Caller) -> Answer:
        described = await self._collections.describe(request["CollectionId"])
        return {
            "CollectionARN": _arn(described.collection.name, caller),
            "CreationTimestamp": described.collection.created_at,
            "FaceCount": described.size.images,
            "UserCount": described.size.people,
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def list_collections(self, request: Request, _caller: Caller) -> Answer:
        page = _Page(request, "ListCollections", most=_COLLECTIONS)
        found = await self._faces.collections(after=page.after, limit=page.size + 1)
        names = [collection.name for collection in found[: page.size]]
        return {
            "CollectionIds": names,
            "FaceModelVersions": [FACE_MODEL_VERSION] * len(names),
            "NextToken": page.following([collection.id for collection in found]),
        }

    async def delete_collection(self, request: Request, _caller: Caller) -> Answer:
        try:
            await self._collections.delete(request["CollectionId"])
        except DefaultCollectionError as error:
            raise _invalid(str(error)) from error
        return {"StatusCode": 200}

    async def detect_faces(self, request: Request, _caller: Caller) -> Answer:
        return {
            "FaceDetails": [_detail(seen) for seen in await self._faces.detect(await self._image(request["Image"]))]
        }

    async def index_faces(self, request: Request, _caller: Caller) -> Answer:
        indexed = await self._faces.index(
            request["CollectionId"],
            await self._image(request["Image"]),
            external_image_id=request.get("ExternalImageId"),
            most=min(request.get("MaxFaces", MAX_FACES), MAX_FACES),
            quality=QualityFilter(request.get("QualityFilter", "AUTO")),
        )
        return {
            "FaceRecords": [{"Face": _face(face), "FaceDetail": _detail(seen)} for face, seen in indexed.faces],
            "UnindexedFaces": [
                {"FaceDetail": _detail(unused.seen), "Reasons": _reasons(unused, "EXCEEDS_MAX_FACES")}
                for unused in indexed.unused
            ],
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def list_faces(self, request: Request, _caller: Caller) -> Answer:
        page = _Page(request, "ListFaces", most=_FACES)
        found = await self._faces.page(
            request["CollectionId"],
            after=page.after,
            limit=page.size + 1,
            user_id=request.get("UserId"),
            face_ids=request.get("FaceIds"),
        )
        return {
            "Faces": [_face(face) for face in found[: page.size]],
            "NextToken": page.following([face.image.id for face in found]),
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def delete_faces(self, request: Request, _caller: Caller) -> Answer:
        removal = await self._faces.remove(request["CollectionId"], request["FaceIds"])
        return {
            # The service model allows no empty list of these.
            "DeletedFaces": removal.removed or None,
            "UnsuccessfulFaceDeletions": [
                *(
                    {"FaceId": face_id, "UserId": user_id, "Reasons": ["ASSOCIATED_TO_AN_EXISTING_USER"]}
                    for face_id, user_id in removal.associated
                ),
                *({"FaceId": face_id, "Reasons": ["FACE_NOT_FOUND"]} for face_id in removal.missing),
            ],
        }

    async def search_faces(self, request: Request, _caller: Caller) -> Answer:
        matches = await self._faces.search_by_face(
            request["CollectionId"],
            request["FaceId"],
            alike=request.get("FaceMatchThreshold", _ALIKE),
            most=request.get("MaxFaces", _MATCHES),
        )
        return {
            "SearchedFaceId": request["FaceId"],
            "FaceMatches": [{"Similarity": match.similarity, "Face": _face(match.face)} for match in matches],
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def search_faces_by_image(self, request: Request, _caller: Caller) -> Answer:
        searched, matches = await self._faces.search_by_image(
            request["CollectionId"],
            await self._image(request["Image"]),
            alike=request.get("FaceMatchThreshold", _ALIKE),
            most=request.get("MaxFaces", _MATCHES),
            quality=QualityFilter(request.get("QualityFilter", "NONE")),
        )
        return {
            "SearchedFaceBoundingBox": _bounding_box(searched.face.box, searched.width, searched.height),
            "SearchedFaceConfidence": _percent(searched.face),
            "FaceMatches": [{"Similarity": match.similarity, "Face": _face(match.face)} for match in matches],
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def compare_faces(self, request: Request, _caller: Caller) -> Answer:
        compared = await self._faces.compare(
            await self._image(request["SourceImage"]),
            await self._image(request["TargetImage"]),
            alike=request.get("SimilarityThreshold", _ALIKE),
            quality=QualityFilter(request.get("QualityFilter", "NONE")),
        )
        source = compared.source
        return {
            "SourceImageFace": {
                "BoundingBox": _bounding_box(source.face.box, source.width, source.height),
                "Confidence": _percent(source.face),
            },
            "FaceMatches": [{"Similarity": alike, "Face": _detail(seen)} for seen, alike in compared.matches],
            "UnmatchedFaces": [_detail(seen) for seen in compared.others],
        }

    async def create_user(self, request: Request, _caller: Caller) -> Answer:
        with _refusals():
            await self._people.create(
                request["CollectionId"], request["UserId"], token=request.get("ClientRequestToken")
            )
        return {}

    async def delete_user(self, request: Request, _caller: Caller) -> Answer:
        with _refusals():
            await self._people.delete(
                request["CollectionId"], request["UserId"], token=request.get("ClientRequestToken")
            )
        return {}

    async def list_users(self, request: Request, _caller: Caller) -> Answer:
        page = _Page(request, "ListUsers", most=_USERS)
        found = await self._people.page(request["CollectionId"], after=page.after, limit=page.size + 1)
        return {
            "Users": [
                {"UserId": person.user_id, "UserStatus": _status(has_faces=person.has_faces)}
                for person in found[: page.size]
            ],
            "NextToken": page.following([person.id for person in found]),
        }

    async def associate_faces(self, request: Request, _caller: Caller) -> Answer:
        with _refusals():
            done = await self._people.associate(
                request["CollectionId"],
                request["UserId"],
                request["FaceIds"],
                alike=request.get("UserMatchThreshold", _ALIKE_TO_USER),
                token=request.get("ClientRequestToken"),
            )
        return _reassigned(done, "AssociatedFaces", "UnsuccessfulFaceAssociations")

    async def disassociate_faces(self, request: Request, _caller: Caller) -> Answer:
        with _refusals():
            done = await self._people.disassociate(
                request["CollectionId"],
                request["UserId"],
                request["FaceIds"],
                token=request.get("ClientRequestToken"),
            )
        return _reassigned(done, "DisassociatedFaces", "UnsuccessfulFaceDisassociations")

    async def search_users(self, request: Request, _caller: Caller) -> Answer:
        user_id, face_id = request.get("UserId"), request.get("FaceId")
        collection = request["CollectionId"]
        alike, most = request.get("UserMatchThreshold", _ALIKE), request.get("MaxUsers", _USERS)
        if user_id is not None and face_id is None:
            matches = await self._faces.people_by_person(collection, user_id, alike=alike, most=most)
            searched = {"SearchedUser": {"UserId": user_id}}
        elif face_id is not None and user_id is None:
            matches = await self._faces.people_by_face(collection, face_id, alike=alike, most=most)
            searched = {"SearchedFace": {"FaceId": face_id}}
        else:
            raise _invalid("exactly one of UserId and FaceId must be given")
        return {**searched, "UserMatches": _user_matches(matches), "FaceModelVersion": FACE_MODEL_VERSION}

    async def search_users_by_image(self, request: Request, _caller: Caller) -> Answer:
        found = await self._faces.people_by_image(
            request["CollectionId"],
            await self._image(request["Image"]),
            alike=request.get("UserMatchThreshold", _ALIKE),
            most=request.get("MaxUsers", _USERS),
            quality=QualityFilter(request.get("QualityFilter", "NONE")),
        )
        return {
            "SearchedFace": {"FaceDetail": _detail(found.searched)} if found.searched else None,
            "UserMatches": _user_matches(found.matches),
            "UnsearchedFaces": [
                {"FaceDetails": _detail(unused.seen), "Reasons": _reasons(unused, "FACE_NOT_LARGEST")}
                for unused in found.unused
            ],
            "FaceModelVersion": FACE_MODEL_VERSION,
        }

    async def _image(self, image: Request) -> bytes:
        match image:
            case {"Bytes": bytes(data), **rest} if not rest:
                return data
            case {"S3Object": {"Bucket": str(), "Name": str()} as named, **rest} if not rest:
                return await self._object(named)
        raise _invalid("an image must be either Bytes or an S3Object with Bucket and Name")

    async def _object(self, named: Request) -> bytes:
        place = {"Bucket": named["Bucket"], "Key": named["Name"]}
        if "Version" in named:
            place["VersionId"] = named["Version"]
        try:
            head = await self._s3.call("head_object", **place)
            if head["ContentLength"] > MAX_OBJECT_BYTES:
                raise ImageTooLargeError(f"the image has more than {MAX_OBJECT_BYTES} bytes")
            # What is read is what was looked at, even if somebody replaces it in between.
            answer = await self._s3.call("get_object", **place, IfMatch=head["ETag"])
        except (
            AwsRefusal,
            FileNotFoundError,
            AwsAccessDeniedError,
            AwsBucketMissingError,
            AwsCredentialsError,
        ) as error:
            raise RekognitionFault(
                "InvalidS3ObjectException",
                "Unable to get object metadata from S3. Check object key, region and/or access permissions.",
            ) from error
        data: bytes = answer["Body"]
        return data


class _Page:
    """The part of a list that a request is about, and the token for the part after it.

    Args:
        most: how many a request gets that does not say how many it wants.

    Attributes:
        after: id of the row that it begins after.
        size: how many rows it has at most.
    """

    def __init__(self, request: Request, operation: str, *, most: int) -> None:
        query = [operation, *(request.get(name) for name in ("CollectionId", "UserId", "FaceIds"))]
        self._query = sha256(json.dumps(query).encode()).hexdigest()[:16]
        self.size: int = request.get("MaxResults") or most
        self.after = self._decoded(request["NextToken"]) if "NextToken" in request else 0

    def following(self, ids: Sequence[int]) -> str | None:
        """The token for what follows this part, ``None`` at the end of the list.

        Args:
            ids: of this part's rows and of one more, if there is one.
        """
        if len(ids) <= self.size:
            return None
        return base64.urlsafe_b64encode(json.dumps([self._query, ids[self.size - 1]]).encode()).decode()

    def _decoded(self, token: str) -> int:
        try:
            match json.loads(base64.b64decode(token, altchars=b"-_", validate=True)):
                case [self._query, int(after)] if 0 <= after < 2**63:
                    return after
        except (ValueError, RecursionError):
            pass
        raise RekognitionFault("InvalidPaginationTokenException", "the pagination token is not one of this list")


def _arn(name: str, caller: Caller) -> str:
    return f"arn:aws:rekognition:{caller.region}:{ACCOUNT}:collection/{name}"


def _face(face: KnownFace) -> Answer:
    image = face.image
    return {
        "FaceId": image.face_id,
        "ImageId": image.image_id,
        "ExternalImageId": image.external_image_id,
        "UserId": face.user_id,
        "BoundingBox": _bounding_box(image.face.box, image.width, image.height),
        "Confidence": _percent(image.face),
        "IndexFacesModelVersion": FACE_MODEL_VERSION,
    }


def _detail(seen: SeenFace) -> Answer:
    """``FaceDetail``, and ``ComparedFace`` as well."""
    # A person's left is on the viewer's right.
    points = seen.face.landmarks
    landmarks = {
        "eyeLeft": points.right_eye,
        "eyeRight": points.left_eye,
        "mouthLeft": points.mouth_right,
        "mouthRight": points.mouth_left,
        "nose": points.nose,
    }
    return {
        "BoundingBox": _bounding_box(seen.face.box, seen.width, seen.height),
        "Confidence": _percent(seen.face),
        "Landmarks": [
            {"Type": name, "X": point.x / seen.width, "Y": point.y / seen.height}
            for name, point in landmarks.items()
            if point is not None
        ],
        "Pose": _pose(points.right_eye, points.left_eye),
        "Quality": {"Brightness": seen.quality.brightness, "Sharpness": seen.quality.sharpness},
    }


def _pose(left: Point | None, right: Point | None) -> Answer | None:
    """How far the line from the left to the right eye, as the viewer sees them, is turned clockwise."""
    if left is None or right is None:
        return None
    return {"Roll": math.degrees(math.atan2(right.y - left.y, right.x - left.x))}


def _bounding_box(box: Box, width: int, height: int) -> Answer:
    return {"Left": box.x / width, "Top": box.y / height, "Width": box.w / width, "Height": box.h / height}


def _percent(face: Face) -> float:
    return min(max(100.0 * face.confidence, 0.0), 100.0)


def _reasons(unused: UnusedFace, otherwise: str) -> list[str]:
    return [_FAULTS[fault] for fault in unused.faults] or [otherwise]


def _user_matches(matches: Sequence[PersonMatch]) -> list[Answer]:
    return [
        {"Similarity": match.similarity, "User": {"UserId": match.user_id, "UserStatus": _status(has_faces=True)}}
        for match in matches
    ]


def _reassigned(done: Reassignment, changed: str, unsuccessful: str) -> Answer:
    return {
        changed: [{"FaceId": face_id} for face_id in done.face_ids],
        unsuccessful: [
            {
                "FaceId": refused.face_id,
                "UserId": refused.user_id,
                "Confidence": refused.similarity,
                "Reasons": [_OBSTACLES[refused.obstacle]],
            }
            for refused in done.refused
        ],
        "UserStatus": _status(has_faces=done.has_faces),
    }


def _status(*, has_faces: bool) -> str:
    return "ACTIVE" if has_faces else "CREATED"


def _invalid(message: str) -> RekognitionFault:
    return RekognitionFault("InvalidParameterException", message)


@contextmanager
def _refusals() -> Iterator[None]:
    """Around a change of users: what can be wrong with it and with no other request."""
    try:
        yield
    except TokenReusedError as error:
        raise RekognitionFault("IdempotentParameterMismatchException", str(error)) from error
    except TooManyFacesError as error:
        raise RekognitionFault("ServiceQuotaExceededException", str(error)) from error
