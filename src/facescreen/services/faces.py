"""Faces one by one: found in images, kept in collections, listed and removed there, and compared with each other."""

import heapq
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from collections.abc import Collection as Ids
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from facescreen.backends.base import EmbeddingBackend
from facescreen.config import DetectorName, ModelName
from facescreen.db import blacklist, members
from facescreen.db.blacklist import Embedded
from facescreen.db.connection import Database
from facescreen.db.members import KnownFace
from facescreen.domain.blacklist import Collection
from facescreen.domain.distances import Metric, distances
from facescreen.domain.faces import Box, Face, Pixels, Vectors
from facescreen.domain.quality import FaceQuality
from facescreen.domain.trail import Action
from facescreen.errors import FaceUnusableError, InputError, NoFaceError, NotFoundError, UnsupportedFormatError
from facescreen.images.decode import format_of
from facescreen.pool import WorkPool
from facescreen.recognition.catalog import distance_of, similarity
from facescreen.services.answering import AnsweringModel
from facescreen.services.blacklist import lone_face
from facescreen.services.collections import CollectionService
from facescreen.services.enrollment import Enrolled
from facescreen.services.intake import Intake
from facescreen.services.people import present_person
from facescreen.services.quality import BARS, QualityFault, QualityFilter, assess
from facescreen.services.register import Addition, Register, photo_name
from facescreen.services.reindex import ReindexService
from facescreen.services.replica import ListReplica
from facescreen.services.trail import TrailService

MAX_FACES = 100
"""The largest faces of an image that are looked at: https://docs.aws.amazon.com/rekognition/latest/dg/limits.html."""

MIN_SIDE = 80
"""Pixels that an image is wide and high at least, by the same source."""

