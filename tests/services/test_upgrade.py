"""Another default model: the one before answers until every photo is embedded for the new one."""

import asyncio
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx
import numpy as np
import pytest

from facescreen.backends.base import Probe
from facescreen.config import DetectorName, ModelName, Settings
from facescreen.db.connection import Database
from facescreen.domain.faces import Vectors
from facescreen.errors import EmbeddingsMissingError, StartupError, WeightsMissingError
from facescreen.factory import Facade, Services
from facescreen.services import health, upgrade
from facescreen.services.quality import QualityFilter
from tests.api.test_blacklist import enroll, files, upload
from tests.api.test_clearing import BROTHER, EVE, clear, kept, screen, verdicts
from tests.api.test_sync import drop, sync
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, PaintedBackend, inline, photo
from tests.painted_server import HANGING

CYAN, MAGENTA, ORANGE = (20, 230, 230), (230, 20, 230), (240, 130, 10)
LIKE_BOB = (20, 185, 20)
LISTED: dict[str, Colour] = {"Ada": RED, "Bob": GREEN, "Cid": BLUE, "Dan": CYAN, "Eve": MAGENTA}


class HeldBackend(PaintedBackend):
    """Embeds no more than so many photos of the list for ``SFace`` until it is released, and counts them all.

    Args:
        allowed: photos that are embedded before that.

    Attributes:
        held: set once it waits to be released.
        embedded: how often each colour of the list was embedded for ``SFace``.
        broken: colours that the model fails on.
    """

    def __init__(self, allowed: int = 0) -> None:
        super().__init__()
        self._allowed = allowed
        self.held = asyncio.Event()
        self.released = asyncio.Event()
        self.embedded: Counter[Colour] = Counter()
        self.broken: set[Colour] = set()

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        for colour in map(_listed, probes) if model == "SFace" else ():
            if colour in self.broken:
                raise ValueError
            if colour is not None:
                if self.embedded.total() >= self._allowed:
                    self.held.set()
                    await self.released.wait()
                self.embedded[colour] += 1
        return await super().embed(probes, model)


class WithoutDlib(PaintedBackend):
    async def require(self, detector: DetectorName, model: ModelName) -> None:
        if model == "Dlib":
            raise WeightsMissingError("run: facescreen weights pull Dlib")
        await super().require(detector, model)


