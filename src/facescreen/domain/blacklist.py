"""People on the list, their photos, and the ordered feed of changes to both."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from facescreen.domain.faces import Face


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A stored photo of an entry, with the one face in it that the entry is recognized by.

    Attributes:
        identity: ``<folder>/<file>`` below the blacklist folder.
        sha256: of the stored file's bytes, in hex.
        width, height: of the upright photo, in pixels.
    """

    id: int
    entry_id: int
    identity: str
    sha256: str
    width: int
    height: int
    face: Face
    detector: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A person to look for, and why."""

    id: int
    name: str
    reason: str
    folder: str
    created_at: datetime
    updated_at: datetime
    images: tuple[ReferenceImage, ...]


class ChangeKind(StrEnum):
    """What happened to the list."""

    EMBEDDED = "embedded"
    """A reference image got an embedding, by enrollment or by re-embedding."""
    WITHDRAWN = "withdrawn"
    """A reference image and its embeddings are gone."""
    EDITED = "edited"
    """Name or reason of an entry changed."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change feed. ``version`` grows with every committed change and is never reused."""

    version: int
    kind: ChangeKind
    entry_id: int
    reference_image_id: int | None
