"""Stored results."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from sqlalchemy import ColumnElement, RowMapping, and_, delete, exists, func, insert, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import clearances, faces
from facescreen.db.blacklist import owners_of
from facescreen.db.schema import entries, matches, screened_faces, screenings
from facescreen.domain.distances import Metric
from facescreen.domain.faces import Box
from facescreen.domain.quality import FaceQuality, QualityIssue, QualityReason
from facescreen.domain.screening import (
    AppliedCalibration,
    Clearance,
    Grade,
    ImageError,
    Match,
    Outcome,
    Policy,
    ScreenedFace,
    Screening,
    Verdict,
    verdict_of,
    with_margins,
)


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """Which results a page is of; ``None``, ``False`` and nothing filter nothing.

    Attributes:
        matched_only: results with at least one match.
        collections: results of one of these collections.
        entry_ids: results with a match of one of these entries.
        outcomes: results with at least one face of one of these verdicts, or of an image without faces.
        since, until: creation time, inclusive and exclusive.
    """

    collections: Collection[str] = ()
    matched_only: bool = False
    entry_ids: Collection[int] = ()
    outcomes: Collection[Outcome] = ()
    since: datetime | None = None
    until: datetime | None = None


async def insert_screening(connection: AsyncConnection, screening: Screening) -> Screening:
    """Store a result :func:`as_it_stands`, and return it with its id."""
    is_hit = any(face.matches for face in screening.faces)  # also if all of them were deleted since the search
    screening = await as_it_stands(connection, screening)
    inserted = await connection.execute(
        insert(screenings)
        .values(
            collection=screening.collection,
            image_identifier=screening.image_identifier,
            detector=screening.detector,
            model_name=screening.model_name,
            metric=screening.policy.metric,
            threshold=screening.policy.threshold,
            review_threshold=screening.policy.review_threshold,
            calibration=asdict(screening.policy.calibration) if screening.policy.calibration else None,
            all_references=screening.policy.all_references,
            list_version=screening.list_version,
            copy=screening.copy,
            error_code=screening.error.code if screening.error else None,
            error_detail=screening.error.detail if screening.error else None,
            created_at=screening.created_at,
            is_hit=is_hit,
            smallest_face=screening.smallest_face,
        )
        .returning(screenings.c.id)
    )
    screening = replace(screening, id=inserted.scalar_one())
    for index, face in enumerate(screening.faces):
        row = {
            "screening_id": screening.id,
            "face_index": index,
            "verdict": face.verdict,
            "quality": asdict(face.quality) if face.quality else None,
            "reasons": [asdict(reason) for reason in face.reasons],
            **faces.to_columns(face.face),
        }
        inserted = await connection.execute(insert(screened_faces).values(row).returning(screened_faces.c.id))
        face_id = inserted.scalar_one()
        if face.matches:
            await connection.execute(insert(matches), [_match_columns(face_id, match) for match in face.matches])
    return screening


async def as_it_stands(connection: AsyncConnection, screening: Screening) -> Screening:
    """A new result with what happened since the search.

    Matches of photos that were deleted are gone, and their faces say so; those of photos that became another entry's
    are that entry's, and those whose clearance does not hold any more count.
    """
    matched = [match for face in screening.faces for match in face.matches]
    if not matched:
        return screening
    owners = await owners_of(connection, {match.reference_image_id for match in matched})
    known = await clearances.by_ids(connection, {match.clearance.id for match in matched if match.clearance})
    return replace(screening, faces=tuple(_as_it_stands(face, owners, known=known) for face in screening.faces))


async def get_screening(connection: AsyncConnection, screening_id: int) -> Screening | None:
    """One result, or ``None``."""
    found = await _read(connection, [screenings.c.id == screening_id], offset=0, limit=1)
    return found[0] if found else None


async def list_screenings(
    connection: AsyncConnection, wanted: ResultFilter, *, offset: int, limit: int
) -> tuple[int, list[Screening]]:
    """How many results there are, and a page of them, newest first."""
    where = _conditions(wanted)
    total = (await connection.execute(select(func.count()).select_from(screenings).where(*where))).scalar_one()
    return total, await _read(connection, where, offset=offset, limit=limit)


async def copies(connection: AsyncConnection) -> set[str]:
    """Names of the pictures of all results."""
    statement = select(screenings.c.copy).where(screenings.c.copy.is_not(None))
    return {name for name in (await connection.execute(statement)).scalars() if name}


async def delete_screenings(connection: AsyncConnection, screening_ids: Sequence[int]) -> None:
    """Remove results with their faces and matches; what was cleared on them does not hold any more."""
    await clearances.expire_for_screenings(connection, screening_ids)
    await connection.execute(delete(screenings).where(screenings.c.id.in_(screening_ids)))


async def forget_copies(connection: AsyncConnection, screening_ids: Sequence[int]) -> None:
    """These results have no picture any more."""
    await connection.execute(update(screenings).where(screenings.c.id.in_(screening_ids)).values(copy=None))


async def forget_copy(connection: AsyncConnection, name: str) -> None:
    """The result of this picture has none any more."""
    await connection.execute(update(screenings).where(screenings.c.copy == name).values(copy=None))


async def withdraw_entry(connection: AsyncConnection, entry_id: int) -> None:
    """Remove an entry's matches; faces that are left without a match say that theirs was withdrawn."""
    await _withdraw(connection, matches.c.entry_id == entry_id)


