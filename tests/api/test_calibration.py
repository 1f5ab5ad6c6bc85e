"""The calibration of a collection over HTTP."""

from pathlib import Path

import httpx
import pytest

from facescreen.config import Settings
from facescreen.factory import Services
from facescreen.services.calibration import CalibrationOptions
from tests.api.test_blacklist import enroll
from tests.conftest import serving
from tests.painted import RED, UNMEASURED, PaintedBackend, inline, photo
from tests.services.test_calibration import strangers, write


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """No threshold is configured."""
    return settings.model_copy(update={"match_threshold": None})


async def test_it_is_told_and_taken_back(client: httpx.AsyncClient, services: Services, tmp_path: Path) -> None:
    await enroll(client, "Ada", photo(RED))
    assert services.calibration is not None
    shipped = (await client.get("/collections/default/calibration")).json()
    assert (shipped["id"], shipped["created_at"], shipped["list_size"]) == (None, None, 1)
    assert "Labeled Faces in the Wild" in shipped["source"]
    assert (shipped["one_in"], shipped["review_one_in"]) == (1500, 50)
    options = CalibrationOptions(one_in=10, review_one_in=2)
    await services.calibration.calibrate(
        write(tmp_path / "probes", strangers(20)), options, collection="default", source="strangers"
    )
    told = (await client.get("/collections/default/calibration")).json()
    assert {key: told[key] for key in ("faces", "measured_list_size", "one_in", "review_one_in", "list_size")} == {
        "faces": 20,
        "measured_list_size": 1,
        "one_in": 10,
        "review_one_in": 2,
        "list_size": 1,
    }
    assert (told["detector_backend"], told["space"], told["distance_metric"]) == (
        "centerface",
        "SFace/painted",
        "cosine",
    )
    assert (told["false_alert_rate"], told["review_false_alert_rate"]) == (0.1, 0.5)
    screened = (await client.post("/process/process-images", json={"images": [inline(photo(RED))]})).json()[0]
    assert screened["calibration"]["id"] == told["id"]
    assert (screened["threshold"], screened["review_threshold"]) == (told["threshold"], told["review_threshold"])
    assert (await client.delete("/collections/default/calibration")).status_code == 204
    assert (await client.get("/collections/default/calibration")).json() == shipped
    gone = await client.delete("/collections/default/calibration")
    assert (gone.status_code, gone.json()["code"]) == (404, "calibration_not_found")


async def test_a_configured_threshold_goes_first(settings: Settings) -> None:
    configured = settings.model_copy(update={"match_threshold": 0.03})
    async with serving(configured, PaintedBackend()) as client:
        told = (await client.get("/collections/default/calibration")).json()
    assert told["threshold"] == 0.03
    assert told["review_threshold"] >= 0.03


async def test_a_model_that_nobody_measured_has_none(settings: Settings) -> None:
    unmeasured = settings.model_copy(update={"model_name": UNMEASURED, "match_threshold": 0.6})
    async with serving(unmeasured, PaintedBackend()) as client:
        answer = await client.get("/collections/default/calibration")
    assert (answer.status_code, answer.json()["code"]) == (404, "calibration_not_found")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_there_must_be_such_a_collection(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/collections/nowhere/calibration")
    assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")
