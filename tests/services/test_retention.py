"""What has been kept for long enough goes, and nothing else."""

import asyncio
import fcntl
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from facescreen.acting import SERVICE
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.schema import idempotency_keys, screenings
from facescreen.db.screenings import insert_screening
from facescreen.factory import Services
from facescreen.images.sources import SourceImage
from facescreen.services import retention
from facescreen.services.retention import Kind
from facescreen.services.thresholds import ScreeningOptions
from tests.api.test_blacklist import enroll, files
from tests.api.test_clearing import BROTHER, BROTHER_AGAIN, EVE, clear, undo, verdicts
from tests.api.test_clearing import screen as screen_one
from tests.api.test_process import process
from tests.at_rest import check_disk
from tests.conftest import serving
from tests.painted import GREEN, RED, inline, photo
from tests.painted_server import HANGING, server_process

YEARS = 800


async def screen(client: httpx.AsyncClient, *data: bytes) -> list[int]:
    return [result["id"] for result in await process(client, *map(inline, data))]


async def age(settings: Settings, ids: Sequence[int], days: float) -> None:
    """Make results look as if they had been stored so many days ago."""
    database = Database(settings.database_url)
    async with database.write() as connection:
        then = datetime.now(UTC) - timedelta(days=days)
        await connection.execute(update(screenings).where(screenings.c.id.in_(ids)).values(created_at=then))
    await database.aclose()


async def pictures(client: httpx.AsyncClient) -> dict[int, bool]:
    """The stored results, and whether they have a picture."""
    items = (await client.get("/processed-images/", params={"limit": 1000})).json()["items"]
    found = {item["id"]: await client.get(f"/processed-images/{item['id']}/image") for item in items}
    return {id_: answer.status_code == 200 for id_, answer in found.items()}


def events(services: Services, action: str) -> list[dict[str, Any]]:
    """What the audit trail says of it."""
    with closing(sqlite3.connect(services.database.path)) as database:
        recorded = [json.loads(text) for (text,) in database.execute("SELECT event FROM audit_events ORDER BY id")]
    return [event for event in recorded if event["action"] == action]


