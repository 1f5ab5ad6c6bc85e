"""A POST that is sent again with its key is done once, and answered as the first time."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from contextvars import Context
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen import acting
from facescreen.acting import Claim
from facescreen.api.admission import ClientGoneError
from facescreen.api.bodies import MAX_FORM_FILES, MAX_FORM_PARTS
from facescreen.config import DetectorName, Settings
from facescreen.db import idempotency
from facescreen.db.schema import embeddings, idempotency_keys
from facescreen.domain.faces import Face, Pixels
from facescreen.errors import IdempotencyInProgressError, StorageFullError
from facescreen.factory import Services
from facescreen.images.folder_store import FolderStore
from facescreen.lifeline import Lifeline
from facescreen.main import create_app
from facescreen.services.idempotency import KeyedRequest, Outcome
from tests.api.test_blacklist import upload
from tests.at_rest import check_disk, events
from tests.conftest import serving
from tests.painted import BLUE, RED, PaintedBackend, inline, photo
from tests.painted_server import server_process

NAME = "Wilhelmina Quiggley"


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def post(client: httpx.AsyncClient, key: str, *photos: bytes, name: str = NAME, **headers: str) -> Any:
    """Enroll somebody; httpx sends another boundary each time."""
    return client.post("/blacklist/", data={"name": name}, files=upload(*photos), headers={**keyed(key), **headers})


async def entries(client: httpx.AsyncClient) -> list[int]:
    return [record["id"] for record in (await client.get("/blacklist/")).raise_for_status().json()]


def check_replay(again: httpx.Response, first: httpx.Response) -> None:
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("content-type", "content-length", "location"):
        assert again.headers.get(name) == first.headers.get(name)


async def test_a_person_is_enrolled_once_however_often_it_is_sent(client: httpx.AsyncClient) -> None:
    first = await post(client, "k", photo(RED))
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    for _ in range(2):
        check_replay(await post(client, "k", photo(RED)), first)
    other = await post(client, "k2", photo(RED))
    assert other.json()["id"] != first.json()["id"]
    assert await entries(client) == [first.json()["id"], other.json()["id"]]


async def test_a_screening_is_stored_once(client: httpx.AsyncClient) -> None:
    body = {"images": [inline(photo(RED)), "nonsense"]}
    first = await client.post("/process/process-images", json=body, headers=keyed("k"))
    check_replay(await client.post("/process/process-images", json=body, headers=keyed("k")), first)
    assert (await client.get("/processed-images/")).json()["total_items"] == 2


async def test_a_request_without_a_body_is_done_once(client: httpx.AsyncClient, settings: Settings) -> None:
    first = await client.post("/blacklist/sync", headers=keyed("k"))
    dropped = settings.blacklist_db_path / "Eve"
    dropped.mkdir(parents=True)
    (dropped / "eve.png").write_bytes(photo(BLUE))
    check_replay(await client.post("/blacklist/sync", headers=keyed("k")), first)
    assert await entries(client) == []


async def test_another_payload_is_refused_and_another_operation_is_another_request(client: httpx.AsyncClient) -> None:
    first = await post(client, "k", photo(RED))
    for again in (post(client, "k", photo(BLUE)), post(client, "k", photo(RED), name="Ada")):
        refused = await again
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    (await client.post("/collections/", json={"name": "other"}, headers=keyed("k"))).raise_for_status()
    elsewhere = await client.post(
        "/blacklist/", params={"collection": "other"}, data={"name": NAME}, files=upload(photo(RED)), headers=keyed("k")
    )
    assert elsewhere.status_code == 201
    check_replay(await post(client, "k", photo(RED)), first)
    body, kind = b'{"name": "third"}', {"Content-Type": "application/json"}
    (await client.post("/collections/", content=body, headers={**keyed("c"), **kind})).raise_for_status()
    text = await client.post(
        "/collections/", content=body, headers={**keyed("c"), "Content-Type": "application/x+json"}
    )
    assert text.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"a b", b"caf\xc3\xa9", b"\x7f"])
async def test_a_key_is_visible_ascii(client: httpx.AsyncClient, key: bytes) -> None:
    body = {"image": inline(photo(RED))}
    refused = await client.post("/detect/detect-face", json=body, headers=[(b"Idempotency-Key", key)])
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_invalid")


async def test_one_key_at_most(client: httpx.AsyncClient) -> None:
    body = {"image": inline(photo(RED))}
    several = [(b"Idempotency-Key", b"a"), (b"idempotency-key", b"a")]
    refused = await client.post("/detect/detect-face", json=body, headers=several)
    assert refused.json()["code"] == "idempotency_key_invalid"
    longest = await client.post("/detect/detect-face", json=body, headers=keyed("!" * 255))
    assert longest.status_code == 200


class Paused(PaintedBackend):
    """A backend that waits in the middle of the work, once it was told to."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        self.arrived.set()
        await self.go_on.wait()
        return await super().detect(image, detector)


