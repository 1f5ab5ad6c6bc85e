"""The tables. Migrations in ``db/migrations`` make them; ``alembic check`` proves that both agree."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python, naive UTC in the database: SQLite keeps no time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - interface
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - interface
        return value.replace(tzinfo=UTC) if value else None


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _face() -> list[Column[Any]]:
    """Columns of one detected face; ``landmarks`` maps landmark names to [x, y]."""
    return [
        Column("x", Integer, nullable=False),
        Column("y", Integer, nullable=False),
        Column("w", Integer, nullable=False),
        Column("h", Integer, nullable=False),
        Column("landmarks", JSON, nullable=False),
        Column("confidence", Float, nullable=False),
    ]


collections = Table(
    "collections",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

entries = Table(
    "entries",
    metadata,
    _id(),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("folder", String(255), nullable=False, unique=True),
    Column("user_id", String(128)),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, index=True),
    UniqueConstraint("collection_id", "user_id"),
    sqlite_autoincrement=True,
)

reference_images = Table(
    "reference_images",
    metadata,
    _id(),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("entry_id", ForeignKey("entries.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("photo", String(511), nullable=False, index=True),
    Column("watched", String(511), unique=True),
    Column("status", String(16), nullable=False),
    Column("face_id", String(36), unique=True),
    Column("image_id", String(36), nullable=False),
    Column("external_image_id", String(255)),
    Column("sha256", String(64), nullable=False, index=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    *_face(),
    Column("detector", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("quality", JSON),
    Column("quality_override", String(2000)),
    sqlite_autoincrement=True,
)
"""``collection_id`` is the entry's: with it here, a collection's faces are counted and read without a join.

``quality`` holds the measures by name, null for photos from before they were taken.
"""

embeddings = Table(
    "embeddings",
    metadata,
    Column(
        "reference_image_id",
        ForeignKey("reference_images.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("space", String(100), primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("sealed", Boolean, nullable=False, server_default=false()),
    Index("ix_embeddings_collection_id_space", "collection_id", "space"),
)
"""``vector`` is the raw embedding as little-endian float32, or ``sealed``: encrypted with the photo's key."""

changes = Table(
    "changes",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=True),
    Column("collection_id", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("entry_id", Integer, nullable=False),
    Column("reference_image_id", Integer),
    Column("at", UtcDateTime, nullable=False),
    Index("ix_changes_collection_id_version", "collection_id", "version"),
    sqlite_autoincrement=True,
)
"""The change feed of every collection. It names rows that may be gone, so it has no foreign keys."""

screenings = Table(
    "screenings",
    metadata,
    _id(),
    Column("collection", String(255), nullable=False),
    Column("image_identifier", String(4096), nullable=False),
    Column("detector", String(32), nullable=False),
    Column("model_name", String(32), nullable=False),
    Column("metric", String(16), nullable=False),
    Column("threshold", Float, nullable=False),
    Column("review_threshold", Float, nullable=False),
    Column("calibration", JSON),
    Column("all_references", Boolean, nullable=False),
    Column("list_version", Integer, nullable=False),
    Column("copy", String(255)),
    Column("error_code", String(64)),
    Column("error_detail", String(2000)),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("is_hit", Boolean, nullable=False),
    Column("smallest_face", Integer),
    sqlite_autoincrement=True,
)
"""``is_hit``: a face had a match when it was searched, cleared or not, and whatever became of it since."""

screened_faces = Table(
    "screened_faces",
    metadata,
    _id(),
    Column("screening_id", ForeignKey("screenings.id", ondelete="CASCADE"), nullable=False),
    Column("face_index", Integer, nullable=False),
    *_face(),
    Column("verdict", String(16), nullable=False, index=True),
    Column("quality", JSON),
    Column("reasons", JSON, nullable=False),
    UniqueConstraint("screening_id", "face_index"),
    sqlite_autoincrement=True,
)

