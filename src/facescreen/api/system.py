"""Health, probes, metrics, the model catalogue, and the way to the documentation."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse

from facescreen import metrics
from facescreen.api.dependencies import ServicesDep
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import STATUS, problem, responses
from facescreen.api.schemas import Alive, HealthStatus, Models, ReadinessChecks, Ready, UpgradeStatus
from facescreen.errors import EmbeddingsUnreadableError, ThresholdRequiredError, UnreadyError

router = APIRouter(route_class=Operation, tags=["system"])
pages = APIRouter()
scraped = APIRouter()


@router.get(
    "/",
    dependencies=needs(),
    summary="Health",
    responses=responses(ThresholdRequiredError, EmbeddingsUnreadableError),
)
async def health(services: ServicesDep) -> HealthStatus:
    """What this service runs with, and the state of the list."""
    return HealthStatus.of(await services.health.health())


@router.get("/live", summary="Liveness", responses=responses(work=False))
async def live() -> Alive:
    """Answers as long as the process does anything at all. It needs no key and touches nothing."""
    return Alive()


@router.get("/ready", summary="Readiness", response_model=Ready, responses=responses(UnreadyError))
async def ready(request: Request, services: ServicesDep) -> Response:
    """Whether requests should be sent here. It needs no key; the 503 has the same `checks`."""
    readiness = await services.health.readiness()
    checks = ReadinessChecks.of(readiness, is_stopping=request.app.state.is_stopping)
    if all(checks.model_dump().values()):
        return JSONResponse(Ready(checks=checks, upgrade=UpgradeStatus.of(readiness.upgrade)).model_dump())
    return problem(
        STATUS[UnreadyError],
        UnreadyError.code,
        "a check failed; see `checks`",
        retry_after=UnreadyError.retry_after_seconds,
        extension={"checks": checks.model_dump()},
    )


@router.get("/models", dependencies=needs(), summary="List detectors, models and metrics")
async def list_models(services: ServicesDep) -> Models:
    """Dimension, default thresholds, licence, and whether the weights are on this machine."""
    return Models.of(await run_in_threadpool(services.health.installed))


@pages.get("/", include_in_schema=False)
async def to_documentation(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")


@scraped.get("/metrics", include_in_schema=False)
async def exposition() -> Response:
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)
