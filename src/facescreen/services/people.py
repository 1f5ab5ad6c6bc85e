"""People of a collection by their outward ids: who there is, and which faces are whose.

Each change is one transaction together with its answer, so that a client that repeats a request which it got no answer
to, with its token, is told what was done and does nothing twice.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.backends.base import EmbeddingBackend
from facescreen.config import ModelName
from facescreen.db import blacklist, members, request_tokens
from facescreen.db.blacklist import NewEntry
from facescreen.db.connection import Database
from facescreen.db.members import KnownFace, Person
from facescreen.db.request_tokens import Answered
from facescreen.domain.blacklist import Collection, Entry, Status
from facescreen.domain.distances import Metric, distances
from facescreen.domain.trail import Action
from facescreen.errors import ConflictError, EntryNotFoundError, NotFoundError
from facescreen.recognition.catalog import distance_of, similarity
from facescreen.services.answering import AnsweringModel
from facescreen.services.blacklist import lone_face, new_folder
from facescreen.services.collections import CollectionService, present_collection
from facescreen.services.register import Register
from facescreen.services.reindex import ReindexService
from facescreen.services.trail import record

MAX_FACES = 100
"""Faces that can be associated with one person: the documentation of AssociateFaces in Rekognition's service model."""


class TokenReusedError(Exception):
    """The token was given to a request with other parameters before. Only the facade knows tokens."""


class TooManyFacesError(Exception):
    """The person would have more than :data:`MAX_FACES` faces. Only the facade has this limit."""


class Obstacle(StrEnum):
    """Why a face does not become or cease to be a person's."""

    MISSING = "missing"
    """It is not in the collection."""
    OTHERS = "others"
    """It is another person's."""
    UNLIKE = "unlike"
    """It does not resemble the person's other faces."""


@dataclass(frozen=True, slots=True)
class RefusedFace:
    """A face that stays as it is.

    Attributes:
        user_id: whose it is, if it is another person's.
        similarity: to the person's nearest face, if it is unlike.
    """

    face_id: str
    obstacle: Obstacle
    user_id: str | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Reassignment:
    """Faces that became, or ceased to be, a person's; those that did not; and whether the person has any now."""

    face_ids: Sequence[str]
    refused: Sequence[RefusedFace]
    has_faces: bool


