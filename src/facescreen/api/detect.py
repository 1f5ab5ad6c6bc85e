"""Find faces."""

from typing import Annotated

from fastapi import APIRouter, Body, Form

from facescreen.api.bodies import FORM
from facescreen.api.dependencies import ServicesDep
from facescreen.api.examples import DETECT
from facescreen.api.operation import Operation, add_upload, also_form, needs
from facescreen.api.problems import AWS_ERRORS, IMAGE_ERRORS, responses
from facescreen.api.schemas import DetectedFace, DetectRequest, DetectUpload
from facescreen.config import DetectorName
from facescreen.domain.access import Scope
from facescreen.errors import OptionNotAvailableError, PackageMissingError, WeightsMissingError
from facescreen.factory import Services
from facescreen.images.sources import SourceImage, uploaded

router = APIRouter(route_class=Operation, prefix="/detect", tags=["detect"])


async def detect_face_in_upload(
    form: Annotated[DetectUpload, Form(media_type=FORM)], services: ServicesDep
) -> list[DetectedFace]:
    image = uploaded(form.image.filename, await form.image.read())
    return await _detected(services, image, form.detector_backend)


add_upload(router, "/detect-face", detect_face_in_upload, named_as="detect_face")


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
    openapi_extra=also_form(DetectUpload),
)
async def detect_face(
    request: Annotated[DetectRequest, Body(openapi_examples=DETECT)], services: ServicesDep
) -> list[DetectedFace]:
    """Boxes and landmarks are in pixels of the upright image. A landmark that the detector does not give is null."""
    return await _detected(services, request.image, request.detector_backend)


async def _detected(services: Services, image: str | SourceImage, detector: DetectorName | None) -> list[DetectedFace]:
    return [DetectedFace.of(face) for face in await services.detection.detect(image, detector)]
