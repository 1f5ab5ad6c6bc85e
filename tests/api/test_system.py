"""Health, catalogue, documentation pages, and what every operation promises in the OpenAPI document."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from facescreen import errors
from facescreen.api.problems import STATUS
from facescreen.config import DetectorName, ModelName, Settings
from facescreen.db import screenings
from facescreen.errors import (
    BackupError,
    DatabaseBusyError,
    DataInUseError,
    EvaluationDataError,
    FacescreenError,
    NothingToScreenError,
    OverloadedError,
    StartupError,
    StorageFullError,
)
from facescreen.main import create_app
from facescreen.recognition.weights import WeightStore
from tests.api.test_blacklist import enroll
from tests.conftest import serving
from tests.painted import RED, photo


def test_every_error_has_a_status_and_its_own_code() -> None:
    def tree(base: type[FacescreenError]) -> Iterator[type[FacescreenError]]:
        for child in base.__subclasses__():
            yield child
            yield from tree(child)

    only_commands = {BackupError, DataInUseError, EvaluationDataError, NothingToScreenError, StartupError}
    concrete = [error for error in tree(FacescreenError) if not error.__subclasses__() and error not in only_commands]
    assert [error for error in concrete if error not in STATUS] == []
    codes = [error.code for error in STATUS]
    assert len(set(codes)) == len(codes)


async def test_health_tells_what_the_service_runs_with(client: httpx.AsyncClient) -> None:
    await enroll(client, "Ada", photo(RED))
    health = (await client.get("/")).json()
    assert health["status"] == "ok"
    assert (health["detector_backend"], health["model_name"], health["distance_metric"]) == (
        "centerface",
        "SFace",
        "cosine",
    )
    assert (health["threshold"], health["entries"], health["reference_images"]) == (0.05, 1, 1)


async def test_models_lists_everything_that_can_be_chosen(client: httpx.AsyncClient) -> None:
    body = (await client.get("/models")).json()
    assert {detector["name"] for detector in body["detectors"]} == set(get_args(DetectorName))
    assert {model["name"] for model in body["models"]} == set(get_args(ModelName))
    by_name = {entry["name"]: entry for entry in body["detectors"] + body["models"]}
    assert by_name["centerface"]["available"]
    assert by_name["SFace"]["available"]
    assert not by_name["ArcFace"]["available"]
    assert "facescreen weights pull ArcFace" in by_name["ArcFace"]["missing"]
    assert by_name["SFace"]["dimension"] == 128
    assert set(by_name["SFace"]["one_to_one_thresholds"]) == {"cosine", "euclidean", "euclidean_l2", "angular"}
    assert body["distance_metrics"] == ["cosine", "euclidean", "euclidean_l2", "angular"]


async def test_no_detector_can_be_used_without_the_one_that_sees_turned_heads(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = WeightStore.missing
    lacks = {"centerface": "centerface has no weights"}
    monkeypatch.setattr(WeightStore, "missing", lambda store, spec: lacks.get(spec.name) or found(store, spec))
    detectors = (await client.get("/models")).json()["detectors"]
    assert {detector["name"]: detector["missing"] for detector in detectors if detector["name"] == "mtcnn"} == {
        "mtcnn": "centerface has no weights"
    }
    assert not any(detector["available"] for detector in detectors)


async def test_the_root_leads_to_the_documentation(client: httpx.AsyncClient) -> None:
    response = await client.get("http://127.0.0.1/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_documentation_pages_load_nothing_from_elsewhere(client: httpx.AsyncClient, page: str) -> None:
    html = (await client.get(f"http://127.0.0.1{page}")).text
    assets = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(assets) >= 2
    for asset in assets:
        assert asset.startswith("/")
        assert (await client.get(f"http://127.0.0.1{asset}")).status_code == 200


def test_every_operation_has_a_summary_and_its_errors(settings: Settings) -> None:
    document = create_app(settings).openapi()
    expected = {
        ("post", "/api/v1/detect/detect-face"),
        ("post", "/api/v1/process/process-images"),
        ("get", "/api/v1/processed-images/"),
        ("get", "/api/v1/processed-images/{id}"),
        ("delete", "/api/v1/processed-images/{id}"),
        ("get", "/api/v1/processed-images/{id}/image"),
        ("post", "/api/v1/processed-images/{id}/faces/{n}/clear"),
        ("delete", "/api/v1/processed-images/{id}/faces/{n}/clear"),
        ("post", "/api/v1/blacklist/"),
        ("get", "/api/v1/blacklist/"),
        ("post", "/api/v1/blacklist/sync"),
        ("get", "/api/v1/blacklist/report"),
        ("get", "/api/v1/blacklist/{id}/"),
        ("put", "/api/v1/blacklist/{id}/"),
        ("delete", "/api/v1/blacklist/{id}/"),
        ("post", "/api/v1/blacklist/{id}/images"),
        ("get", "/api/v1/blacklist/{id}/images/{image_id}"),
        ("delete", "/api/v1/blacklist/{id}/images/{image_id}"),
        ("post", "/api/v1/collections/"),
        ("get", "/api/v1/collections/"),
        ("get", "/api/v1/collections/{name}/"),
        ("delete", "/api/v1/collections/{name}/"),
        ("get", "/api/v1/collections/{name}/calibration"),
        ("delete", "/api/v1/collections/{name}/calibration"),
        ("get", "/api/v1/models"),
        ("get", "/api/v1/"),
        ("get", "/api/v1/audit/"),
        ("get", "/api/v1/live"),
        ("get", "/api/v1/ready"),
    }
    operations = {(method, path): op for path, item in document["paths"].items() for method, op in item.items()}
    assert set(operations) == expected
    for (method, path), operation in operations.items():
        assert operation["summary"]
        if "{id}" in path:
            assert "404" in operation["responses"], (method, path)
        for status, response in operation["responses"].items():
            if status[0] in "45":
                assert set(response["content"]) == {"application/problem+json"}, (method, path, status)


async def test_examples_of_the_document_run_as_they_stand(settings: Settings) -> None:
    samples = Path(__file__).parents[2] / "samples"
    async with serving(settings.model_copy(update={"image_input_roots": (samples,)})) as client:
        for path in ("/detect/detect-face", "/process/process-images"):
            body = create_app(settings).openapi()["paths"][f"/api/v1{path}"]["post"]["requestBody"]
            for example in body["content"]["application/json"]["examples"].values():
                response = await client.post(path, json=example["value"])
                assert response.status_code == 200, response.text


async def test_what_the_framework_refuses_is_a_problem_too(client: httpx.AsyncClient) -> None:
    for response, status, code in (
        (await client.get("/nothing/here"), 404, "not_found"),
        (await client.patch("/blacklist/"), 405, "method_not_allowed"),
        (await client.post("/process/process-images", content=b"{"), 415, "unsupported_media_type"),
        (await client.get("/blacklist/abc/"), 422, "invalid_request"),
        (await client.post("/blacklist/", files={"name": (None, "Ada")}), 422, "invalid_request"),
    ):
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.headers["content-type"] == "application/problem+json"


async def test_an_unforeseen_error_tells_nothing_but_the_request_id(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise RuntimeError("secret: /etc/shadow")

    monkeypatch.setattr(screenings, "get_screening", explode)
    response = await client.get("/processed-images/1", headers={"x-request-id": "0af7651916cd43dd-1"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "0af7651916cd43dd-1"
    assert response.json()["code"] == "internal_error"
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("error", "status", "seconds"),
    [
        (OverloadedError("x"), 503, 1),
        (DatabaseBusyError("x"), 503, 1),
        (StorageFullError("x"), 507, 60),
        (errors.DeadlineExceededError("x"), 504, 1),
        (errors.FetchTimeoutError("x"), 504, 1),
    ],
)
async def test_passing_conditions_say_when_to_try_again(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    error: errors.FacescreenError,
    status: int,
    *,
    seconds: int,
) -> None:
    async def fail(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(screenings, "get_screening", fail)
    response = await client.get("/processed-images/1")
    assert (response.status_code, response.headers["retry-after"]) == (status, str(seconds))


async def test_a_schema_that_is_not_at_head_refuses_to_start(settings: Settings, tmp_path: Path) -> None:
    fresh = settings.model_copy(update={"database_url": f"sqlite+aiosqlite:///{tmp_path / 'fresh.db'}"})
    with pytest.raises(StartupError, match="facescreen migrate"):
        async with serving(fresh):
            pass


async def test_the_server_is_told_in_one_line_why_the_start_was_refused(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"database_url": f"sqlite+aiosqlite:///{tmp_path / 'fresh.db'}"}))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith("facescreen: there is no database at DATABASE_URL yet")
    assert "\n" not in message["message"]


def test_operations_promise_the_errors_that_they_can_answer_and_no_others(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    assert set(paths["/api/v1/live"]["get"]["responses"]) == {"200", "422"}
    for method, path in (("get", "/"), ("get", "/blacklist/report"), ("post", "/blacklist/")):
        failed = paths[f"/api/v1{path}"][method]["responses"]["424"]
        assert "embeddings_unreadable" in failed["content"]["application/problem+json"]["examples"]
