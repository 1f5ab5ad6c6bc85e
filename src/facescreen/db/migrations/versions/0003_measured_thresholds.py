"""Verdicts with a review threshold, picture quality, calibrations and clearances.

Results from before had no review threshold and no measured quality: theirs is the match threshold, and none. A match
of theirs rested on the nearest reference alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calibrations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("space", sa.String(length=100), nullable=False),
        sa.Column("detector", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=500), nullable=False),
        sa.Column("one_in", sa.Integer(), nullable=False),
        sa.Column("review_one_in", sa.Integer(), nullable=False),
        sa.Column("curves", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_calibrations_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibrations")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_calibrations_collection_id_space", "calibrations", ["collection_id", "space"])
    op.create_table(
        "clearances",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("screening_id", sa.Integer(), nullable=True),
        sa.Column("face_index", sa.Integer(), nullable=False),
        sa.Column("note", sa.String(length=2000), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expired_at", sa.DateTime(), nullable=True),
        sa.Column("space", sa.String(length=100), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name=op.f("fk_clearances_entry_id_entries"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["screening_id"],
            ["screenings.id"],
            name=op.f("fk_clearances_screening_id_screenings"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clearances")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_clearances_entry_id"), "clearances", ["entry_id"])
    op.create_index(op.f("ix_clearances_screening_id"), "clearances", ["screening_id"])

    # SQLite adds columns without copying the table; a copy would forget which ids were given to deleted rows.
    op.add_column("reference_images", sa.Column("quality", sa.JSON(), nullable=True))
    op.add_column("reference_images", sa.Column("quality_override", sa.String(length=2000), nullable=True))
    op.add_column("screenings", sa.Column("calibration", sa.JSON(), nullable=True))
    op.add_column("screened_faces", sa.Column("quality", sa.JSON(), nullable=True))
    op.add_column("matches", sa.Column("false_alert_probability", sa.Float(), nullable=True))
    op.add_column("screened_faces", sa.Column("reasons", sa.JSON(), nullable=False, server_default="[]"))
    op.execute(
        "UPDATE screened_faces SET reasons = json_array(json_object('issue', 'not_compared', 'measure', ''))"
        " WHERE verdict = 'not_screenable'"
    )
    op.add_column("screenings", sa.Column("review_threshold", sa.Float(), nullable=False, server_default="0"))
    op.execute("UPDATE screenings SET review_threshold = threshold")
    op.add_column("matches", sa.Column("grade", sa.String(length=16), nullable=False, server_default="match"))
    op.add_column("matches", sa.Column("score", sa.Float(), nullable=False, server_default="0"))
    op.execute("UPDATE matches SET score = distance")
    op.add_column("matches", sa.Column("supporting", sa.Integer(), nullable=False, server_default="1"))
    op.execute(
        "ALTER TABLE matches ADD COLUMN clearance_id INTEGER"
        " CONSTRAINT fk_matches_clearance_id_clearances REFERENCES clearances (id)"
    )
    op.create_index(op.f("ix_matches_clearance_id"), "matches", ["clearance_id"])


def downgrade() -> None:
    raise NotImplementedError("verdicts cannot be given back to a version that does not know them; restore a backup")
