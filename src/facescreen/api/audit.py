"""Read the audit trail."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from facescreen.api.dependencies import ServicesDep
from facescreen.api.files import accepted_type, file_response
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import responses
from facescreen.api.schemas import Moment
from facescreen.domain.access import Scope

router = APIRouter(route_class=Operation, prefix="/audit", tags=["audit"])

JSON_LINES = "application/x-ndjson"


@router.get(
    "/",
    dependencies=needs(Scope.ADMINISTER),
    summary="Export the audit trail",
    response_class=StreamingResponse,
    responses={**responses(), **file_response(JSON_LINES, "One JSON object for each event, a line each.")},
)
async def export_trail(
    request: Request,
    services: ServicesDep,
    *,
    from_: Annotated[
        Moment | None, Query(alias="from", description="From the first event then or later on; UTC without a zone.")
    ] = None,
    to: Annotated[Moment | None, Query(description="Up to the first event then or later; UTC without a zone.")] = None,
    after_id: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only events after this one.")] = 0,
    limit: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Default: all.")] = None,
) -> StreamingResponse:
    """Oldest first, as JSON Lines. `facescreen audit verify --file` tells whether anything was changed in them."""
    pieces = await services.trail.export(since=from_, until=to, after_id=after_id, limit=limit)
    return StreamingResponse(pieces, media_type=accepted_type(request, JSON_LINES))