@pytest.fixture
def paused() -> Paused:
    return Paused()


@pytest.fixture
async def pausing(settings: Settings, paused: Paused) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings.model_copy(update={"max_concurrent_requests": 4}), paused) as started:
        paused.arrived.clear()
        paused.go_on.clear()
        yield started


async def test_while_the_first_one_runs_the_second_is_told_so(pausing: httpx.AsyncClient, paused: Paused) -> None:
    first = asyncio.create_task(post(pausing, "k", photo(RED)))
    await paused.arrived.wait()
    second = await post(pausing, "k", photo(RED))
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_in_progress")
    paused.go_on.set()
    check_replay(await post(pausing, "k", photo(RED)) if (await first).status_code == 201 else second, await first)


async def test_what_a_vanished_caller_asked_for_can_be_asked_again(pausing: httpx.AsyncClient, paused: Paused) -> None:
    first = asyncio.create_task(post(pausing, "k", photo(RED)))
    await paused.arrived.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    paused.go_on.set()
    again = await post(pausing, "k", photo(RED))
    assert again.status_code == 201
    assert "idempotency-replayed" not in again.headers
    assert await entries(pausing) == [again.json()["id"]]


async def test_a_deadline_gives_the_key_free(settings: Settings, paused: Paused) -> None:
    async with serving(settings.model_copy(update={"request_timeout_seconds": 0.2}), paused) as client:
        paused.go_on.clear()
        assert (await post(client, "k", photo(RED))).status_code == 504
        paused.go_on.set()
        assert (await post(client, "k", photo(RED))).status_code == 201


async def test_what_was_refused_is_asked_anew(client: httpx.AsyncClient) -> None:
    enrolled = (await post(client, "k", photo(RED))).json()
    images = f"/blacklist/{enrolled['id']}/images"
    repeated = await client.post(images, files=upload(photo(RED)), headers=keyed("same"))
    assert (repeated.status_code, repeated.json()["errors"][0]["code"]) == (422, "duplicate_image")
    (await client.delete(f"{images}/{enrolled['images'][0]['id']}")).raise_for_status()
    assert (await client.post(images, files=upload(photo(RED)), headers=keyed("same"))).status_code == 200
    body = {"images": [inline(photo(RED))], "collection": "later"}
    missing = await client.post("/process/process-images", json=body, headers=keyed("later"))
    assert missing.status_code == 404
    await client.post("/collections/", json={"name": "later"})
    found = await client.post("/process/process-images", json=body, headers=keyed("later"))
    assert found.status_code == 200
    for _ in range(2):
        taken = await client.post("/collections/", json={"name": "later"}, headers=keyed("taken"))
        assert taken.status_code == 409
        assert "idempotency-replayed" not in taken.headers


async def test_a_screening_that_the_disk_did_not_take_is_stored_the_next_time(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_store: FolderStore, _name: str, _data: bytes) -> None:
        raise StorageFullError("the disk is full")

    async def screened() -> httpx.Response:
        body = {"images": [inline(photo(RED))]}
        return (await client.post("/process/process-images", json=body, headers=keyed("k"))).raise_for_status()

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", full)
        assert [result["stored"] for result in (await screened()).json()] == [False]
    stored = await screened()
    assert [result["stored"] for result in stored.json()] == [True]
    check_replay(await screened(), stored)


async def test_upkeep_on_the_way_is_no_effect(settings: Settings, paused: Paused) -> None:
    async with serving(settings, paused) as client:
        await post(client, "k", photo(RED))
    late = settings.model_copy(update={"request_timeout_seconds": 2.0})
    body = {"images": [inline(photo(RED))], "model_name": "Dlib", "threshold": 0.2, "review_threshold": 0.2}
    async with serving(late, paused) as client:
        paused.go_on.clear()
        stopped = await client.post("/process/process-images", json=body, headers=keyed("screened"))
        assert stopped.status_code == 504
        async with client.services.database.read() as connection:  # type: ignore[attr-defined]
            embedded = select(embeddings.c.space).where(embeddings.c.space.startswith("Dlib"))
            assert (await connection.execute(embedded)).all()
        paused.go_on.set()
        again = await client.post("/process/process-images", json=body, headers=keyed("screened"))
        assert again.status_code == 200


