"""Keep several lists apart."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from facescreen.api.dependencies import ServicesDep
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import AWS_ERRORS, responses
from facescreen.api.schemas import CalibrationRecord, CollectionName, CollectionRecord, CreateCollectionRequest
from facescreen.domain.access import Scope
from facescreen.errors import (
    CalibrationNotFoundError,
    CollectionExistsError,
    CollectionNotFoundError,
    DefaultCollectionError,
    EntryPendingError,
    OptionNotAvailableError,
    StorageFullError,
    ThresholdRequiredError,
)
from facescreen.services.calibration import CalibrationService

router = APIRouter(route_class=Operation, prefix="/collections", tags=["collections"])

Named = Annotated[CollectionName, Path()]


def _calibration(services: ServicesDep) -> CalibrationService:
    if services.calibration is None:
        raise OptionNotAvailableError("Rekognition keeps the faces; there are no embeddings to calibrate")
    return services.calibration


CalibrationDep = Annotated[CalibrationService, Depends(_calibration)]


@router.post(
    "/",
    dependencies=needs(Scope.ADMINISTER),
    summary="Create a collection",
    status_code=201,
    responses=responses(CollectionExistsError, StorageFullError, *AWS_ERRORS),
)
async def create_collection(
    body: CreateCollectionRequest, request: Request, response: Response, services: ServicesDep
) -> CollectionRecord:
    """A list of its own: its people are found only by requests that name it."""
    created = await services.collections.create(body.name)
    response.headers["Location"] = request.url_for("get_collection", name=body.name).path
    return CollectionRecord.of(created)


@router.get("/", dependencies=needs(Scope.READ), summary="List collections", responses=responses())
async def list_collections(services: ServicesDep) -> list[CollectionRecord]:
    """By name."""
    return [CollectionRecord.of(described) for described in await services.collections.describe_all()]


@router.get(
    "/{name}/", dependencies=needs(Scope.READ), summary="Get a collection", responses=responses(CollectionNotFoundError)
)
async def get_collection(name: Named, services: ServicesDep) -> CollectionRecord:
    return CollectionRecord.of(await services.collections.describe(name))


@router.delete(
    "/{name}/",
    dependencies=needs(Scope.ADMINISTER),
    summary="Delete a collection with everybody in it",
    status_code=204,
    responses=responses(
        CollectionNotFoundError, DefaultCollectionError, EntryPendingError, StorageFullError, *AWS_ERRORS
    ),
)
async def delete_collection(name: Named, services: ServicesDep) -> None:
    """Photos, embeddings and stored matches of its people are gone when this answers."""
    await services.collections.delete(name)


@router.get(
    "/{name}/calibration",
    dependencies=needs(Scope.READ),
    summary="Get the calibration in force",
    responses=responses(
        CollectionNotFoundError, CalibrationNotFoundError, OptionNotAvailableError, ThresholdRequiredError
    ),
)
async def get_calibration(name: Named, calibration: CalibrationDep) -> CalibrationRecord:
    """What chooses thresholds where a request gives none: the newest of `facescreen calibrate`, else the model's."""
    return CalibrationRecord.of(await calibration.in_force(name))


@router.delete(
    "/{name}/calibration",
    dependencies=needs(Scope.ADMINISTER),
    summary="Go back to the calibration that comes with the model",
    status_code=204,
    responses=responses(CollectionNotFoundError, CalibrationNotFoundError, OptionNotAvailableError, StorageFullError),
)
async def delete_calibration(name: Named, calibration: CalibrationDep) -> None:
    """The collection's own ones, of the configured model, are gone when this answers."""
    await calibration.forget(name)