async def withdraw_collection(connection: AsyncConnection, collection_id: int) -> None:
    """The same for every entry of a collection."""
    of_collection = select(entries.c.id).where(entries.c.collection_id == collection_id)
    await _withdraw(connection, matches.c.entry_id.in_(of_collection))


async def _withdraw(connection: AsyncConnection, withdrawn: ColumnElement[bool]) -> None:
    counting = select(matches.c.face_id).where(withdrawn, matches.c.clearance_id.is_(None))
    affected = (await connection.execute(counting)).scalars().all()
    await connection.execute(
        update(screened_faces).where(screened_faces.c.id.in_(counting)).values(verdict=Verdict.WITHDRAWN)
    )
    await connection.execute(delete(matches).where(withdrawn))
    await clearances.judge_again(connection, affected)


def _as_it_stands(face: ScreenedFace, owners: Mapping[int, int], *, known: Mapping[int, Clearance]) -> ScreenedFace:
    kept = tuple(
        replace(match, entry_id=owner, clearance=_holding(match.clearance, owner, known=known))
        for match in face.matches
        if (owner := owners.get(match.reference_image_id)) is not None
    )
    is_withdrawn = any(match.clearance is None for match in face.matches) and all(match.clearance for match in kept)
    verdict = Verdict.WITHDRAWN if is_withdrawn else verdict_of(kept, is_legible=not face.reasons)
    return replace(face, matches=with_margins(kept), verdict=verdict)


def _holding(clearance: Clearance | None, owner: int, *, known: Mapping[int, Clearance]) -> Clearance | None:
    """The clearance, if it still holds for whose match it is now."""
    now = known.get(clearance.id) if clearance is not None else None
    return now if now is not None and now.entry_id == owner and now.expired_at is None else None


