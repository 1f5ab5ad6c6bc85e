"""Screen images."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from facescreen.api.dependencies import ServicesDep
from facescreen.api.examples import PROCESS
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import AWS_ERRORS, responses
from facescreen.api.schemas import ProcessedImage, ProcessRequest
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
from facescreen.services.thresholds import ScreeningOptions

router = APIRouter(route_class=Operation, prefix="/process", tags=["process"])


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
)
async def process_images(
    request: Annotated[ProcessRequest, Body(openapi_examples=PROCESS)],
    services: ServicesDep,
    *,
    all_references: Annotated[
        bool, Query(description="Every matching reference photo, instead of the best one of each person.")
    ] = False,
) -> list[ProcessedImage]:
    """One stored result per image, in order. Every face is listed, with everybody within the review threshold.

    An image that cannot be read has an `error` in its own result and never fails the others. On a full disk the answer
    is the same, with `stored` false and no `id`.
    """
    options = ScreeningOptions(
        detector=request.detector_backend,
        model=request.model_name,
        metric=request.distance_metric,
        threshold=request.threshold,
        review_threshold=request.review_threshold,
        all_references=all_references,
    )
    found = await services.screening.screen(request.images, options, collection=request.collection)
    return [ProcessedImage.of(screening) for screening in found]
