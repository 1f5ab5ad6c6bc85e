"""Calibrations: what was measured on an operator's own photos, and the budget that thresholds are chosen by."""

from datetime import UTC, datetime

from sqlalchemy import RowMapping, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import calibrations
from facescreen.domain.false_alerts import AlertBudget, Calibration, FalseAlertCurve


async def insert_calibration(connection: AsyncConnection, collection_id: int, new: Calibration) -> Calibration:
    """Keep a calibration of a collection; the result has the id and the time that the argument lacks."""
    row = {
        "collection_id": collection_id,
        "space": new.space,
        "detector": new.detector,
        "source": new.source,
        "one_in": new.budget.one_in,
        "review_one_in": new.budget.review_one_in,
        "curves": [curve.to_document() for curve in new.curves],
        "created_at": datetime.now(UTC),
    }
    added = await connection.execute(insert(calibrations).values(row).returning(calibrations))
    return _calibration(added.mappings().one())


async def latest_calibration(connection: AsyncConnection, collection_id: int, space: str) -> Calibration | None:
    """The newest calibration of a collection in a space, ``None`` where there is none."""
    rows = await connection.execute(
        select(calibrations)
        .where(calibrations.c.collection_id == collection_id, calibrations.c.space == space)
        .order_by(calibrations.c.id.desc())
        .limit(1)
    )
    row = rows.mappings().one_or_none()
    return _calibration(row) if row else None


async def delete_calibrations(connection: AsyncConnection, collection_id: int, space: str) -> int:
    """Remove all calibrations of a collection in a space; how many that were."""
    mine = (calibrations.c.collection_id == collection_id, calibrations.c.space == space)
    return (await connection.execute(delete(calibrations).where(*mine))).rowcount


def _calibration(row: RowMapping) -> Calibration:
    return Calibration(
        id=row["id"],
        source=row["source"],
        detector=row["detector"],
        space=row["space"],
        budget=AlertBudget(row["one_in"], row["review_one_in"]),
        curves=tuple(FalseAlertCurve.from_document(document) for document in row["curves"]),
        created_at=row["created_at"],
    )