def _conditions(wanted: ResultFilter) -> list[ColumnElement[bool]]:
    face = screened_faces.c.screening_id == screenings.c.id
    conditions: list[ColumnElement[bool]] = []
    if wanted.collections:
        conditions.append(screenings.c.collection.in_(wanted.collections))
    if wanted.matched_only:
        conditions.append(exists().where(face, screened_faces.c.verdict == Verdict.MATCH))
    if wanted.outcomes:
        has_verdict = exists().where(face, screened_faces.c.verdict.in_(wanted.outcomes))
        is_empty = and_(screenings.c.error_code.is_(None), not_(exists().where(face)))
        conditions.append(or_(has_verdict, is_empty) if Outcome.NO_FACE in wanted.outcomes else has_verdict)
    if wanted.entry_ids:
        of_entries = matches.c.entry_id.in_(wanted.entry_ids)
        conditions.append(exists().where(face, matches.c.face_id == screened_faces.c.id, of_entries))
    if wanted.since is not None:
        conditions.append(screenings.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(screenings.c.created_at < wanted.until)
    return conditions


async def _read(
    connection: AsyncConnection, where: Iterable[ColumnElement[bool]], *, offset: int, limit: int
) -> list[Screening]:
    page = select(screenings).where(*where).order_by(screenings.c.id.desc()).offset(offset).limit(limit)
    rows = (await connection.execute(page)).mappings().all()
    ids = [row["id"] for row in rows]
    face_rows = (
        await connection.execute(
            select(screened_faces)
            .where(screened_faces.c.screening_id.in_(ids))
            .order_by(screened_faces.c.screening_id, screened_faces.c.face_index)
        )
    ).mappings()
    faces_of: dict[int, list[RowMapping]] = defaultdict(list)
    for row in face_rows:
        faces_of[row["screening_id"]].append(row)
    match_rows = (
        await connection.execute(
            select(matches)
            .join(screened_faces)
            .where(screened_faces.c.screening_id.in_(ids))
            .order_by(matches.c.face_id, matches.c.distance, matches.c.id)
        )
    ).mappings()
    matches_of: dict[int, list[RowMapping]] = defaultdict(list)
    for row in match_rows:
        matches_of[row["face_id"]].append(row)
    cleared = {row["clearance_id"] for found in matches_of.values() for row in found if row["clearance_id"] is not None}
    known = await clearances.by_ids(connection, cleared)

    def matched(face_id: int, screening: RowMapping) -> tuple[Match, ...]:
        return with_margins(_match(row, screening, known.get(row["clearance_id"])) for row in matches_of[face_id])

    return [_screening(row, faces_of[row["id"]], matched) for row in rows]


def _screening(
    row: RowMapping, face_rows: list[RowMapping], matched: Callable[[int, RowMapping], tuple[Match, ...]]
) -> Screening:
    return Screening(
        id=row["id"],
        collection=row["collection"],
        image_identifier=row["image_identifier"],
        detector=row["detector"],
        model_name=row["model_name"],
        policy=Policy(
            Metric(row["metric"]),
            threshold=row["threshold"],
            review_threshold=row["review_threshold"],
            all_references=bool(row["all_references"]),
            calibration=AppliedCalibration(**row["calibration"]) if row["calibration"] else None,
        ),
        list_version=row["list_version"],
        smallest_face=row["smallest_face"],
        created_at=row["created_at"],
        faces=tuple(
            ScreenedFace(
                faces.from_row(face),
                Verdict(face["verdict"]),
                matched(face["id"], row),
                FaceQuality(**face["quality"]) if face["quality"] else None,
                tuple(
                    QualityReason(**{**reason, "issue": QualityIssue(reason["issue"])}) for reason in face["reasons"]
                ),
            )
            for face in face_rows
        ),
        copy=row["copy"],
        error=ImageError(row["error_code"], row["error_detail"]) if row["error_code"] else None,
    )


def _match_columns(face_id: int, match: Match) -> dict[str, object]:
    return {
        "face_id": face_id,
        "entry_id": match.entry_id,
        "reference_image_id": match.reference_image_id,
        "name": match.name,
        "reason": match.reason,
        "identity": match.identity,
        "target_x": match.target.x,
        "target_y": match.target.y,
        "target_w": match.target.w,
        "target_h": match.target.h,
        "grade": match.grade,
        "distance": match.distance,
        "supporting": match.supporting,
        "confidence": match.confidence,
        "false_alert_probability": match.false_alert_probability,
        "clearance_id": match.clearance.id if match.clearance else None,
    }


def _match(row: RowMapping, screening: RowMapping, clearance: Clearance | None) -> Match:
    return Match(
        entry_id=row["entry_id"],
        name=row["name"],
        reason=row["reason"],
        reference_image_id=row["reference_image_id"],
        identity=row["identity"],
        target=Box(row["target_x"], row["target_y"], row["target_w"], row["target_h"]),
        grade=Grade(row["grade"]),
        distance=row["distance"],
        threshold=screening["threshold"],
        review_threshold=screening["review_threshold"],
        supporting=row["supporting"],
        confidence=row["confidence"],
        false_alert_probability=row["false_alert_probability"],
        model_name=screening["model_name"],
        metric=Metric(screening["metric"]),
        clearance=clearance,
    )