_LOOKED_UP_AT_ONCE = 500
"""Candidates whose owners are read before it is asked whether that is enough."""

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class SeenFace:
    """A face in an image of this size, and how good the picture of it is."""

    face: Face
    quality: FaceQuality
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class UnusedFace:
    """A face that was seen and not used: what it lacks, or nothing where others came first."""

    seen: SeenFace
    faults: tuple[QualityFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Indexed:
    """The faces of an image that are in a collection now, the largest first, and those that were not taken."""

    faces: Sequence[tuple[KnownFace, SeenFace]]
    unused: Sequence[UnusedFace]


@dataclass(frozen=True, slots=True)
class Removal:
    """Outward ids of faces that were removed, that are somebody's (and whose), and that no face has."""

    removed: Sequence[str]
    associated: Sequence[tuple[str, str]]
    missing: Sequence[str]


@dataclass(frozen=True, slots=True)
class FaceMatch:
    """A face of a collection, and how alike it is in (0, 100]."""

    face: KnownFace
    similarity: float


@dataclass(frozen=True, slots=True)
class PersonMatch:
    """A person of a collection, and how alike the nearest of its faces is in (0, 100]."""

    user_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One face and those of another image: matches with their similarity, the most alike first, and the others."""

    source: SeenFace
    matches: Sequence[tuple[SeenFace, float]]
    others: Sequence[SeenFace]


@dataclass(frozen=True, slots=True)
class PeopleInImage:
    """Whom the searched face of an image resembles, and the faces that were not searched; no face, no matches."""

    searched: SeenFace | None
    matches: Sequence[PersonMatch]
    unused: Sequence[UnusedFace]


class FaceService:
    """Works with the configured detector, and in a collection with the model that answers there.

    A model has to have a similarity. Images are compared with each other, and kept, by the configured model.

    Whatever takes the name of a collection raises :class:`facescreen.errors.CollectionNotFoundError`; whatever takes an
    image raises :class:`facescreen.errors.InputError` for one that is no JPEG or PNG, damaged, too large or too small.
    ``alike`` is the least similarity of a match, ``most`` how many matches are wanted, the most alike first.
    """

    def __init__(
        self,
        *,
        database: Database,
        collections: CollectionService,
        register: Register,
        backend: EmbeddingBackend,
        replica: ListReplica,
        reindex: ReindexService,
        intake: Intake,
        pool: WorkPool,
        trail: TrailService,
        detector: DetectorName,
        answering: AnsweringModel,
    ) -> None:
        self._database = database
        self._collections = collections
        self._register = register
        self._backend = backend
        self._replica = replica
        self._reindex = reindex
        self._intake = intake
        self._pool = pool
        self._trail = trail
        self._detector = detector
        self._answering = answering
        self._model = answering.configured

    async def collections(self, *, after: int, limit: int) -> Sequence[Collection]:
        """Collections from the one after the row ``after`` on, oldest first."""
        async with self._database.read() as connection:
            return await members.list_collections(connection, after=after, limit=limit)

    async def detect(self, data: bytes) -> Sequence[SeenFace]:
        """The faces of an image, the largest first."""
        _, seen = await self._look(data)
        await self._trail.note(Action.DETECT)
        return seen

    async def index(
        self,
        collection: str,
        data: bytes,
        *,
        external_image_id: str | None,
        most: int,
        quality: QualityFilter,
    ) -> Indexed:
        """Keep the largest faces of an image, each as an entry that is no person yet.

        A face that was kept of the same image under the same name is not kept twice. Where two do that at the same
        time, the face that came first stays.
        """
        within = await self._collections.get(collection)
        image, seen = await self._look(data)
        usable, unused = _sorted_out(seen, quality)
        chosen, surplus = usable[:most], usable[most:]
        kept = await self._keep(within, image, chosen, external_image_id=external_image_id) if chosen else []
        return Indexed(list(zip(kept, chosen, strict=True)), [*unused, *map(UnusedFace, surplus)])

    async def page(
        self,
        collection: str,
        *,
        after: int,
        limit: int,
        user_id: str | None = None,
        face_ids: Ids[str] | None = None,
    ) -> Sequence[KnownFace]:
        """Faces from the one after the row ``after`` on, oldest first: only this person's, only these, where given."""
        within = await self._collections.get(collection)
        async with self._database.read() as connection:
            return await members.list_faces(
                connection, within.id, after=after, limit=limit, user_id=user_id, face_ids=face_ids
            )

    async def remove(self, collection: str, face_ids: Iterable[str]) -> Removal:
        """Remove faces that are no person's, with their photos; each is gone when this returns."""
        within = await self._collections.get(collection)
        left = dict.fromkeys(face_ids)
        removed, associated, missing = [], [], []
        while left:
            async with self._database.read() as connection:
                known = await members.find_faces(connection, within.id, left)
            for face_id in list(left):
                face = known.get(face_id)
                if face is None:
                    missing.append(face_id)
                elif face.user_id is not None:
                    associated.append((face_id, face.user_id))
                # Somebody who was faster has removed it or made it somebody's: the next round tells which.
                elif await self._withdraw(face):
                    removed.append(face_id)
                else:
                    continue
                del left[face_id]
        return Removal(removed, associated, missing)

    async def search_by_face(self, collection: str, face_id: str, *, alike: float, most: int) -> Sequence[FaceMatch]:
        """Faces that resemble a face of the collection, without itself.

        Raises:
            NotFoundError: there is no such face.
        """
        within = await self._collections.get(collection)
        face = await self._face(within, face_id)

        def other(known: KnownFace) -> KnownFace | None:
            return known if known.image.id != face.image.id else None

        model, vectors = await self._vectors_of(within, [face])
        found = await self._near(within, model, vectors, of=other, alike=alike, most=most)
        return [FaceMatch(*match) for match in found]

    async def search_by_image(
        self, collection: str, data: bytes, *, alike: float, most: int, quality: QualityFilter
    ) -> tuple[SeenFace, Sequence[FaceMatch]]:
        """The largest face of an image, and the faces that resemble it.

        Raises:
            NoFaceError: there is none that is good enough.
        """
        within = await self._collections.get(collection)
        image, seen = await self._look(data)
        searched = _largest(seen, quality)
        model = await self._answering.with_similarity(within.id)
        vectors = await self._embed(image, [searched], model)
        found = await self._near(within, model, vectors, of=lambda face: face, alike=alike, most=most)
        return searched, [FaceMatch(*match) for match in found]

    async def people_by_face(self, collection: str, face_id: str, *, alike: float, most: int) -> Sequence[PersonMatch]:
        """People who resemble a face of the collection, without the person that it is associated with.

        Raises:
            NotFoundError: there is no such face.
        """
        within = await self._collections.get(collection)
        face = await self._face(within, face_id)
        model, vectors = await self._vectors_of(within, [face])
        return await self._people(within, model, vectors, without=face.user_id, alike=alike, most=most)

    async def people_by_person(
        self, collection: str, user_id: str, *, alike: float, most: int
    ) -> Sequence[PersonMatch]:
        """People who resemble a person of the collection, without itself.

        Raises:
            NotFoundError: there is no such person.
        """
        within = await self._collections.get(collection)
        async with self._database.read() as connection:
            person = await present_person(connection, within, user_id)
        faces = [KnownFace(image, user_id) for image in person.images]
        if not faces:
            return []
        model, vectors = await self._vectors_of(within, faces)
        return await self._people(within, model, vectors, without=user_id, alike=alike, most=most)

    async def people_by_image(
        self, collection: str, data: bytes, *, alike: float, most: int, quality: QualityFilter
    ) -> PeopleInImage:
        """People who resemble the largest face of an image that is good enough."""
        within = await self._collections.get(collection)
        image, seen = await self._look(data)
        usable, unused = _sorted_out(seen, quality)
        if not usable:
            return PeopleInImage(None, (), unused)
        model = await self._answering.with_similarity(within.id)
        vectors = await self._embed(image, usable[:1], model)
        found = await self._people(within, model, vectors, alike=alike, most=most)
        return PeopleInImage(usable[0], found, [*map(UnusedFace, usable[1:]), *unused])

    async def compare(self, source: bytes, target: bytes, *, alike: float, quality: QualityFilter) -> Comparison:
        """The largest face of one image compared with each face of another one; nothing is kept.

        Raises:
            NoFaceError: there is no face in one of the images, or none in the first that is good enough.
        """
        source_image, source_faces = await self._look(source)
        searched = _largest(source_faces, quality)
        query = await self._embed(source_image, [searched], self._model)
        target_image, target_faces = await self._look(target)
        if not target_faces:
            raise _no_face()
        usable, _ = _sorted_out(target_faces, quality)
        vectors = await self._embed(target_image, usable, self._model)
        await self._trail.note(Action.COMPARE)
        found = distances(Metric.COSINE, query[0], vectors).tolist() if usable else []
        radius = distance_of(self._model, alike)
        matches = [
            (face, similarity(self._model, distance))
            for distance, face in sorted(zip(found, usable, strict=True), key=lambda pair: pair[0])
            if distance <= radius
        ]
        others = [face for distance, face in zip(found, usable, strict=True) if distance > radius]
        return Comparison(searched, matches, others)

    async def _look(self, data: bytes) -> tuple[Pixels, list[SeenFace]]:
        if format_of(data) not in {"JPEG", "PNG"}:
            raise UnsupportedFormatError("the image is neither JPEG nor PNG")
        image = await self._intake.decode(data)
        height, width, _ = image.shape
        if min(height, width) < MIN_SIDE:
            raise InputError(f"the image must be at least {MIN_SIDE} pixels wide and high")
        faces = await self._backend.detect(image, self._detector)
        largest = sorted(faces, key=lambda face: -face.box.area)[:MAX_FACES]
        qualities = await self._pool.run(lambda: [assess(image, face) for face in largest])
        return image, [SeenFace(face, quality, width, height) for face, quality in zip(largest, qualities, strict=True)]

    async def _embed(self, image: Pixels, seen: Sequence[SeenFace], model: ModelName) -> Vectors:
        probe = await self._backend.prepare(image, tuple(each.face for each in seen), model)
        return await self._backend.embed([probe], model)

    async def _keep(
        self, within: Collection, image: Pixels, chosen: Sequence[SeenFace], *, external_image_id: str | None
    ) -> list[KnownFace]:
        """The faces in the collection, in order."""
        photo = await self._register.photo(Enrolled(image, chosen[0].face, chosen[0].quality))
        known = await self._known(within, photo.sha256, external_image_id)
        new = [each for each in chosen if each.face.box not in known]
        if not new:
            return [known[each.face.box] for each in chosen]
        image_id = next((face.image.image_id for face in known.values()), str(uuid.uuid4()))
        entries = [lone_face(external_image_id, image_id) for _ in new]
        photo = replace(
            photo,
            image_id=image_id,
            external_image_id=external_image_id,
            photo=photo_name(entries[0].folder, photo.sha256),
        )
        space = self._backend.space(self._model)
        additions = [
            Addition(
                entry, [replace(photo, enrolled=Enrolled(image, each.face, each.quality, Embedded(space, vector)))]
            )
            for entry, each, vector in zip(entries, new, await self._embed(image, new, self._model), strict=True)
        ]
        added = [KnownFace(entry.images[0], None) for entry in await self._register.add(within, additions)]
        settled = {face.image.face.box: face for face in added} | known
        settled |= await self._known(within, photo.sha256, external_image_id)
        first = {face.image.id for face in settled.values()}
        for face in added:
            if face.image.id not in first:
                await self._withdraw(face)
        return [settled[each.face.box] for each in chosen]

    async def _known(self, within: Collection, sha256: str, external_image_id: str | None) -> dict[Box, KnownFace]:
        """The faces that were kept of a photo under this name, the first of each."""
        async with self._database.read() as connection:
            faces = await members.faces_of_photo(
                connection, within.id, sha256=sha256, external_image_id=external_image_id
            )
        return {face.image.face.box: face for face in reversed(faces)}

    async def _withdraw(self, face: KnownFace) -> bool:
        """Remove a face that is no person's; whether it still was where it had been found."""
        async with self._database.read() as connection:
            entry = await blacklist.get_entry(connection, face.image.entry_id)
        if entry is None or entry.user_id is not None:
            return False
        with suppress(NotFoundError):
            await self._register.withdraw(entry, [face.image.id])
            return True
        return False

    async def _face(self, within: Collection, face_id: str) -> KnownFace:
        async with self._database.read() as connection:
            known = await members.find_faces(connection, within.id, [face_id])
        if face_id not in known:
            raise NotFoundError("there is no face of this id in the collection")
        return known[face_id]

    async def _vectors_of(self, within: Collection, faces: Sequence[KnownFace]) -> tuple[ModelName, Vectors]:
        """The model that answers in the collection, and the embeddings that it made of these faces."""
        model = await self._answering.with_similarity(within.id)
        await self._reindex.ensure(within.id, model)
        async with self._database.read() as connection:
            _, vectors = await blacklist.vectors(
                connection, within.id, self._backend.space(model), ids=[face.image.id for face in faces]
            )
        if not len(vectors):
            raise FaceUnusableError("the stored photo of this face cannot be read any more")
        return model, vectors

    async def _people(
        self,
        within: Collection,
        model: ModelName,
        vectors: Vectors,
        *,
        without: str | None = None,
        alike: float,
        most: int,
    ) -> list[PersonMatch]:
        """The people with a face so alike to one of the embeddings, each by its nearest."""

        def other(known: KnownFace) -> str | None:
            return known.user_id if known.user_id != without else None

        found = await self._near(within, model, vectors, of=other, alike=alike, most=most)
        return [PersonMatch(*match) for match in found]

    async def _near(
        self,
        within: Collection,
        model: ModelName,
        vectors: Vectors,
        *,
        of: Callable[[KnownFace], T | None],
        alike: float,
        most: int,
    ) -> list[tuple[T, float]]:
        """What the collection's faces are of that are so alike to one of the embeddings, each by the nearest of them.

        Args:
            model: made the embeddings.
            of: what a face counts as; one of ``None`` is passed over.
        """
        await self._reindex.ensure(within.id, model)
        radius = distance_of(model, alike)
        version = 0
        nearest: dict[int, float] = {}
        # One by one: all candidates of all faces of a person would be many times the collection.
        for row in range(len(vectors)):
            state, (candidates,) = await self._replica.search(
                within.id, vectors[row : row + 1], model, metric=Metric.COSINE, radius=lambda _size: radius
            )
            version = state.version
            for candidate in candidates:
                known = nearest.get(candidate.reference_image_id, radius)
                nearest[candidate.reference_image_id] = min(candidate.distance, known)
        queue = [(distance, id_) for id_, distance in nearest.items()]
        heapq.heapify(queue)
        found: dict[T, tuple[float, int]] = {}
        async with self._database.read() as connection:
            while queue and len(found) < most:
                part = [heapq.heappop(queue) for _ in range(min(_LOOKED_UP_AT_ONCE, len(queue)))]
                owned = await blacklist.references(connection, (id_ for _, id_ in part))
                for distance, id_ in part:
                    if id_ in owned:
                        owner, image = owned[id_]
                        if (what := of(KnownFace(image, owner.user_id))) is not None:
                            found.setdefault(what, (similarity(model, distance), owner.id))
        matches = list(found.items())[:most]
        await self._trail.note(
            Action.SEARCH,
            collection_id=within.id,
            list_version=version,
            entry_ids={entry_id for _, (_, entry_id) in matches},
        )
        return [(what, alike) for what, (alike, _) in matches]


def _sorted_out(seen: Iterable[SeenFace], quality: QualityFilter) -> tuple[list[SeenFace], list[UnusedFace]]:
    """The faces that are good enough, and the others."""
    usable, unused = [], []
    for each in seen:
        if faults := BARS[quality].faults(each.quality):
            unused.append(UnusedFace(each, faults))
        else:
            usable.append(each)
    return usable, unused


def _largest(seen: Iterable[SeenFace], quality: QualityFilter) -> SeenFace:
    usable, _ = _sorted_out(seen, quality)
    if not usable:
        raise _no_face()
    return usable[0]


def _no_face() -> NoFaceError:
    return NoFaceError("There are no faces in the image. Should be at least 1.")