class PeopleService:
    """Every method raises :class:`facescreen.errors.CollectionNotFoundError`.

    Those that take a token raise :class:`TokenReusedError`; without a token every request is new.
    """

    def __init__(
        self,
        *,
        database: Database,
        collections: CollectionService,
        register: Register,
        backend: EmbeddingBackend,
        reindex: ReindexService,
        answering: AnsweringModel,
    ) -> None:
        self._database = database
        self._collections = collections
        self._register = register
        self._backend = backend
        self._reindex = reindex
        self._answering = answering

    async def page(self, collection: str, *, after: int, limit: int) -> Sequence[Person]:
        """People from the one after the row ``after`` on, oldest first."""
        within = await self._collections.get(collection)
        async with self._database.read() as connection:
            return await members.list_people(connection, within.id, after=after, limit=limit)

    async def create(self, collection: str, user_id: str, *, token: str | None) -> None:
        """An entry without photos, named by its outward id.

        Raises:
            ConflictError: there is one with this outward id.
        """

        async def create(connection: AsyncConnection, within: Collection) -> None:
            if await blacklist.get_person(connection, within.id, user_id) is not None:
                raise ConflictError("there is a user of this id already")
            entry = NewEntry(user_id, "", new_folder(user_id), user_id)
            entry_id = await blacklist.insert_entry(connection, within.id, entry, status=Status.ACTIVE)
            await record(connection, Action.ENTRY_CREATE, collection_id=within.id, entry_ids=[entry_id])

        await self._withdraw_expired(collection, user_id)
        await self._once(collection, "CreateUser", [user_id], token=token, work=create)

    async def _withdraw_expired(self, collection: str, user_id: str) -> None:
        """Do now what a sweep would do: who has expired is nobody, and does not keep others from the id."""
        within = await self._collections.get(collection)
        async with self._database.read() as connection:
            person = await blacklist.get_person(connection, within.id, user_id)
        if person is not None and person.has_expired(datetime.now(UTC)):
            with suppress(EntryNotFoundError):
                await self._register.withdraw(person, if_expired=True)

    async def delete(self, collection: str, user_id: str, *, token: str | None) -> None:
        """Take the outward id from an entry, which stays on the list with its photos, and goes if it has none.

        Raises:
            NotFoundError: there is no such person.
        """

        async def delete(connection: AsyncConnection, within: Collection) -> int:
            person = await present_person(connection, within, user_id)
            await blacklist.set_user_id(connection, person.id, None)
            await record(connection, Action.ENTRY_UPDATE, collection_id=within.id, entry_ids=[person.id])
            return person.id

        await self._remove_empty([await self._once(collection, "DeleteUser", [user_id], token=token, work=delete)])

    async def associate(
        self, collection: str, user_id: str, face_ids: Sequence[str], *, alike: float, token: str | None
    ) -> Reassignment:
        """Make faces that are nobody's this person's; what is the person's already is passed over.

        Args:
            alike: least similarity to the nearest of the faces that the person has before.

        Raises:
            NotFoundError: there is no such person.
            TooManyFacesError: the person would have too many; nothing was done.
        """
        collection_id = (await self._collections.get(collection)).id
        model = await self._answering.with_similarity(collection_id)
        await self._reindex.ensure(collection_id, model)

        async def associate(connection: AsyncConnection, within: Collection) -> dict[str, Any]:
            person = await present_person(connection, within, user_id)
            known = await _known(connection, within, face_ids)
            refused = [*_refused(face_ids, known, user_id)]
            free = {id_: face for id_, face in known.items() if face.user_id is None}
            if person.images and free:
                unlike = await self._unlike(connection, within, person, free=free, model=model, alike=alike)
                refused += unlike
                for each in unlike:
                    del free[each.face_id]
            if len(person.images) + len(free) > MAX_FACES:
                raise TooManyFacesError(f"a user can have at most {MAX_FACES} faces")
            left = {face.image.entry_id for face in free.values()}
            if free:
                await blacklist.move_images(connection, [face.image.id for face in free.values()], person.id)
                await record(connection, Action.IMAGE_MOVE, collection_id=within.id, entry_ids=[person.id, *left])
            return {**asdict(Reassignment(list(free), refused, bool(person.images or free))), "left": sorted(left)}

        parameters = [user_id, [*face_ids], alike]
        answer = await self._once(collection, "AssociateFaces", parameters, token=token, work=associate)
        await self._remove_empty(answer["left"])
        await self._database.truncate_wal()  # of clearances, which moved photos end
        return _reassignment(answer)

    async def disassociate(
        self, collection: str, user_id: str, face_ids: Sequence[str], *, token: str | None
    ) -> Reassignment:
        """Make faces of this person nobody's, each an entry of its own; what is nobody's already is passed over.

        Raises:
            NotFoundError: there is no such person.
        """

        async def disassociate(connection: AsyncConnection, within: Collection) -> dict[str, Any]:
            person = await present_person(connection, within, user_id)
            known = await _known(connection, within, face_ids)
            theirs = {id_: face for id_, face in known.items() if face.user_id == user_id}
            made = []
            for face in theirs.values():
                entry = lone_face(face.image.external_image_id, face.image.image_id)._replace(
                    expires_at=person.expires_at
                )
                entry_id = await blacklist.insert_entry(connection, within.id, entry, status=Status.ACTIVE)
                await blacklist.move_images(connection, [face.image.id], entry_id)
                made.append(entry_id)
            if made:
                await record(connection, Action.IMAGE_MOVE, collection_id=within.id, entry_ids=[person.id, *made])
            has_faces = len(person.images) > len(theirs)
            return asdict(Reassignment(list(theirs), [*_refused(face_ids, known, user_id)], has_faces))

        answer = await self._once(
            collection, "DisassociateFaces", [user_id, [*face_ids]], token=token, work=disassociate
        )
        await self._database.truncate_wal()
        return _reassignment(answer)

    async def forget_expired(self) -> None:
        """Forget what was answered to requests that nobody repeats any more."""
        async with self._database.write() as connection:
            await request_tokens.forget_expired(connection)
        await self._database.truncate_wal()

    async def _once(
        self,
        collection: str,
        operation: str,
        parameters: Sequence[Any],
        *,
        token: str | None,
        work: Callable[[AsyncConnection, Collection], Awaitable[Any]],
    ) -> Any:  # noqa: ANN401 - whatever JSON can say
        """What the work answers, or answered when it was asked with this token before."""
        digest = sha256(json.dumps([collection, *parameters]).encode()).hexdigest()
        async with self._database.write() as connection:
            await request_tokens.forget_expired(connection)
            if token is not None and (before := await request_tokens.answered(connection, operation, token)):
                if before.sha256 != digest:
                    raise TokenReusedError("the request token was used with other parameters")
                return before.answer
            within = await present_collection(connection, collection)
            answer = await work(connection, within)
            if token is not None:
                answered = Answered(digest, answer)
                await request_tokens.remember(
                    connection, within.id, operation=operation, token=token, answered=answered
                )
            return answer

    async def _unlike(
        self,
        connection: AsyncConnection,
        within: Collection,
        person: Entry,
        *,
        free: dict[str, KnownFace],
        model: ModelName,
        alike: float,
    ) -> list[RefusedFace]:
        """Those of the free faces that resemble none of the person's; one that cannot be compared resembles none."""
        space = self._backend.space(model)
        _, theirs = await blacklist.vectors(connection, within.id, space, ids=[image.id for image in person.images])
        ids, vectors = await blacklist.vectors(
            connection, within.id, space, ids=[face.image.id for face in free.values()]
        )
        nearest = dict.fromkeys((face.image.id for face in free.values()), Metric.COSINE.maximum)
        if len(theirs):
            found = (float(distances(Metric.COSINE, vector, theirs).min()) for vector in vectors)
            nearest.update(zip(ids, found, strict=True))
        radius = distance_of(model, alike)
        return [
            RefusedFace(face_id, Obstacle.UNLIKE, similarity=similarity(model, nearest[face.image.id]))
            for face_id, face in free.items()
            if nearest[face.image.id] > radius
        ]

    async def _remove_empty(self, entry_ids: Iterable[int]) -> None:
        """Remove those of the entries that are nobody's and have no photo, with whatever else is in their folders."""
        for entry_id in entry_ids:
            async with self._database.read() as connection:
                entry = await blacklist.get_entry(connection, entry_id)
            if entry is not None and entry.user_id is None and not entry.images:
                with suppress(EntryNotFoundError):  # somebody was faster
                    # Of no photo in particular: the register removes the entry if it has none in that moment.
                    await self._register.withdraw(entry, [])


