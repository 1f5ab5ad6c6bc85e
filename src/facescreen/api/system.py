"""Health, the model catalogue, and the way to the documentation."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from facescreen.api.dependencies import ServicesDep
from facescreen.api.problems import responses
from facescreen.api.schemas import HealthStatus, Models

router = APIRouter(tags=["system"])
pages = APIRouter()


@router.get("/", summary="Health", responses=responses(validation=False))
async def health(services: ServicesDep) -> HealthStatus:
    """What this service runs with, and the state of the list."""
    return HealthStatus.of(await services.health.health())


@router.get("/models", summary="List detectors, models and metrics")
async def list_models(services: ServicesDep) -> Models:
    """Dimension, default thresholds, licence, and whether the weights are on this machine."""
    return Models.of(await run_in_threadpool(services.health.installed))


@pages.get("/", include_in_schema=False)
async def to_documentation() -> RedirectResponse:
    return RedirectResponse("/docs")
