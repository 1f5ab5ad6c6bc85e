"""Amazon Rekognition: it detects, keeps the faces in its collections, and searches them."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from facescreen.aws import AwsClient, AwsRefusal
from facescreen.backends.base import GalleryFace, GalleryHit, GalleryPhoto, Inventory, Probe
from facescreen.backends.rekognition_images import SentImage, crops, fitted
from facescreen.config import DetectorName, ModelName
from facescreen.domain.blacklist import DEFAULT_COLLECTION
from facescreen.domain.faces import Face, Landmarks, Pixels
from facescreen.errors import (
    AwsCollectionMissingError,
    AwsError,
    AwsServiceError,
    FaceUnusableError,
    InputError,
    NoFaceError,
)
from facescreen.pool import WorkPool

T = TypeVar("T")

MAX_HITS = 100
"""Faces that a search answers with at most: as many as one person can have."""

# Limits of the service's model: AssociateFaces and DisassociateFaces, DeleteFaces and ListFaces, ListUsers.
_FACES_OF_A_USER = 100
_FACES_AT_ONCE = 4096
_USERS_AT_ONCE = 500

_LONGEST_ID = 255
"""``CollectionId`` of the service's model."""

_PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Before trying again what an earlier change of the same user, which takes effect later, is in the way of."""

_NOT_FOUND = "ResourceNotFoundException"
_EXISTS = "ResourceAlreadyExistsException"
_CONFLICT = "ConflictException"
_NO_FACE = "NoFace"

# Rekognition means left and right as the viewer sees them: in the example answers of its documentation the left eye of
# a frontal face has the smaller x (https://docs.aws.amazon.com/rekognition/latest/dg/faces-detect-images.html).
_LANDMARKS = {
    "eyeRight": "left_eye",
    "eyeLeft": "right_eye",
    "nose": "nose",
    "mouthRight": "mouth_left",
    "mouthLeft": "mouth_right",
}

_REASONS = {
    "EXTREME_POSE": "the face is turned too far; use a photo from the front",
    "LOW_BRIGHTNESS": "the face is too dark; use a brighter photo",
    "LOW_SHARPNESS": "the face is too blurred; use a sharper photo",
    "LOW_CONFIDENCE": "it is not certain enough that this is a face; use a clearer photo",
    "SMALL_BOUNDING_BOX": "the face is too small; use a photo from nearer by or one with more pixels",
    "EXCEEDS_MAX_FACES": "another face in the photo is clearer; use a photo of the one person",
    "LOW_FACE_QUALITY": "the face shows too little to recognize it by; use a clearer photo of the uncovered face",
}
_OTHER_REASON = "Rekognition cannot use the face; use another photo"


class RekognitionBackend:
    """Implements ``GalleryBackend``. The service chooses detector and model: arguments that name one are ignored.

    Args:
        client: of the service ``rekognition``; closed with the backend.
        collection_id: what the default collection is called in the service; the others are called
            ``<collection_id>.<name>``.
        pool: where images are scaled and encoded.
    """

    def __init__(self, client: AwsClient, collection_id: str, pool: WorkPool) -> None:
        self._client = client
        self._collection_id = collection_id
        self._pool = pool
        self._face_model = "rekognition"

    @property
    def face_model(self) -> str:
        return self._face_model

    async def load(self) -> None:
        collection = (
            await self._call("describe_collection", DEFAULT_COLLECTION, accept={_NOT_FOUND})
            or await self._call("create_collection", DEFAULT_COLLECTION, accept={_EXISTS})
            or await self._call("describe_collection", DEFAULT_COLLECTION)  # another process was quicker
        )
        with _understood():
            self._face_model = f"rekognition-{collection['FaceModelVersion']}"

    async def aclose(self) -> None:
        await self._client.aclose()

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:  # noqa: ARG002
        sent = await self._pool.run(fitted, image)
        answer = await self._call("detect_faces", Image={"Bytes": sent.data}, Attributes=["DEFAULT"])
        with _understood():
            return tuple(_face(detail, sent) for detail in answer["FaceDetails"])

    def smallest_face(self, width: int, height: int, detector: DetectorName) -> int | None:  # noqa: ARG002 - interface
        return None

    async def prepare(self, image: Pixels, faces: tuple[Face, ...], model: ModelName) -> Probe:  # noqa: ARG002
        return Probe(faces, await self._pool.run(crops, image, faces))

    async def create_collection(self, collection: str) -> None:
        excess = len(self._name(collection)) - _LONGEST_ID
        if excess > 0:
            raise InputError(f"Rekognition cannot have a collection of this name; make it {excess} characters shorter")
        await self._call("create_collection", collection, accept={_EXISTS})

    async def delete_collection(self, collection: str) -> None:
        await self._call("delete_collection", collection, accept={_NOT_FOUND})

    async def enroll(self, collection: str, person: str, photos: Sequence[GalleryPhoto]) -> list[str]:
        await self._call("create_user", collection, accept={_CONFLICT}, UserId=person)
        # One after the other: what is still under way when one fails would escape the withdrawal.
        face_ids = [await self._index(collection, photo) for photo in photos]
        for some in _batches(face_ids, _FACES_OF_A_USER):
            # Whoever chose the photos knows that they are of one person, however little they look like each other.
            answer = await self._call("associate_faces", collection, UserId=person, FaceIds=some, UserMatchThreshold=0)
            with _understood():
                reasons = {reason for each in answer["UnsuccessfulFaceAssociations"] for reason in each["Reasons"]}
            if "LOW_MATCH_CONFIDENCE" in reasons:
                raise FaceUnusableError("the face does not look like the person's other photos")
            if reasons:
                raise AwsServiceError("Rekognition did not give every face to the person; try again later")
        return face_ids

    async def withdraw(self, collection: str, person: str, keys: Collection[str], *, whole: bool) -> None:
        theirs = await self._faces(collection, accept={_NOT_FOUND}, UserId=person)
        unseen = set(keys) - {face.key for face in theirs}
        # Only a look at all faces finds what was indexed and then not associated.
        others = await self._faces(collection, accept={_NOT_FOUND}) if unseen else []
        going = [face for face in theirs if whole or face.key in keys] + [face for face in others if face.key in unseen]
        await self._remove(collection, {face.face_id: face.person for face in going})
        if whole:
            await self._call("delete_user", collection, accept={_NOT_FOUND}, UserId=person)

    async def search(self, collection: str, crop: Pixels, *, similarity: float) -> list[GalleryHit] | None:
        sent = await self._pool.run(fitted, crop)
        answer = await self._call(
            "search_faces_by_image",
            collection,
            Image={"Bytes": sent.data},
            MaxFaces=MAX_HITS,
            FaceMatchThreshold=similarity,
            QualityFilter="NONE",
            accept={_NO_FACE},
        )
        if not answer:
            return None
        with _understood():
            return [GalleryHit(match["Face"]["FaceId"], match["Similarity"]) for match in answer["FaceMatches"]]

    async def inventory(self, collection: str) -> Inventory:
        faces = await self._faces(collection)
        people = await self._listed("list_users", collection, _people, MaxResults=_USERS_AT_ONCE)
        return Inventory(tuple(faces), frozenset(people))

    async def remove_faces(self, collection: str, face_ids: Collection[str]) -> None:
        await self._remove(collection, dict.fromkeys(face_ids))

    async def _index(self, collection: str, photo: GalleryPhoto) -> str:
        """Id of the largest face of the photo, in the collection from now on."""
        sent = await self._pool.run(fitted, photo.image)
        answer = await self._call(
            "index_faces",
            collection,
            Image={"Bytes": sent.data},
            ExternalImageId=photo.key,
            MaxFaces=1,
            QualityFilter="AUTO",
            DetectionAttributes=["DEFAULT"],
        )
        with _understood():
            indexed = [(_area(record["Face"]), str(record["Face"]["FaceId"])) for record in answer["FaceRecords"]]
            left_out = [(_area(each["FaceDetail"]), each["Reasons"]) for each in answer.get("UnindexedFaces", [])]
        size, face_id = max(indexed, default=(0.0, ""))
        larger, reasons = max(left_out, default=(0.0, []))
        # The service leaves out what it deems unfit and takes the next best face: a bystander's, maybe.
        if larger > size:
            raise FaceUnusableError("; ".join(_REASONS.get(reason, _OTHER_REASON) for reason in reasons))
        if not face_id:
            raise NoFaceError("Rekognition finds no face in the photo")
        return face_id

    async def _remove(self, collection: str, people: Mapping[str, str | None]) -> None:
        """Remove faces, each from the person that it is associated with and then from the collection."""
        pauses = iter(_PAUSES_SECONDS)
        while people := await self._delete(collection, people):
            pause = next(pauses, None)
            if pause is None:
                raise AwsServiceError("Rekognition does not delete every face; try again later")
            await asyncio.sleep(pause)

    async def _delete(self, collection: str, people: Mapping[str, str | None]) -> dict[str, str | None]:
        """What is left of these faces, and whose it is, after one attempt to remove them."""
        faces_of: defaultdict[str, list[str]] = defaultdict(list)
        for face_id, person in people.items():
            if person is not None:
                faces_of[person].append(face_id)
        for person, theirs in faces_of.items():
            for some in _batches(theirs, _FACES_OF_A_USER):
                await self._call("disassociate_faces", collection, accept={_NOT_FOUND}, UserId=person, FaceIds=some)
        left: dict[str, str | None] = {}
        for some in _batches(people, _FACES_AT_ONCE):
            answer = await self._call("delete_faces", collection, accept={_NOT_FOUND}, FaceIds=some)
            with _understood():
                left |= {
                    each["FaceId"]: each.get("UserId")
                    for each in answer.get("UnsuccessfulFaceDeletions", [])
                    if "FACE_NOT_FOUND" not in each["Reasons"]
                }
        return left

    def _name(self, collection: str) -> str:
        """What the collection is called in the service."""
        return self._collection_id if collection == DEFAULT_COLLECTION else f"{self._collection_id}.{collection}"

    async def _faces(self, collection: str, **parameters: Any) -> list[GalleryFace]:  # noqa: ANN401 - whatever it takes
        return await self._listed("list_faces", collection, _gallery_faces, MaxResults=_FACES_AT_ONCE, **parameters)

    async def _listed(
        self,
        operation: str,
        collection: str,
        read: Callable[[Mapping[str, Any]], Iterable[T]],
        **parameters: Any,  # noqa: ANN401 - whatever the operation takes
    ) -> list[T]:
        """What is read of all pages."""
        found: list[T] = []
        while page := await self._call(operation, collection, **parameters):
            with _understood():
                found += read(page)
            if not page.get("NextToken"):
                break
            parameters["NextToken"] = page["NextToken"]
        return found

    async def _call(
        self,
        operation: str,
        collection: str | None = None,
        /,
        *,
        accept: Collection[str] = (),
        **parameters: Any,  # noqa: ANN401 - whatever the service takes
    ) -> dict[str, Any]:
        """The service's answer, which is empty after a refusal that is accepted and at no other time."""
        if collection is not None:
            parameters["CollectionId"] = name = self._name(collection)
            if len(name) > _LONGEST_ID:  # Rekognition has none, but would not say so
                if _NOT_FOUND in accept:
                    return {}
                raise _error(_NOT_FOUND, operation)
        pauses = iter(_PAUSES_SECONDS)
        while True:
            try:
                return await self._client.call(operation, **parameters)
            except AwsRefusal as refusal:
                reason = _reason(refusal)
                if reason in accept:
                    return {}
                pause = next(pauses, None)
                if reason != _CONFLICT or pause is None:
                    raise _error(reason, operation) from refusal
            await asyncio.sleep(pause)