async def present_person(connection: AsyncConnection, within: Collection, user_id: str) -> Entry:
    """The person with this outward id, or :class:`NotFoundError`."""
    person = await blacklist.get_person(connection, within.id, user_id)
    if person is None or person.has_expired(datetime.now(UTC)):
        raise NotFoundError("there is no user of this id")
    return person


async def _known(connection: AsyncConnection, within: Collection, face_ids: Iterable[str]) -> dict[str, KnownFace]:
    """The collection's faces of these ids, in their order."""
    wanted = dict.fromkeys(face_ids)
    found = await members.find_faces(connection, within.id, wanted)
    return {face_id: found[face_id] for face_id in wanted if face_id in found}


def _refused(face_ids: Iterable[str], known: dict[str, KnownFace], user_id: str) -> Iterable[RefusedFace]:
    for face_id in dict.fromkeys(face_ids):
        if face_id not in known:
            yield RefusedFace(face_id, Obstacle.MISSING)
        elif (owner := known[face_id].user_id) not in {None, user_id}:
            yield RefusedFace(face_id, Obstacle.OTHERS, user_id=owner)


def _reassignment(answer: dict[str, Any]) -> Reassignment:
    refused = [RefusedFace(**{**each, "obstacle": Obstacle(each["obstacle"])}) for each in answer["refused"]]
    return Reassignment(answer["face_ids"], refused, answer["has_faces"])