@contextmanager
def swept_by_another(services: Services) -> Iterator[None]:
    with Path(f"{services.database.path}-retention").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another task or process does."""
    async with asyncio.timeout(HANGING):
        while not await holds():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def test_results_go_after_their_time_and_copies_before_hits(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    await enroll(client, "Ada", photo(RED))
    ages = (29.9, 30.1, 364.9, 365.1)
    clears = await screen(client, *[photo(GREEN)] * 4)
    hits = await screen(client, *[photo(GREEN, RED)] * 4)
    refused = await screen(client, b"no image")
    for days, *ids in zip(ages, clears, hits, strict=True):
        await age(settings, ids, days)
    await age(settings, refused, 31)
    due = await services.retention.due()
    assert due == {Kind.ENTRIES: 0, Kind.COPIES: 6, Kind.RESULTS: 4, Kind.HITS: 1, Kind.ANSWERS: 0, Kind.AUDIT: 0}
    assert len(await pictures(client)) == 9  # to ask deletes nothing
    assert await services.retention.sweep() == due
    assert await pictures(client) == {clears[0]: True, hits[0]: True, hits[1]: False, hits[2]: False}
    assert len(files(settings.processed_images_output_dir)) == 2
    check_disk(settings)
    assert not (await services.retention.sweep()).total()
    gone = (await client.get(f"/processed-images/{hits[1]}/image")).json()
    assert (gone["code"], "kept no longer" in gone["detail"]) == ("result_not_found", True)


async def test_what_may_be_kept_for_ever_is(settings: Settings) -> None:
    kinds = ("results", "hits", "copies", "audit")
    for_ever = settings.model_copy(update={f"retention_{kind}_days": None for kind in kinds})
    async with serving(for_ever) as client:
        services: Services = client.services  # type: ignore[attr-defined]
        await enroll(client, "Ada", photo(RED))
        ids = await screen(client, photo(RED), photo(GREEN))
        await age(settings, ids, 365 * YEARS)
        assert not (await services.retention.sweep()).total()
        assert await pictures(client) == dict.fromkeys(ids, True)


async def test_a_result_stays_for_as_long_as_its_clearance_holds(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen_one(client, BROTHER)
    await clear(client, result, eve)
    await age(settings, [result["id"]], 365 * YEARS)
    done = await services.retention.sweep()
    assert (done[Kind.COPIES], done[Kind.RESULTS], done[Kind.HITS]) == (1, 0, 0)
    again = await screen_one(client, BROTHER_AGAIN)
    assert verdicts(again) == ["clear"]
    # Results that only carry the clearance can go without ending it.
    await age(settings, [again["id"]], 366)
    assert (await services.retention.sweep())[Kind.HITS] == 1
    assert verdicts(await screen_one(client, BROTHER_AGAIN)) == ["clear"]
    assert (await undo(client, result, eve)).status_code == 200
    assert (await services.retention.sweep())[Kind.HITS] == 1
    assert verdicts(await screen_one(client, BROTHER_AGAIN)) == ["match"]


async def test_a_hit_remains_one_whatever_becomes_of_whom_it_was(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    ada, eve = await enroll(client, "Ada", photo(GREEN)), await enroll(client, "Eve", photo(EVE))
    (withdrawn,) = await screen(client, photo(GREEN))
    given_on = await screen_one(client, BROTHER)
    await clear(client, given_on, eve)
    cleared = await screen_one(client, BROTHER_AGAIN)
    assert verdicts(cleared) == ["clear"]
    await client.delete(f"/blacklist/{ada['id']}/")
    await age(settings, [withdrawn, cleared["id"]], 364)
    due = await services.retention.due()
    assert (due[Kind.RESULTS], due[Kind.HITS]) == (0, 0)
    await age(settings, [withdrawn, cleared["id"]], 366)
    assert (await services.retention.sweep())[Kind.HITS] == 2


async def test_a_hit_remains_one_without_any_trace_of_its_match(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    given_on = await screen_one(client, BROTHER)
    await clear(client, given_on, eve)
    carried = await screen_one(client, BROTHER_AGAIN)
    (late,) = await services.screening.screen([SourceImage(photo(BROTHER_AGAIN), "late")], ScreeningOptions())
    await client.delete(f"/blacklist/{eve['id']}/")
    async with services.database.write() as connection:
        stored = await insert_screening(connection, replace(late, copy=None))
    assert [(face.verdict, face.matches) for face in stored.faces] == [("clear", ())]
    ids = [given_on["id"], carried["id"], late.id, stored.id]
    for id_ in ids:
        (face,) = (await client.get(f"/processed-images/{id_}")).json()["faces"]
        assert (face["verdict"], face["blacklist_matches"]) == ("clear", [])
    await age(settings, ids, 364)
    due = await services.retention.due()
    assert (due[Kind.RESULTS], due[Kind.HITS]) == (0, 0)
    await age(settings, ids, 366)
    assert (await services.retention.sweep())[Kind.HITS] == len(ids)


async def test_it_is_recorded_with_the_ids_in_the_transaction_that_does_it(
    client: httpx.AsyncClient, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    ids = await screen(client, *[photo(GREEN)] * 5)
    await age(settings, ids, 31)
    told: list[tuple[int, int]] = []
    await services.retention.sweep(lambda done, total: told.append((done, total)))
    assert told == [(done, 10) for done in (2, 4, 5, 7, 9, 10)]
    recorded = [(e["actor"], e["subject"], e["result_ids"]) for e in events(services, "retention")]
    portions = [ids[:2], ids[2:4], ids[4:]]
    assert recorded == [(SERVICE, kind, portion) for kind in ("copies", "results") for portion in portions]


async def test_old_answers_and_events_go_and_the_trail_says_so(services: Services, settings: Settings) -> None:
    async with services.database.write() as connection:
        old, new = (datetime.now(UTC) - timedelta(hours=hours) for hours in (24.1, 23.9))
        row = {"fingerprint": "0", "has_effect": True, "answer": b"secret"}
        rows = [{**row, "id": str(at), "created_at": at} for at in (old, new)]
        await connection.execute(idempotency_keys.insert(), rows)
    with closing(sqlite3.connect(services.database.path)) as database:
        database.execute(
            "INSERT INTO request_tokens VALUES ('CreateUser', 't', 1, '0', '{}', datetime('now', '-11 minutes'))"
        )
        database.commit()
    done = await services.retention.sweep()
    assert (done[Kind.ANSWERS], done[Kind.AUDIT]) == (2, 0)
    async with services.database.read() as connection:
        kept = (await connection.execute(idempotency_keys.select())).mappings().all()
    assert [row["id"] for row in kept] == [str(new)]


async def test_old_events_are_cut_off(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"retention_audit_days": 1e-9})) as client:
        services: Services = client.services  # type: ignore[attr-defined]
        for name in ("one", "two", "three"):
            await client.post("/collections/", json={"name": name})
        due = (await services.retention.due())[Kind.AUDIT]
        assert due >= 2
        assert (await services.retention.sweep())[Kind.AUDIT] == due
        assert [len(events(services, action)) for action in ("collection.create", "audit.cut")] == [1, 1]


async def test_only_one_process_sweeps_at_a_time(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    ids = await screen(client, photo(GREEN))
    await age(settings, ids, 31)
    with swept_by_another(services):
        sweep = asyncio.ensure_future(services.retention.sweep())
        done, _ = await asyncio.wait([sweep], timeout=0.5)
        assert not done
        assert list(await pictures(client)) == ids
    assert (await sweep)[Kind.RESULTS] == 1


async def test_every_serving_process_sweeps_in_the_background(settings: Settings) -> None:
    often = settings.model_copy(update={"retention_sweep_seconds": 0.05})
    async with server_process(often) as one, server_process(often) as other:
        for client in (one.client, other.client):
            ids = await screen(client, *[photo(GREEN)] * 3)
            await age(settings, ids, 31)

            async def are_gone(client: httpx.AsyncClient = client) -> bool:
                return not await pictures(client)

            await eventually(are_gone)
    check_disk(settings)


async def test_a_sweep_that_fails_is_logged_and_tried_again(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = Path(f"{Database(settings.database_url).path}-retention")
    await asyncio.to_thread(in_the_way.mkdir)
    async with serving(settings.model_copy(update={"retention_sweep_seconds": 0.05})) as client:
        await age(settings, await screen(client, photo(GREEN)), 31)

        async def is_logged() -> bool:
            return "sweep_failed" in caplog.messages

        async def is_gone() -> bool:
            return not await pictures(client)

        await eventually(is_logged)
        assert len(await pictures(client)) == 1
        await asyncio.to_thread(in_the_way.rmdir)
        await eventually(is_gone)


async def test_a_service_that_stops_ends_its_sweep_and_leaves_the_rest_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 1)
    async with serving(settings) as client:
        ids = await screen(client, *[photo(GREEN)] * 4)
        await age(settings, ids, 31)
    async with serving(settings) as client:
        pass  # it may stop anywhere in the sweep that it began
    check_disk(settings)
    async with serving(settings) as client:
        services: Services = client.services  # type: ignore[attr-defined]
        await services.retention.sweep()
        assert await pictures(client) == {}
    check_disk(settings)