def _reason(refusal: AwsRefusal) -> str:
    # The only refusal that has to be told from others of its code by the message.
    no_face = refusal.code == "InvalidParameterException" and "no faces" in refusal.message
    return _NO_FACE if no_face else refusal.code


def _error(reason: str, operation: str) -> AwsError:
    if reason == _NOT_FOUND:
        return AwsCollectionMissingError("the collection, or a person in it, does not exist in Rekognition any more")
    if reason == _CONFLICT:
        return AwsServiceError("Rekognition is still busy with an earlier change of the same person; try again shortly")
    return AwsServiceError(f"Rekognition refused {operation}")


def _face(detail: Mapping[str, Any], sent: SentImage) -> Face:
    points = {
        _LANDMARKS[landmark["Type"]]: sent.point(landmark)
        for landmark in detail["Landmarks"]
        if landmark["Type"] in _LANDMARKS
    }
    return Face(sent.box(detail["BoundingBox"]), Landmarks(**points), detail["Confidence"] / 100)


def _gallery_faces(page: Mapping[str, Any]) -> Iterator[GalleryFace]:
    for face in page["Faces"]:
        yield GalleryFace(face["FaceId"], face.get("ExternalImageId"), face.get("UserId"))


def _people(page: Mapping[str, Any]) -> Iterator[str]:
    for user in page["Users"]:
        yield user["UserId"]


def _area(face: Mapping[str, Any]) -> float:
    width: float = face["BoundingBox"]["Width"]
    height: float = face["BoundingBox"]["Height"]
    return width * height


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


@contextmanager
def _understood() -> Iterator[None]:
    """Around the reading of an answer: without what the service promises to say it is none."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise AwsServiceError("Rekognition answered with something that is no answer") from error
