"""Screen images."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Form, Query

from facescreen.api.bodies import FORM
from facescreen.api.dependencies import ServicesDep
from facescreen.api.examples import PROCESS
from facescreen.api.operation import Operation, add_upload, also_form, needs
from facescreen.api.problems import AWS_ERRORS, responses
from facescreen.api.schemas import ProcessedImage, ProcessRequest, ProcessUpload
from facescreen.domain.access import Scope
from facescreen.errors import (
    BodyTooLargeError,
    CollectionNotFoundError,
    EmbeddingsMissingError,
    InvalidThresholdError,
    OptionNotAvailableError,
    PackageMissingError,
    ThresholdRequiredError,
    TooManyImagesError,
    WeightsMissingError,
)
from facescreen.factory import Services
from facescreen.images.sources import SourceImage, uploaded
from facescreen.services.thresholds import ScreeningOptions

router = APIRouter(route_class=Operation, prefix="/process", tags=["process"])


_AllReferences = Annotated[
    bool, Query(description="Every matching reference photo, instead of the best one of each person.")
]


async def process_uploads(
    form: Annotated[ProcessUpload, Form(media_type=FORM)],
    services: ServicesDep,
    *,
    all_references: _AllReferences = False,
) -> list[ProcessedImage]:
    images = [uploaded(file.filename, await file.read()) for file in form.images]
    return await _processed(services, images, form, all_references=all_references)


add_upload(router, "/process-images", process_uploads, named_as="process_images")


@router.post(
    "/process-images",
    dependencies=needs(Scope.SCREEN, work=True),
    summary="Screen images against the blacklist",
    responses=responses(
        CollectionNotFoundError,
        TooManyImagesError,
        BodyTooLargeError,
        InvalidThresholdError,
        ThresholdRequiredError,
        OptionNotAvailableError,
        WeightsMissingError,
        PackageMissingError,
        EmbeddingsMissingError,
        *AWS_ERRORS,
    ),
    openapi_extra=also_form(ProcessUpload),
)
async def process_images(
    request: Annotated[ProcessRequest, Body(openapi_examples=PROCESS)],
    services: ServicesDep,
    *,
    all_references: _AllReferences = False,
) -> list[ProcessedImage]:
    """One stored result per image, in order. Every face is listed, with everybody within the review threshold.

    An image that cannot be read has an `error` in its own result and never fails the others. On a full disk the answer
    is the same, with `stored` false and no `id`.
    """
    return await _processed(services, request.images, request, all_references=all_references)


async def _processed(
    services: Services,
    images: Sequence[str | SourceImage],
    chosen: ProcessRequest | ProcessUpload,
    *,
    all_references: bool,
) -> list[ProcessedImage]:
    options = ScreeningOptions(
        detector=chosen.detector_backend,
        model=chosen.model_name,
        metric=chosen.distance_metric,
        threshold=chosen.threshold,
        review_threshold=chosen.review_threshold,
        all_references=all_references,
    )
    found = await services.screening.screen(images, options, collection=chosen.collection)
    return [ProcessedImage.of(screening) for screening in found]
