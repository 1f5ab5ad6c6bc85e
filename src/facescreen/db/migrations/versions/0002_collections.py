"""Collections, outward ids of people and faces, and tokens of requests."""

import secrets
import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DEFAULT = 1


def upgrade() -> None:
    connection = op.get_bind()
    sequences = {row.name: row.seq for row in connection.execute(sa.text("SELECT name, seq FROM sqlite_sequence"))}
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collections")),
        sa.UniqueConstraint("name", name=op.f("uq_collections_name")),
        sqlite_autoincrement=True,
    )
    connection.execute(
        sa.text("INSERT INTO collections (id, name, created_at) VALUES (:id, 'default', :now)").bindparams(
            sa.bindparam("now", type_=sa.DateTime())
        ),
        {"id": DEFAULT, "now": datetime.now(UTC).replace(tzinfo=None)},
    )

    with op.batch_alter_table("changes", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("collection_id", sa.Integer(), nullable=False, server_default=str(DEFAULT)))
        batch.create_index("ix_changes_collection_id_version", ["collection_id", "version"])
    with op.batch_alter_table("screenings", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("collection", sa.String(length=255), nullable=False, server_default="default"))
    with op.batch_alter_table("entries", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("collection_id", sa.Integer(), nullable=False, server_default=str(DEFAULT)))
        batch.add_column(sa.Column("user_id", sa.String(length=128), nullable=True))
        batch.add_column(sa.Column("status", sa.String(length=16), nullable=False, server_default="active"))
        batch.create_unique_constraint(op.f("uq_entries_collection_id_user_id"), ["collection_id", "user_id"])
        batch.create_foreign_key(
            op.f("fk_entries_collection_id_collections"),
            "collections",
            ["collection_id"],
            ["id"],
            ondelete="CASCADE",
        )
    with op.batch_alter_table("reference_images", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("collection_id", sa.Integer(), nullable=False, server_default=str(DEFAULT)))
        batch.add_column(sa.Column("photo", sa.String(length=511), nullable=False, server_default=""))
        batch.add_column(sa.Column("watched", sa.String(length=511), nullable=True))
        batch.add_column(sa.Column("status", sa.String(length=16), nullable=False, server_default="active"))
        batch.add_column(sa.Column("face_id", sa.String(length=36), nullable=True))
        batch.add_column(sa.Column("image_id", sa.String(length=36), nullable=False, server_default=""))
        batch.add_column(sa.Column("external_image_id", sa.String(length=255), nullable=True))
        batch.drop_constraint(op.f("uq_reference_images_entry_id_file"), type_="unique")
        batch.drop_constraint(op.f("uq_reference_images_entry_id_sha256"), type_="unique")
        batch.create_unique_constraint(op.f("uq_reference_images_watched"), ["watched"])
        batch.create_unique_constraint(op.f("uq_reference_images_face_id"), ["face_id"])
        batch.create_foreign_key(
            op.f("fk_reference_images_collection_id_collections"),
            "collections",
            ["collection_id"],
            ["id"],
            ondelete="CASCADE",
        )
    with op.batch_alter_table("embeddings") as batch:
        batch.add_column(sa.Column("collection_id", sa.Integer(), nullable=False, server_default=str(DEFAULT)))
        batch.create_foreign_key(
            op.f("fk_embeddings_collection_id_collections"),
            "collections",
            ["collection_id"],
            ["id"],
            ondelete="CASCADE",
        )
        batch.create_index("ix_embeddings_collection_id_space", ["collection_id", "space"])

    for (entry_id,) in connection.execute(sa.text("SELECT id FROM entries")).fetchall():
        connection.execute(
            sa.text("UPDATE entries SET user_id = :user_id WHERE id = :id"),
            {"id": entry_id, "user_id": f"fs-{secrets.token_hex(8)}"},
        )
    photos = "SELECT r.id, e.folder || '/' || r.file FROM reference_images r JOIN entries e ON e.id = r.entry_id"
    for image_id, photo in connection.execute(sa.text(photos)).fetchall():
        connection.execute(
            sa.text(
                "UPDATE reference_images SET photo = :photo, watched = :photo, face_id = :face_id, image_id = :image_id"
                " WHERE id = :id"
            ),
            {"id": image_id, "photo": photo, "face_id": str(uuid.uuid4()), "image_id": str(uuid.uuid4())},
        )

    # The defaults were there for the rows that were.
    for table, columns in (
        ("changes", ("collection_id",)),
        ("screenings", ("collection",)),
        ("entries", ("collection_id", "status")),
        ("embeddings", ("collection_id",)),
    ):
        with op.batch_alter_table(table, table_kwargs=_autoincrement(table)) as batch:
            for column in columns:
                batch.alter_column(column, server_default=None)
    with op.batch_alter_table("reference_images", table_kwargs=_autoincrement("reference_images")) as batch:
        for column in ("collection_id", "photo", "status", "image_id"):
            batch.alter_column(column, server_default=None)
        batch.drop_column("file")
        batch.create_index(op.f("ix_reference_images_collection_id"), ["collection_id"])
        batch.create_index(op.f("ix_reference_images_entry_id"), ["entry_id"])
        batch.create_index(op.f("ix_reference_images_photo"), ["photo"])
        batch.create_index(op.f("ix_reference_images_sha256"), ["sha256"])

    op.create_table(
        "request_tokens",
        sa.Column("operation", sa.String(length=32), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_request_tokens_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operation", "token", name=op.f("pk_request_tokens")),
    )
    op.create_index(op.f("ix_request_tokens_at"), "request_tokens", ["at"])

    # A table that is copied forgets ids above its last row, and would give those of deleted people to new ones.
    for table, last in sequences.items():
        parameters = {"table": table, "last": last}
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :table"), parameters)
        connection.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), parameters)


def downgrade() -> None:
    raise NotImplementedError("collections cannot be folded into one list; restore a backup instead")


def _autoincrement(table: str) -> dict[str, bool]:
    return {} if table == "embeddings" else {"sqlite_autoincrement": True}