def _listed(probe: Probe) -> Colour | None:
    """The colour of the list that the face has, but for what JPEG changes."""
    seen = np.median(probe.crops[0], axis=(0, 1))
    return next((colour for colour in LISTED.values() if np.abs(seen - colour).max() < 9), None)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every probe checks again, and nothing waits before it is tried again."""
    monkeypatch.setattr(health, "_CHECK_HOLDS_SECONDS", -1.0)
    monkeypatch.setattr(upgrade, "_REST_SECONDS", 0.0)
    monkeypatch.setattr(upgrade, "_RETRY_SECONDS", 0.05)


def before(settings: Settings) -> Settings:
    """Of the service before the upgrade."""
    return settings.model_copy(update={"model_name": "Dlib"})


@pytest.fixture
async def upgraded(settings: Settings) -> Settings:
    """Of a service whose model is another one than that of its list."""
    async with serving(before(settings)) as client:
        for name, colour in LISTED.items():
            await enroll(client, name, photo(colour))
    return settings.model_copy(update={"model_name": "SFace", "inline_reindex_limit": 1, "review_threshold": 0.05})


async def asked(client: httpx.AsyncClient, *colours: Colour) -> tuple[str, list[list[str]]]:
    """The model that answered, and the names that were found for each face."""
    result = await screen(client, *colours)
    names = [[match["name"] for match in face["blacklist_matches"]] for face in result["faces"]]
    assert {match["model_name"] for face in result["faces"] for match in face["blacklist_matches"]} <= {
        result["model_name"]
    }
    return result["model_name"], names


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what the background does."""
    async with asyncio.timeout(HANGING):
        while not holds():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def until_answered_by_sface(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(HANGING):
        while (await asked(client, RED))[0] != "SFace":  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def entry_of(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    records: list[dict[str, Any]] = (await client.get("/blacklist/")).json()
    return next(record for record in records if record["name"] == name)


async def status(client: httpx.AsyncClient) -> dict[str, Any] | None:
    """What the readiness probe says of the upgrade, once health and the metric say the same."""
    answer = await client.get("/ready")
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] | None = answer.json()["upgrade"]
    about = (await client.get("/")).json()
    assert about["upgrade"] == said
    assert about["model_name"] == ("Dlib" if said else "SFace")
    metrics = (await client.get("http://127.0.0.1/metrics")).text
    missing = said["total"] - said["done"] if said else 0
    assert f"facescreen_photos_to_embed {float(missing)}" in metrics.splitlines()
    return said


def rows(settings: Settings, query: str) -> list[Any]:
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database, database:
        return database.execute(query).fetchall()


def spaces(settings: Settings) -> dict[str, int]:
    return dict(rows(settings, "SELECT space, count(*) FROM embeddings GROUP BY space"))


def services_of(client: httpx.AsyncClient) -> Services:
    made: Services = client.services  # type: ignore[attr-defined]
    return made


def facade_of(client: httpx.AsyncClient) -> Facade:
    facade = services_of(client).facade
    assert facade is not None
    return facade


@asynccontextmanager
async def holding(settings: Settings, allowed: int = 0) -> AsyncIterator[tuple[httpx.AsyncClient, HeldBackend]]:
    """The service in the middle of its upgrade, which goes on when the backend is released, and at the end."""
    backend = HeldBackend(allowed)
    async with serving(settings, backend) as client:
        await asyncio.wait_for(backend.held.wait(), HANGING)
        try:
            yield client, backend
        finally:
            backend.released.set()


async def test_the_model_before_answers_until_the_last_photo_is_embedded(upgraded: Settings) -> None:
    async with holding(upgraded, allowed=3) as (client, backend):
        assert await asked(client, *LISTED.values()) == ("Dlib", [[name] for name in LISTED])
        assert await status(client) == {"model_name": "SFace", "answering": ["Dlib"], "done": 3, "total": 5}
        backend.released.set()
        await until_answered_by_sface(client)
        assert await asked(client, *LISTED.values()) == ("SFace", [[name] for name in LISTED])
        assert await status(client) is None
    assert spaces(upgraded) == {"Dlib/painted": 5, "SFace/painted": 5}


async def test_who_comes_and_goes_meanwhile_is_found_and_not_found_by_both(upgraded: Settings) -> None:
    async with holding(upgraded, allowed=1) as (client, backend):
        await enroll(client, "Fay", photo(ORANGE))
        eve = await entry_of(client, "Eve")
        assert (await client.delete(f"/blacklist/{eve['id']}/")).status_code == 200
        assert await asked(client, ORANGE, MAGENTA, RED) == ("Dlib", [["Fay"], [], ["Ada"]])
        backend.released.set()
        await until_answered_by_sface(client)
        assert await asked(client, ORANGE, MAGENTA, RED) == ("SFace", [["Fay"], [], ["Ada"]])


async def test_many_photos_that_come_meanwhile_keep_no_search_waiting(upgraded: Settings) -> None:
    async with holding(upgraded) as (client, backend):
        colours = [(200, 10 * step, 100) for step in range(3 * upgraded.inline_reindex_limit)]
        for number, colour in enumerate(colours):
            drop(upgraded, f"new-{number}/1.png", photo(colour))
        report = await sync(client)
        assert len(report["added"]) == len(colours)
        await enroll(client, "Hal", *(photo(ORANGE, side=side) for side in (64, 80, 96)))
        model, names = await asked(client, *colours, ORANGE, RED)
        assert (model, names[-2:]) == ("Dlib", [["Hal"], ["Ada"]])
        assert all(f"new-{number}" in found for number, found in enumerate(names[:-2]))
        backend.released.set()
        await until_answered_by_sface(client)


async def test_new_photos_are_compared_with_the_list_by_the_model_that_answers(upgraded: Settings) -> None:
    async with holding(upgraded) as (client, _):
        double = {"name": "Zoe", "reject_duplicates": "true"}
        answer = await client.post("/blacklist/", data=double, files=upload(photo(LIKE_BOB)))
        assert (answer.status_code, answer.json()["code"]) == (409, "duplicate_entry")
        bob = await entry_of(client, "Bob")
        added = await client.post(f"/blacklist/{bob['id']}/images", files=upload(photo(YELLOW)))
        codes = [warning["code"] for warning in added.json()["warnings"]]
        assert (added.status_code, codes) == (200, ["photos_disagree"])


async def test_a_model_that_is_asked_for_and_half_embedded_is_refused(upgraded: Settings) -> None:
    async with holding(upgraded, allowed=1) as (client, _):
        body = {"images": [inline(photo(RED))], "model_name": "SFace"}
        answer = await client.post("/process/process-images", json=body)
        assert (answer.status_code, answer.json()["code"]) == (424, "embeddings_missing")


async def test_the_report_and_the_facade_follow(upgraded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with holding(upgraded, allowed=1) as (client, backend):
        faces = facade_of(client).faces

        async def people_like(colour: Colour) -> int:
            _, found = await faces.search_by_image(
                "default", photo(colour, side=96), alike=80, most=9, quality=QualityFilter.NONE
            )
            return len(found)

        assert (await client.get("/blacklist/report")).json()["model_name"] == "Dlib"
        assert await people_like(LIKE_BOB) == 1
        monkeypatch.setattr("facescreen.services.answering.has_similarity", lambda model: model == "SFace")
        with pytest.raises(EmbeddingsMissingError, match="reindex --model SFace"):
            await people_like(LIKE_BOB)
        backend.released.set()
        await until_answered_by_sface(client)
        assert (await client.get("/blacklist/report")).json()["model_name"] == "SFace"


async def test_a_stopped_upgrade_goes_on_where_it_was(upgraded: Settings) -> None:
    backend = HeldBackend(allowed=2)
    async with serving(upgraded, backend) as client:
        await asyncio.wait_for(backend.held.wait(), HANGING)
        stopping = services_of(client).upgrade._stopping  # type: ignore[union-attr]

        async def release() -> None:
            await stopping.wait()
            backend.released.set()

        releasing = asyncio.create_task(release())
    await releasing
    assert spaces(upgraded) == {"Dlib/painted": 5, "SFace/painted": 3}, "the photo in hand is finished, and no other"
    async with holding(upgraded, allowed=0) as (client, rest):
        assert await asked(client, *LISTED.values()) == ("Dlib", [[name] for name in LISTED])
        rest.released.set()
        await eventually(lambda: spaces(upgraded)["SFace/painted"] == 5)
    assert backend.embedded | rest.embedded == Counter(LISTED.values())
    assert not backend.embedded & rest.embedded


async def test_a_reindex_from_elsewhere_makes_it_switch(upgraded: Settings) -> None:
    async with holding(upgraded) as (client, _), serving(upgraded, PaintedBackend()) as other:
        reindex = services_of(other).reindex
        assert reindex is not None
        await reindex.reindex("SFace")
        assert (await asked(client, LIKE_BOB))[0] == (await asked(other, LIKE_BOB))[0] == "SFace"


async def test_a_photo_that_cannot_be_read_keeps_the_model_that_knows_it(
    upgraded: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(upgraded.model_copy(update={"model_name": "Dlib"})) as client:
        ada = await entry_of(client, "Ada")
    identity = ada["images"][0]["identity"].removeprefix("blacklist_db/")
    (upgraded.blacklist_db_path / identity).write_bytes(b"gone bad")
    rows(upgraded, "UPDATE reference_images SET watched = NULL")  # otherwise it is somebody else's photo now
    async with serving(upgraded) as client:
        await eventually(lambda: "list_not_upgraded" in caplog.messages)
        assert await asked(client, RED, BLUE) == ("Dlib", [["Ada"], ["Cid"]])
        assert await status(client) == {"model_name": "SFace", "answering": ["Dlib"], "done": 4, "total": 5}
        assert caplog.messages.count("reference_photo_unreadable") == 1
        assert (await client.delete(f"/blacklist/{ada['id']}/")).status_code == 200
        assert await asked(client, RED, BLUE) == ("SFace", [[], ["Cid"]])


async def test_a_photo_that_the_model_fails_on_keeps_no_other_back(upgraded: Settings) -> None:
    backend = HeldBackend(allowed=99)
    backend.broken = {RED}
    async with serving(upgraded, backend) as client:
        await eventually(lambda: spaces(upgraded).get("SFace/painted") == 4)
        assert await asked(client, *LISTED.values()) == ("Dlib", [[name] for name in LISTED])
        backend.broken = set()
        await until_answered_by_sface(client)


async def test_a_short_list_is_embedded_at_the_start(upgraded: Settings) -> None:
    async with serving(upgraded.model_copy(update={"inline_reindex_limit": 5})) as client:
        assert await asked(client, RED) == ("SFace", [["Ada"]])


async def test_a_start_without_a_model_that_knows_everybody_is_refused(upgraded: Settings) -> None:
    with pytest.raises(StartupError, match="facescreen reindex --model SFace"):
        async with serving(upgraded, WithoutDlib()):
            pass
    rows(upgraded, "DELETE FROM embeddings WHERE reference_image_id IN (SELECT id FROM reference_images LIMIT 3)")
    with pytest.raises(StartupError, match="facescreen reindex --model SFace"):
        async with serving(upgraded):
            pass


async def test_a_model_that_lacks_a_few_photos_answers_once_it_has_them(upgraded: Settings) -> None:
    rows(upgraded, "DELETE FROM embeddings WHERE reference_image_id IN (SELECT id FROM reference_images LIMIT 1)")
    async with holding(upgraded) as (client, _):
        assert await asked(client, *LISTED.values()) == ("Dlib", [[name] for name in LISTED])


async def test_each_collection_switches_by_itself(upgraded: Settings) -> None:
    async with holding(upgraded, allowed=1) as (client, _):
        assert (await client.post("/collections/", json={"name": "other"})).status_code == 201
        (result,) = (
            await client.post(
                "/process/process-images", json={"images": [inline(photo(ORANGE))], "collection": "other"}
            )
        ).json()
        assert result["model_name"] == "SFace"
        assert (await asked(client, RED))[0] == "Dlib"


async def test_a_clearance_goes_with_the_list(upgraded: Settings, settings: Settings) -> None:
    async with serving(before(settings)) as client:
        person = await enroll(client, "Gil", photo(EVE))
        ada = await entry_of(client, "Ada")
        assert (await client.delete(f"/blacklist/{ada['id']}/")).status_code == 200
        result = await screen(client, BROTHER)
        await clear(client, result, person)
    async with serving(upgraded) as client:
        await eventually(lambda: rows(upgraded, "SELECT space FROM clearances") == [("SFace/painted",)])
        for picture in files(upgraded.processed_images_output_dir):
            picture.unlink()
        seen = await screen(client, BROTHER)
        assert (seen["model_name"], verdicts(seen)) == ("SFace", ["clear"])
        assert len(kept(upgraded)) == 1


async def test_a_clearance_whose_picture_is_gone_is_said_to_hold_no_more(
    upgraded: Settings, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(before(settings)) as client:
        ada = await entry_of(client, "Ada")
        await clear(client, await screen(client, BROTHER), ada)
    for picture in files(settings.processed_images_output_dir):
        picture.unlink()
    with caplog.at_level(logging.INFO):
        async with serving(upgraded) as client:
            await eventually(lambda: "clearances_do_not_hold" in caplog.messages)
            seen = await screen(client, BROTHER)
            assert (seen["model_name"], verdicts(seen)) == ("SFace", ["match"])


async def test_the_log_and_the_trail_say_what_happens(upgraded: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(upgraded) as client:
            await until_answered_by_sface(client)
            await eventually(lambda: "list_upgraded" in caplog.messages)
    assert [message for message in caplog.messages if message.startswith("list_")] == [
        "list_answered_by_another_model",
        "list_upgrading",
        "list_upgraded",
    ]
    events = [json.loads(text) for (text,) in rows(upgraded, "SELECT event FROM audit_events")]
    assert [event["action"] for event in events].count("reindex") == 1
