"""Collections, the people in them, their photos, and the ordered feed of changes to all three."""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from facescreen.domain.faces import Face
from facescreen.domain.quality import FaceQuality

COLLECTION_NAME = re.compile(r"^[a-zA-Z0-9_.\-]{1,255}$")
"""What a collection may be called: ``CollectionId`` of the Rekognition service model."""

OUR_USER_ID = re.compile(r"fs-[0-9a-f]{16}")
"""What :func:`new_user_id` gives."""

MAX_NAME_LENGTH = 200
"""Longest name of a person, in characters."""

DEFAULT_COLLECTION = "default"
"""Name of the collection that requests mean if they name none."""


class Status(StrEnum):
    """How far an entry or a photo is known to everybody who has to know it; only active ones match."""

    PENDING = "pending"
    """Stored here; the outside service does not have all of it yet."""
    ACTIVE = "active"
    """Stored everywhere."""
    WITHDRAWING = "withdrawing"
    """To be deleted; the outside service may still have some of it."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A list of people that is searched as a whole, and apart from all others."""

    id: int
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A stored photo of an entry, with the one face in it that the entry is recognized by.

    Attributes:
        photo: name of the photo in the photo store, ``<folder>/<file>``. Faces of one group photo may share it.
        watched: file below the blacklist folder that this face stands and falls with, ``None`` without.
        face_id: outward id of the face, a UUID; ``None`` until the outside service gave one.
        image_id: outward id of the photo that was enrolled, a UUID.
        external_image_id: the caller's own name for the photo, if one was given.
        sha256: of the stored photo's bytes, in hex.
        width, height: of the upright photo, in pixels.
        quality: of the picture of the face, ``None`` for photos from before it was measured.
        quality_override: why the photo was taken though it misses :data:`facescreen.domain.quality.ENROLLMENT_LIMITS`.
    """

    id: int
    entry_id: int
    photo: str
    watched: str | None
    status: Status
    face_id: str | None
    image_id: str
    external_image_id: str | None
    sha256: str
    width: int
    height: int
    face: Face
    detector: str
    created_at: datetime
    quality: FaceQuality | None = None
    quality_override: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A person to look for, and why.

    Attributes:
        collection: name of the collection that the entry is in.
        folder: where its photos are put by hand, below the blacklist folder.
        user_id: outward id of the person within the collection; ``None`` for a face that was never made a person.
        expires_at: from then on it matches nobody and is withdrawn; ``None``: never.
    """

    id: int
    collection: str
    name: str
    reason: str
    folder: str
    user_id: str | None
    status: Status
    created_at: datetime
    updated_at: datetime
    images: tuple[ReferenceImage, ...]
    expires_at: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        """Whether it matches nobody any more; from the very moment that it expires."""
        return self.expires_at is not None and self.expires_at <= now


class EntryChanges(TypedDict, total=False):
    """What of an entry is to change; what is not here stays."""

    name: str
    reason: str
    expires_at: datetime | None


def new_user_id() -> str:
    """An outward id that no other entry has."""
    return f"fs-{secrets.token_hex(8)}"


class ChangeKind(StrEnum):
    """What happened to the list."""

    EMBEDDED = "embedded"
    """A reference image got an embedding or a face in the outside service, by enrollment or later."""
    WITHDRAWN = "withdrawn"
    """A reference image and its embeddings are gone, or an entry is."""
    EDITED = "edited"
    """Name or reason of an entry changed, or which of its photos are whose."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change feed. ``version`` grows with every committed change and is never reused."""

    version: int
    kind: ChangeKind
    entry_id: int
    reference_image_id: int | None
