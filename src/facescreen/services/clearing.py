"""A reviewer's word that a face is not somebody on the list, and its withdrawal."""

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.config import ModelName
from facescreen.db import blacklist, clearances
from facescreen.db.clearances import NewClearance
from facescreen.db.connection import Database
from facescreen.domain.faces import Face, Vector
from facescreen.domain.screening import Match, ScreenedFace, Screening
from facescreen.domain.trail import Action
from facescreen.errors import (
    ClearanceNotFoundError,
    EntryChangedError,
    FaceNotFoundError,
    MatchNotFoundError,
    OptionNotAvailableError,
)
from facescreen.recognition.catalog import MODELS
from facescreen.services.cleared import ClearedFaces
from facescreen.services.screening import present_screening
from facescreen.services.trail import record


class ClearingService:
    """Clears faces of results of being a person, and takes that back.

    Both methods raise :class:`facescreen.errors.ResultNotFoundError`, :class:`facescreen.errors.FaceNotFoundError` and
    :class:`facescreen.errors.MatchNotFoundError` where there is no such result, face or match.

    Args:
        cleared: ``None`` where an outside service keeps the faces and there are no embeddings.
    """

    def __init__(self, *, database: Database, cleared: ClearedFaces | None) -> None:
        self._database = database
        self._cleared = cleared

    async def clear(self, screening_id: int, face_index: int, *, entry_id: int, note: str) -> Screening:
        """The result once the face's matches of the entry do not count; later screenings of such faces follow.

        Doing it again replaces the note, and lets a clearance that expired hold again.

        Raises:
            OptionNotAvailableError: the result is of an outside service, or nothing here makes embeddings.
            PictureGoneError: the result's picture cannot be read.
            EntryChangedError: the entry's photos changed meanwhile, so that it may be another person now.
            NotReadyError: the weights or packages of the result's model are missing.
        """
        async with self._database.read() as connection:
            screening = await present_screening(connection, screening_id)
            face = _face(screening, face_index)
            _matches(face, entry_id)
            photos = await _photos(connection, entry_id)
        space, vector = await self._embed(screening, face.face)
        async with self._database.write() as connection:
            _matches(_face(await present_screening(connection, screening_id), face_index), entry_id)
            if await _photos(connection, entry_id) != photos:
                raise EntryChangedError("the photos of this entry changed meanwhile; look at them again")
            cleared = NewClearance(entry_id, screening_id, face_index, note=note, space=space, vector=vector)
            await clearances.insert_clearance(connection, cleared)
            await record(connection, Action.CLEAR, result_ids=[screening_id], entry_ids=[entry_id])
            return await present_screening(connection, screening_id)

    async def undo(self, screening_id: int, face_index: int, *, entry_id: int) -> Screening:
        """The result once the face's matches of the entry count again, as they do wherever the clearance was applied.

        Raises:
            ClearanceNotFoundError: the face was not cleared of being this person.
        """
        async with self._database.write() as connection:
            matches = _matches(_face(await present_screening(connection, screening_id), face_index), entry_id)
            carried = {match.clearance.id for match in matches if match.clearance is not None}
            if not carried:
                raise ClearanceNotFoundError(f"face {face_index} was not cleared of being entry {entry_id}")
            for clearance_id in carried:
                await clearances.undo(connection, clearance_id)
            await record(connection, Action.UNCLEAR, result_ids=[screening_id], entry_ids=[entry_id])
            screening = await present_screening(connection, screening_id)
        await self._database.truncate_wal()
        return screening

    async def _embed(self, screening: Screening, face: Face) -> tuple[str, Vector]:
        """The face's raw embedding (dimension,) by the result's model, after its space."""
        model = _model_of(screening)
        if self._cleared is None or model is None:
            raise OptionNotAvailableError("faces that an outside service compared have no embedding to clear them by")
        return await self._cleared.embed(screening, face, model)


def _face(screening: Screening, face_index: int) -> ScreenedFace:
    if face_index >= len(screening.faces):
        raise FaceNotFoundError(f"result {screening.id} has no face {face_index}")
    return screening.faces[face_index]


def _matches(face: ScreenedFace, entry_id: int) -> list[Match]:
    """The face's matches of the entry, at least one."""
    found = [match for match in face.matches if match.entry_id == entry_id]
    if not found:
        raise MatchNotFoundError(f"this face has no match of entry {entry_id}")
    return found


async def _photos(connection: AsyncConnection, entry_id: int) -> set[int]:
    """Ids of the entry's reference images."""
    entry = await blacklist.get_entry(connection, entry_id)
    return {image.id for image in entry.images} if entry is not None else set()


def _model_of(screening: Screening) -> ModelName | None:
    """What made the embeddings that the result rests on, ``None`` for an outside service."""
    return next((model for model in MODELS if model == screening.model_name), None)
