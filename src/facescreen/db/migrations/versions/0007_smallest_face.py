"""Results say from which size on faces were looked for; those from before do not."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("screenings", sa.Column("smallest_face", sa.Integer()))


def downgrade() -> None:
    op.drop_column("screenings", "smallest_face")
