"""Find faces."""

from typing import Annotated

from fastapi import APIRouter, Body

from facescreen.api.dependencies import ServicesDep
from facescreen.api.examples import DETECT
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import AWS_ERRORS, IMAGE_ERRORS, responses
from facescreen.api.schemas import DetectedFace, DetectRequest
from facescreen.domain.access import Scope
from facescreen.errors import OptionNotAvailableError, PackageMissingError, WeightsMissingError

router = APIRouter(route_class=Operation, prefix="/detect", tags=["detect"])


@router.post(
    "/detect-face",
    dependencies=needs(Scope.SCREEN, work=True),
    summary="Find every face in an image",
    responses=responses(
        *IMAGE_ERRORS,
        OptionNotAvailableError,
        WeightsMissingError,
        PackageMissingError,
        *AWS_ERRORS,
    ),
)
async def detect_face(
    request: Annotated[DetectRequest, Body(openapi_examples=DETECT)], services: ServicesDep
) -> list[DetectedFace]:
    """Boxes and landmarks are in pixels of the upright image. A landmark that the detector does not give is null."""
    faces = await services.detection.detect(request.image, request.detector_backend)
    return [DetectedFace.of(face) for face in faces]
