"""Results that are hits, whatever becomes of their matches.

Of results from before only those are known to be hits that still show it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite adds columns without copying the table; a copy would forget which ids were given to deleted rows.
    op.add_column("screenings", sa.Column("is_hit", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE screenings SET is_hit = true WHERE id IN (SELECT screening_id FROM screened_faces"
        " WHERE verdict IN ('match', 'possible', 'withdrawn')"
        " OR EXISTS (SELECT * FROM matches WHERE face_id = screened_faces.id))"
    )


def downgrade() -> None:
    raise NotImplementedError("a version that forgets hits would delete them too early; restore a backup")