clearances = Table(
    "clearances",
    metadata,
    _id(),
    Column("entry_id", ForeignKey("entries.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("screening_id", ForeignKey("screenings.id", ondelete="SET NULL"), index=True),
    Column("face_index", Integer, nullable=False),
    Column("note", String(2000), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expired_at", UtcDateTime),
    Column("space", String(100), nullable=False),
    Column("vector", LargeBinary),
    Column("sealed", Boolean, nullable=False, server_default=false()),
    sqlite_autoincrement=True,
)
"""Faces that a reviewer said are not the entry's person.

``vector`` is the face's embedding, null once expired; ``sealed``: encrypted with the key of the entry's first photo.
"""

matches = Table(
    "matches",
    metadata,
    _id(),
    Column("face_id", ForeignKey("screened_faces.id", ondelete="CASCADE"), nullable=False),
    Column("entry_id", ForeignKey("entries.id", ondelete="CASCADE"), nullable=False),
    Column("reference_image_id", Integer, nullable=False),
    Column("name", String(200), nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("identity", String(511), nullable=False),
    Column("target_x", Integer, nullable=False),
    Column("target_y", Integer, nullable=False),
    Column("target_w", Integer, nullable=False),
    Column("target_h", Integer, nullable=False),
    Column("grade", String(16), nullable=False),
    Column("distance", Float, nullable=False),
    Column("supporting", Integer, nullable=False),
    Column("confidence", Float),
    Column("false_alert_probability", Float),
    Column("clearance_id", ForeignKey("clearances.id"), index=True),
    Index("ix_matches_face_id_distance", "face_id", "distance"),
    Index("ix_matches_entry_id", "entry_id"),
    sqlite_autoincrement=True,
)
"""Name, reason and identity as they were when the verdict was given; an entry's deletion takes its matches along."""

calibrations = Table(
    "calibrations",
    metadata,
    _id(),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("space", String(100), nullable=False),
    Column("detector", String(32), nullable=False),
    Column("source", String(500), nullable=False),
    Column("one_in", Integer, nullable=False),
    Column("review_one_in", Integer, nullable=False),
    Column("curves", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_calibrations_collection_id_space", "collection_id", "space"),
    sqlite_autoincrement=True,
)
"""Measured false alerts and the budget that thresholds are chosen by; the newest of a collection and space holds."""

file_intents = Table(
    "file_intents",
    metadata,
    Column("store", String(16), primary_key=True),
    Column("name", String(511), primary_key=True),
    Column("owner", String(200)),
)
"""Files that must not exist unless a row names them: written before such a file is, and when its row goes.

``owner`` is the process that may still commit the row; without one the file is to be removed.
"""

request_tokens = Table(
    "request_tokens",
    metadata,
    Column("operation", String(32), primary_key=True),
    Column("token", String(64), primary_key=True),
    Column("collection_id", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("answer", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False, index=True),
)
"""What was answered to requests that say by a token which of them are the same; ``sha256`` is of their parameters."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("label", String(200), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("replaced_by", String(16)),
)
"""``sha256`` is of the secret, of which nothing else is kept."""

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("event", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""Who did what: ``event`` is canonical JSON, and ``hash`` its SHA-256. Each event has the hash of the one before.

Triggers forbid to change an event, to add any but the next one, and to delete one that ``audit_chain`` does not let go.
"""

audit_chain = Table(
    "audit_chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("first_id", Integer, nullable=False),
    Column("before_first", String(64), nullable=False),
    Column("last_id", Integer, nullable=False),
    Column("last_hash", String(64), nullable=False),
)
"""One row: where the chain begins, for what is kept no longer is cut off at its front, and where it ends."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("owner", String(200)),
    Column("has_effect", Boolean, nullable=False),
    Column("answer", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)
"""Requests that may be sent again. ``id`` is a digest of key, caller and operation, ``fingerprint`` one of the payload.

``owner`` is the process that works on it, null once that is over. ``answer`` is encrypted with what only the caller
has. ``has_effect`` is committed with whatever the request does.
"""
