"""A Rekognition on a loopback socket that passes everything on to a facescreen, and fails as it is told."""

import json
from contextlib import closing
from dataclasses import replace
from email.message import Message
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from tests.rekognition_server import (
    Call,
    Collection,
    IndexedFace,
    Partial,
    RekognitionServer,
    Reply,
    Silence,
    Square,
)

_DONE_AND_NOT = {
    "IndexFaces": ("FaceRecords", "UnindexedFaces"),
    "DeleteFaces": ("DeletedFaces", "UnsuccessfulFaceDeletions"),
    "AssociateFaces": ("AssociatedFaces", "UnsuccessfulFaceAssociations"),
    "DisassociateFaces": ("DisassociatedFaces", "UnsuccessfulFaceDisassociations"),
}


class FacadeProxy(RekognitionServer):
    """Fails as its base class does; what answers otherwise is a facescreen, which checks requests as they were signed.

    ``Partial`` lets the facescreen do all of it, and then denies it. ``collections`` is what :meth:`look` saw last.

    Args:
        origin: address of the facescreen's Rekognition.
    """

    def __init__(self, origin: str) -> None:
        super().__init__()
        self._origin = urlsplit(origin)
        self.url += self._origin.path

    def look(self, client: Any) -> None:
        """Put into ``collections`` what the facescreen lists to a client of its own."""
        self.collections.clear()
        for name in client.list_collections()["CollectionIds"]:
            self.collections[name] = _listed(client, name)

    def reply(self, headers: Message, body: bytes) -> Reply | None:
        call = Call(headers["X-Amz-Target"].removeprefix("RekognitionService."), json.loads(body))
        fault = self._met(call)
        if isinstance(fault, Reply):
            return fault
        if fault is Silence.HANG:
            self._stopped.wait()
        if fault in {Silence.HANG, Silence.DROP}:
            return None
        reply = self._passed_on(headers, body)
        if fault is Silence.DROP_AFTER:
            return None
        return _denied(reply, call.operation, fault.reason) if isinstance(fault, Partial) else reply

    def _passed_on(self, headers: Message, body: bytes) -> Reply:
        with closing(HTTPConnection(self._origin.netloc)) as origin:
            # With the ``Host`` of this proxy, which the client has signed.
            origin.request("POST", self._origin.path, body, dict(headers.items()))
            answer = origin.getresponse()
            return Reply(answer.status, answer.read(), answer.headers["Content-Type"])


def _denied(reply: Reply, operation: str, reason: str) -> Reply:
    """The answer, in which every face that something was done with is one that it could not be done with."""
    answer = json.loads(reply.body)
    done, refused = _DONE_AND_NOT[operation]
    faces = [face if isinstance(face, dict) else {"FaceId": face} for face in answer.get(done) or ()]
    answer |= {done: [], refused: [*answer.get(refused, ()), *({**face, "Reasons": [reason]} for face in faces)]}
    return replace(reply, body=json.dumps(answer).encode())


def _listed(client: Any, name: str) -> Collection:
    """A collection as far as lists tell, which say nothing of pixels and vectors."""

    def pages(operation: str, members: str) -> list[dict[str, Any]]:
        paginator = client.get_paginator(operation)
        found: list[dict[str, Any]] = paginator.paginate(CollectionId=name).build_full_result()[members]
        return found

    faces = [
        IndexedFace(
            Square(tuple(face["BoundingBox"].values()), ()),
            b"",
            face["ImageId"],
            face.get("ExternalImageId"),
            face["FaceId"],
            face.get("UserId"),
        )
        for face in pages("list_faces", "Faces")
    ]
    users = {user["UserId"] for user in pages("list_users", "Users")}
    arn = client.describe_collection(CollectionId=name)["CollectionARN"]
    return Collection(arn, faces={face.face_id: face for face in faces}, users=users)