async def test_a_request_that_ended_while_it_was_written_down_does_not_begin(
    client: httpx.AsyncClient, services: Services
) -> None:
    request = KeyedRequest("anybody", "POST /", "k", b"")
    begun: list[int] = []
    lifelines: list[Lifeline] = []

    async def work() -> Outcome:
        begun.append(1)
        return Outcome(b"done", is_final=True)

    async def stopped() -> None:
        lifelines.append(Lifeline())
        with lifelines[0].holding():
            await services.idempotency.answered(request, work)

    with closing(sqlite3.connect(services.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(stopped())
        while not lifelines or not lifelines[0]._sections:  # noqa: ASYNC110 - SQLite waits in a thread
            await asyncio.sleep(0)
        lifelines[0].end(ClientGoneError())
        other.execute("ROLLBACK")
        with pytest.raises(ClientGoneError):
            await task
    assert not begun
    assert await services.idempotency.answered(request, work) == (b"done", False)


async def test_a_request_that_was_cancelled_while_it_was_written_down_is_nobodys(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = KeyedRequest("anybody", "POST /", "k", b"")
    write = services.database.write

    async def work() -> Outcome:
        return Outcome(b"done", is_final=True)

    @asynccontextmanager
    async def cancelled_after_commit() -> AsyncIterator[AsyncConnection]:
        async with write() as connection:
            yield connection
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(services.database, "write", cancelled_after_commit)
        with pytest.raises(asyncio.CancelledError):
            await services.idempotency.answered(request, work)
    assert await services.idempotency.answered(request, work) == (b"done", False)


async def test_a_body_above_the_limit_is_refused_as_ever(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"max_body_bytes": 10_000})) as client:
        for _ in range(2):
            refused = await client.post("/collections/", content=b" " * 10_001, headers=keyed("k"))
            assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
        assert (await client.post("/collections/", json={"name": "a"}, headers=keyed("k"))).status_code == 201


LOOKALIKE = (
    b"--x\r\nContent-Disposition: form-data; name=name\r\n\r\n" + b"\r\n--xy" * MAX_FORM_PARTS * 2 + b"\r\n--x--\r\n"
)


@pytest.mark.parametrize(
    ("files", "status"), [(MAX_FORM_FILES, 413), (MAX_FORM_FILES + 1, 400), (2 * MAX_FORM_PARTS, 400)]
)
async def test_a_form_of_many_parts_is_answered_and_recorded_as_without_a_key(
    client: httpx.AsyncClient, settings: Settings, files: int, status: int
) -> None:
    answers = [
        await client.post("/blacklist/", data={"name": NAME}, files=upload(*[b"x"] * files), headers=headers)
        for headers in ({}, keyed("k"))
    ]
    assert [answer.status_code for answer in answers] == [status] * 2
    assert len({answer.json()["code"] for answer in answers}) == 1
    assert [event["outcome"] for event in events(settings)[-2:]] == [answers[0].json()["code"]] * 2


@pytest.mark.parametrize("body", [b"\r\n--x" * 100_000, LOOKALIKE], ids=["nothing else", "lookalike"])
@pytest.mark.parametrize("path", ["/blacklist/", "/detect/detect-face"])
async def test_what_may_be_too_many_parts_is_refused_whatever_the_operation_takes(
    client: httpx.AsyncClient, body: bytes, path: str
) -> None:
    headers = {**keyed("k"), "Content-Type": "multipart/form-data; boundary=x"}
    refused = await client.post(path, content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed_request")


async def test_it_is_the_same_in_whatever_pieces_it_comes(client: httpx.AsyncClient) -> None:
    form = client.build_request("POST", "/blacklist/", data={"name": NAME}, files=upload(photo(RED)))
    whole = form.read()
    headers = {**keyed("k"), "Content-Type": form.headers["content-type"]}

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    first = await client.post("/blacklist/", content=pieces(7), headers=headers)
    assert first.status_code == 201
    for size in (1, len(whole)):
        check_replay(await client.post("/blacklist/", content=pieces(size), headers=headers), first)


async def check_forgotten(client: httpx.AsyncClient, key: str) -> None:
    again = await post(client, key, photo(RED))
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_outcome_unknown")


async def test_a_deleted_person_is_named_in_no_file_and_no_answer(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    created = await post(client, "k", photo(RED))
    detection, screening = {"image": inline(photo(RED))}, {"images": [inline(photo(RED))]}
    (await client.post("/detect/detect-face", json=detection, headers=keyed("seen"))).raise_for_status()
    screened = await client.post("/process/process-images", json=screening, headers=keyed("screened"))
    assert NAME in screened.text
    (await client.delete(f"/blacklist/{created.json()['id']}/")).raise_for_status()
    await check_forgotten(client, "k")
    again = await client.post("/process/process-images", json=screening, headers=keyed("screened"))
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_outcome_unknown")
    # What did nothing is done again.
    seen = await client.post("/detect/detect-face", json=detection, headers=keyed("seen"))
    assert (seen.status_code, seen.headers.get("idempotency-replayed")) == (200, None)
    place = settings.blacklist_db_path.parent
    for path in place.rglob("*"):
        assert NAME.partition(" ")[0].lower() not in str(path).lower()
        assert not path.is_file() or NAME.encode() not in path.read_bytes(), path


async def test_people_of_a_deleted_collection_are_named_in_no_answer(client: httpx.AsyncClient) -> None:
    await post(client, "k", photo(RED))
    await client.post("/collections/", json={"name": "other"})
    (await client.delete("/collections/other")).raise_for_status()
    await check_forgotten(client, "k")


async def test_an_answer_that_was_made_before_a_deletion_is_not_kept_after_it(
    client: httpx.AsyncClient, services: Services
) -> None:
    ada, eve = [(await post(client, name, photo(RED), name=name)).json() for name in ("Ada", "Eve")]
    request = KeyedRequest("anybody", "POST /", "k", b"")

    async def work() -> Outcome:
        another = services.blacklist.delete("default", ada["id"])
        await asyncio.create_task(another, context=Context())
        return Outcome(b"Ada", is_final=True)

    async def again() -> Outcome:
        await services.blacklist.delete("default", eve["id"])
        return Outcome(b"Eve is gone", is_final=True)

    assert (await services.idempotency.answered(request, work)).answer == b"Ada"
    assert await services.idempotency.answered(request, again) == (b"Eve is gone", False)
    assert await services.idempotency.answered(request, work) == (b"Eve is gone", True)


async def test_a_request_that_was_given_up_takes_no_effect(client: httpx.AsyncClient, services: Services) -> None:
    enrolled = (await post(client, "k", photo(RED))).json()
    claim = Claim("id", "owner")
    async with services.database.write() as connection:
        await idempotency.claim(connection, claim, fingerprint="f")
        await idempotency.give_up(connection, claim)
    token = acting.claim.set(claim)
    try:
        with pytest.raises(IdempotencyInProgressError):
            await services.blacklist.update("default", enrolled["id"], {"name": "Ada"})
    finally:
        acting.claim.reset(token)
    assert (await services.blacklist.get("default", enrolled["id"])).name == NAME


@pytest.mark.parametrize("has_effect", [False, True])
@pytest.mark.parametrize("owner", ["1", None, "ours"])
async def test_an_interrupted_request_is_done_again_unless_it_had_an_effect(
    client: httpx.AsyncClient, services: Services, owner: str | None, has_effect: bool
) -> None:
    """As a crash leaves it, or a database that takes no writes."""
    await post(client, "k", photo(RED))
    async with services.database.write() as connection:
        left = {"owner": owner, "has_effect": has_effect, "answer": None}
        if owner != "ours":
            await connection.execute(update(idempotency_keys).values(left))
        else:
            ours = services.idempotency._presence.owner
            await connection.execute(update(idempotency_keys).values({**left, "owner": ours}))
    again = await post(client, "k", photo(RED))
    if has_effect:
        assert (again.status_code, again.json()["code"]) == (409, "idempotency_outcome_unknown")
    else:
        assert again.status_code == 201
        check_replay(await post(client, "k", photo(RED)), again)


async def test_of_simultaneous_requests_in_two_processes_one_is_done(settings: Settings) -> None:
    async with server_process(settings) as one, server_process(settings) as two:
        for number in range(3):
            clients = [one.client, two.client] * 4
            answers = await asyncio.gather(*(post(client, f"k{number}", photo(RED)) for client in clients))
            done = [answer for answer in answers if answer.status_code == 201]
            assert len({answer.content for answer in done}) == 1
            assert [answer for answer in done if "idempotency-replayed" not in answer.headers] != []
            refused = {answer.json()["code"] for answer in answers if answer.status_code != 201}
            assert refused <= {"idempotency_in_progress", "overloaded"}
            assert len(await entries(two.client)) == number + 1
    check_disk(settings)


def test_every_post_documents_the_key(settings: Settings, tmp_path: Path) -> None:
    document = create_app(settings).openapi()
    posts = [item["post"] for item in document["paths"].values() if "post" in item]
    assert len(posts) >= 6
    for operation in posts:
        (parameter,) = (each for each in operation["parameters"] if each["in"] == "header")
        assert parameter["name"] == "Idempotency-Key"
        codes = {
            code
            for answer in operation["responses"].values()
            for code in answer.get("content", {}).get("application/problem+json", {}).get("examples", ())
        }
        assert codes >= {
            "idempotency_key_invalid",
            "idempotency_key_reused",
            "idempotency_in_progress",
            "idempotency_outcome_unknown",
        }
    others = [
        operation
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in {"get", "put", "delete"}
    ]
    assert "Idempotency-Key" not in str(others)
