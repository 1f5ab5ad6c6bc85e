"""Stored results and their pictures."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import Field

from facescreen.api.dependencies import ServicesDep
from facescreen.api.files import accepted_type, file_response
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import responses
from facescreen.api.schemas import ClearRequest, CollectionName, Moment, ProcessedImage, ProcessedImagePage
from facescreen.db.screenings import ResultFilter
from facescreen.domain.access import Scope
from facescreen.domain.screening import Outcome
from facescreen.errors import (
    ClearanceNotFoundError,
    EntryChangedError,
    FaceNotFoundError,
    MatchNotFoundError,
    OptionNotAvailableError,
    PackageMissingError,
    PictureGoneError,
    ResultNotFoundError,
    StorageFullError,
    WeightsMissingError,
)
from facescreen.wording import AnyCase

router = APIRouter(route_class=Operation, prefix="/processed-images", tags=["processed images"])

MOST_WANTED = 100
"""Values of one filter."""

EntryId = Annotated[int, Field(ge=1, le=2**63 - 1)]
ResultId = Annotated[int, Path(ge=1, le=2**63 - 1)]
FaceIndex = Annotated[int, Path(ge=0, le=2**63 - 1, description="`face_index` of the face in the result.")]


@router.get("/", dependencies=needs(Scope.READ), summary="List stored results", responses=responses())
async def list_results(
    services: ServicesDep,
    *,
    offset: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    collection: Annotated[
        list[CollectionName],
        Query(
            default_factory=list,
            max_length=MOST_WANTED,
            description="Only results of this collection, or of any of several. Default: of all.",
        ),
    ],
    matched_only: Annotated[bool, Query(description="Only results with a match.")] = False,
    entry: Annotated[
        list[EntryId],
        Query(
            default_factory=list,
            max_length=MOST_WANTED,
            description="Only results that match this entry, or any of several.",
        ),
    ],
    verdict: Annotated[
        list[Annotated[Outcome, AnyCase()]],
        Query(
            default_factory=list,
            max_length=MOST_WANTED,
            description="Only results with a face of this verdict, or of any of several; `no_face`: those without one.",
        ),
    ],
    from_: Annotated[
        Moment | None, Query(alias="from", description="Created then or later; UTC where no zone is given.")
    ] = None,
    to: Annotated[Moment | None, Query(description="Created before then; UTC where no zone is given.")] = None,
) -> ProcessedImagePage:
    """Newest first."""
    wanted = ResultFilter(
        collections=collection,
        matched_only=matched_only,
        entry_ids=entry,
        outcomes=verdict,
        since=from_,
        until=to,
    )
    total, page = await services.screening.page(wanted, offset, limit)
    return ProcessedImagePage(total_items=total, items=[ProcessedImage.of(screening) for screening in page])


@router.get(
    "/{id}", dependencies=needs(Scope.READ), summary="Get a stored result", responses=responses(ResultNotFoundError)
)
async def get_result(id: ResultId, services: ServicesDep) -> ProcessedImage:  # noqa: A002 - the path's name
    return ProcessedImage.of(await services.screening.get(id))


@router.get(
    "/{id}/image",
    dependencies=needs(Scope.READ),
    summary="Get the picture of a stored result",
    response_class=Response,
    responses={**responses(ResultNotFoundError), **file_response("image/jpeg", "The picture.")},
)
async def get_result_image(
    id: ResultId,  # noqa: A002 - the path's name
    request: Request,
    services: ServicesDep,
    *,
    annotated: Annotated[bool, Query(description="Draw boxes, names, distances and verdicts.")] = False,
) -> Response:
    """The upright, re-encoded copy: no EXIF, no GPS."""
    picture = await services.screening.picture(id, annotated=annotated)
    return Response(picture, media_type=accepted_type(request, "image/jpeg"))


@router.delete(
    "/{id}",
    dependencies=needs(Scope.ADMINISTER),
    summary="Delete a stored result and its picture",
    status_code=204,
    responses=responses(ResultNotFoundError, StorageFullError),
)
async def delete_result(id: ResultId, services: ServicesDep) -> None:  # noqa: A002 - the path's name
    await services.screening.delete(id)


@router.post(
    "/{id}/faces/{n}/clear",
    dependencies=needs(Scope.REVIEW, work=True),
    summary="Say that a face is not a person on the list",
    responses=responses(
        ResultNotFoundError,
        FaceNotFoundError,
        MatchNotFoundError,
        EntryChangedError,
        PictureGoneError,
        OptionNotAvailableError,
        WeightsMissingError,
        PackageMissingError,
        StorageFullError,
    ),
)
async def clear_face(
    id: ResultId,  # noqa: A002 - the path's name
    n: FaceIndex,
    request: Annotated[ClearRequest, Body()],
    services: ServicesDep,
) -> ProcessedImage:
    """The result with the face's matches of this entry cleared: they stay visible and do not count for the verdict.

    Until the entry's photos change, later screenings do not alert for this entry where a face resembles this one more
    than the entry's photos. Whoever resembles the photos more still alerts. Doing it again replaces the note, and lets
    a clearance that expired hold again.
    """
    return ProcessedImage.of(await services.clearing.clear(id, n, entry_id=request.entry_id, note=request.note))


@router.delete(
    "/{id}/faces/{n}/clear",
    dependencies=needs(Scope.REVIEW),
    summary="Take back that a face is not a person on the list",
    responses=responses(
        ResultNotFoundError, FaceNotFoundError, MatchNotFoundError, ClearanceNotFoundError, StorageFullError
    ),
)
async def restore_face(
    id: ResultId,  # noqa: A002 - the path's name
    n: FaceIndex,
    services: ServicesDep,
    *,
    entry_id: Annotated[int, Query(ge=1, le=2**63 - 1, description="Who the face may be after all.")],
) -> ProcessedImage:
    """The result with its matches of this entry counting again, as they do in every result that was judged with it.

    Every face that shows the clearance will do, whether it was given on this one or on another.
    """
    return ProcessedImage.of(await services.clearing.undo(id, n, entry_id=entry_id))
