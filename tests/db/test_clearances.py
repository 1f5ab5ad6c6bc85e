"""What a cleared match leaves of a verdict, in the database as in the domain."""

from datetime import UTC, datetime
from itertools import product
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import clearances, schema, screenings
from facescreen.domain.screening import Grade, Verdict, verdict_of
from facescreen.factory import Services

NOW = datetime(2026, 11, 20, tzinfo=UTC)
BOX = {"x": 0, "y": 0, "w": 64, "h": 64}
MATCHES = [None, *product(Grade, (False, True))]
"""No match, or one of either grade that counts or was cleared."""
REASON = {"issue": "blurred", "measure": "sharpness", "value": 3.0, "limit": 15.0}


async def add(connection: AsyncConnection, table: Table, **values: object) -> int:
    added: int = (await connection.execute(insert(table).values(values).returning(table.c.id))).scalar_one()
    return added


async def add_result(connection: AsyncConnection) -> int:
    return await add(
        connection,
        schema.screenings,
        collection="staff",
        image_identifier="gate.jpg",
        detector="centerface",
        model_name="SFace",
        metric="cosine",
        threshold=0.05,
        review_threshold=0.1,
        all_references=False,
        list_version=1,
        created_at=NOW,
    )


async def test_faces_are_judged_again_as_the_domain_judges_them(services: Services) -> None:
    cases = list(product(MATCHES, MATCHES, ([], [REASON]), Verdict))
    async with services.database.write() as connection:
        collection_id = await add(connection, schema.collections, name="staff", created_at=NOW)
        entry: dict[str, Any] = {"collection_id": collection_id, "name": "Eve", "reason": "", "status": "active"}
        entry_id = await add(connection, schema.entries, **entry, folder="eve", created_at=NOW, updated_at=NOW)
        result_id = await add_result(connection)
        clearance_id = await add(
            connection,
            schema.clearances,
            entry_id=entry_id,
            screening_id=result_id,
            face_index=0,
            note="",
            created_at=NOW,
            expired_at=NOW,
            space="SFace/painted",
        )
        face_ids = []
        for index, (first, second, reasons, before) in enumerate(cases):
            face = {"face_index": index, "verdict": before, "reasons": reasons, "confidence": 0.99, "landmarks": {}}
            face_ids.append(await add(connection, schema.screened_faces, screening_id=result_id, **BOX, **face))
            for grade, is_cleared in filter(None, (first, second)):
                await add(
                    connection,
                    schema.matches,
                    face_id=face_ids[-1],
                    entry_id=entry_id,
                    reference_image_id=1,
                    name="Eve",
                    reason="",
                    identity="eve/1.jpg",
                    **{f"target_{side}": value for side, value in BOX.items()},
                    grade=grade,
                    distance=0.01,
                    supporting=1,
                    clearance_id=clearance_id if is_cleared else None,
                )
        await clearances.judge_again(connection, face_ids)
        result = await screenings.get_screening(connection, result_id)
    assert result is not None
    for judged, (_, _, reasons, before) in zip(result.faces, cases, strict=True):
        expected = verdict_of(judged.matches, is_legible=not reasons)
        nothing_counts = expected in {Verdict.CLEAR, Verdict.NOT_SCREENABLE}
        assert judged.verdict is (before if before is Verdict.WITHDRAWN and nothing_counts else expected)
