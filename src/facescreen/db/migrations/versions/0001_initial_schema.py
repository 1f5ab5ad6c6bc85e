"""Initial schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("version", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("reference_image_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("folder", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("folder", name=op.f("uq_entries_folder")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "file_intents",
        sa.Column("store", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=511), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("store", "name", name=op.f("pk_file_intents")),
    )
    op.create_table(
        "screenings",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("image_identifier", sa.String(length=4096), nullable=False),
        sa.Column("detector", sa.String(length=32), nullable=False),
        sa.Column("model_name", sa.String(length=32), nullable=False),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("all_references", sa.Boolean(), nullable=False),
        sa.Column("list_version", sa.Integer(), nullable=False),
        sa.Column("copy", sa.String(length=255), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(length=2000), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_screenings")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_screenings_created_at"), "screenings", ["created_at"], unique=False)

    op.create_table(
        "reference_images",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("file", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("x", sa.Integer(), nullable=False),
        sa.Column("y", sa.Integer(), nullable=False),
        sa.Column("w", sa.Integer(), nullable=False),
        sa.Column("h", sa.Integer(), nullable=False),
        sa.Column("landmarks", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("detector", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_reference_images_entry_id_entries"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_images")),
        sa.UniqueConstraint("entry_id", "file", name=op.f("uq_reference_images_entry_id_file")),
        sa.UniqueConstraint("entry_id", "sha256", name=op.f("uq_reference_images_entry_id_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "screened_faces",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("screening_id", sa.Integer(), nullable=False),
        sa.Column("face_index", sa.Integer(), nullable=False),
        sa.Column("x", sa.Integer(), nullable=False),
        sa.Column("y", sa.Integer(), nullable=False),
        sa.Column("w", sa.Integer(), nullable=False),
        sa.Column("h", sa.Integer(), nullable=False),
        sa.Column("landmarks", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["screening_id"],
            ["screenings.id"],
            name=op.f("fk_screened_faces_screening_id_screenings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_screened_faces")),
        sa.UniqueConstraint("screening_id", "face_index", name=op.f("uq_screened_faces_screening_id_face_index")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_screened_faces_verdict"), "screened_faces", ["verdict"], unique=False)

    op.create_table(
        "embeddings",
        sa.Column("reference_image_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("space", sa.String(length=100), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reference_image_id"],
            ["reference_images.id"],
            name=op.f("fk_embeddings_reference_image_id_reference_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("reference_image_id", "space", name=op.f("pk_embeddings")),
    )
    op.create_table(
        "matches",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("face_id", sa.Integer(), nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("reference_image_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("identity", sa.String(length=511), nullable=False),
        sa.Column("target_x", sa.Integer(), nullable=False),
        sa.Column("target_y", sa.Integer(), nullable=False),
        sa.Column("target_w", sa.Integer(), nullable=False),
        sa.Column("target_h", sa.Integer(), nullable=False),
        sa.Column("distance", sa.Float(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_matches_entry_id_entries"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["face_id"], ["screened_faces.id"], name=op.f("fk_matches_face_id_screened_faces"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_matches")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_matches_entry_id", "matches", ["entry_id"], unique=False)
    op.create_index("ix_matches_face_id_distance", "matches", ["face_id", "distance"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_matches_face_id_distance", table_name="matches")
    op.drop_index("ix_matches_entry_id", table_name="matches")

    op.drop_table("matches")
    op.drop_table("embeddings")
    op.drop_index(op.f("ix_screened_faces_verdict"), table_name="screened_faces")

    op.drop_table("screened_faces")
    op.drop_table("reference_images")
    op.drop_index(op.f("ix_screenings_created_at"), table_name="screenings")

    op.drop_table("screenings")
    op.drop_table("file_intents")
    op.drop_table("entries")
    op.drop_table("changes")
