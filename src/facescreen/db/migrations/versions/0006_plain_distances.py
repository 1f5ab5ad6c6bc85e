"""Thresholds are compared with distances, and no longer with scores.

Results from before keep the verdicts and thresholds that they were given, also those that were given by scores.
Calibrations keep their curves of distances.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE calibrations SET curves = (SELECT json_group_array(json_remove(value, '$.crowding'))"
        " FROM json_each(curves) WHERE coalesce(json_type(value, '$.crowding'), 'null') = 'null')"
    )
    op.execute("UPDATE screenings SET calibration = json_remove(calibration, '$.crowding', '$.largest_distance')")
    # SQLite drops a column without giving the table another name; a copy would forget the ids of deleted rows.
    op.drop_column("matches", "score")


def downgrade() -> None:
    raise NotImplementedError("scores cannot be computed from distances; restore a backup")
