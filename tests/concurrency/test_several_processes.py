"""Several processes on one database, and conflicting changes in all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random

import httpx
import pytest

from facescreen.config import Settings
from tests.api.test_blacklist import enroll, files, upload
from tests.api.test_collections import enroll_in
from tests.at_rest import check_disk, is_readable
from tests.painted import BLUE, RED, Colour, inline, photo
from tests.painted_server import server_process

ACTORS, CYCLES = 4, 8


@pytest.fixture
async def clients(settings: Settings) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of three processes."""
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(server_process(settings))).client for _ in range(3)]


async def search(
    client: httpx.AsyncClient, *colours: Colour, collection: str = "default"
) -> tuple[int, list[list[str]]]:
    """The version of the list, and for each face the names of those who have a photo of its very colour."""
    limits = {"threshold": 0.001, "review_threshold": 0.001}
    images, exact = [inline(photo(*colours))], {"distance_metric": "euclidean", **limits}
    body = {"images": images, "collection": collection, **exact}
    response = await client.post("/process/process-images", json=body)
    assert response.status_code == 200, response.text
    (result,) = response.json()
    return result["list_version"], [[match["name"] for match in f["blacklist_matches"]] for f in result["faces"]]


async def test_no_process_answers_from_a_stale_list(clients: list[httpx.AsyncClient], settings: Settings) -> None:
    async def act(actor: int) -> None:
        random = Random(actor)  # noqa: S311 - the same choices every time
        seen = 0

        async def everywhere(*expected: list[str]) -> None:
            nonlocal seen
            for client in random.sample(clients, len(clients)):
                version, names = await search(client, first, second)
                assert names == list(expected)
                assert version >= seen
                seen = version

        for cycle in range(CYCLES):
            name = f"{actor}-{cycle}"
            first, second = (200 + 10 * actor, 10 * cycle, 0), (200 + 10 * actor, 10 * cycle, 80)
            await everywhere([], [])
            record = await enroll(random.choice(clients), name, photo(first))
            await everywhere([name], [])
            added = await random.choice(clients).post(f"/blacklist/{record['id']}/images", files=upload(photo(second)))
            assert added.status_code == 200, added.text
            await everywhere([name], [name])
            image = random.choice(added.json()["record"]["images"])
            removed = await random.choice(clients).delete(f"/blacklist/{record['id']}/images/{image['id']}")
            assert removed.status_code == 200, removed.text
            kept = first if image["id"] != record["images"][0]["id"] else second
            await everywhere(*([name] if colour == kept else [] for colour in (first, second)))
            assert (await random.choice(clients).delete(f"/blacklist/{record['id']}/")).status_code == 200
            await everywhere([], [])

    await asyncio.gather(*map(act, range(ACTORS)))
    check_disk(settings)


async def test_of_concurrent_adds_of_one_photo_exactly_one_is_taken(
    clients: list[httpx.AsyncClient], settings: Settings
) -> None:
    record = await enroll(clients[0], "Ada", photo(RED))
    path = f"/blacklist/{record['id']}/images"
    answers = await asyncio.gather(*(client.post(path, files=upload(photo(BLUE))) for client in clients * 4))
    taken, *refused = sorted(answers, key=lambda answer: answer.status_code)
    assert taken.status_code == 200
    assert {fault["code"] for answer in refused for fault in answer.json()["errors"]} == {"duplicate_image"}
    images = taken.json()["record"]["images"]
    assert [(await client.get(f"{path}/{image['id']}")).status_code for client in clients for image in images] == [
        200
    ] * 6
    assert len(files(settings.blacklist_db_path)) == 2
    check_disk(settings)


async def test_conflicting_changes_of_one_entry_leave_nothing_half_done(
    clients: list[httpx.AsyncClient], settings: Settings
) -> None:
    one, two, three = clients
    for _ in range(15):
        record = await enroll(one, "Ada", photo(RED))
        entry, image = f"/blacklist/{record['id']}/", record["images"][0]["id"]
        deletions = asyncio.gather(one.delete(entry), two.delete(entry))
        screenings = asyncio.gather(*(search(client, RED, BLUE) for client in clients))
        others = asyncio.gather(
            three.post(f"{entry}images", files=upload(photo(BLUE))),
            two.post(f"{entry}images", files=upload(photo(BLUE))),
            one.delete(f"{entry}images/{image}"),
            three.get(f"{entry}images/{image}"),
            three.put(entry, json={"name": "Eve"}),
        )
        assert sorted(answer.status_code for answer in await deletions) == [200, 404]
        await screenings
        assert {answer.status_code for answer in await others} <= {200, 201, 404, 422}
        assert [(await search(client, RED, BLUE))[1] for client in clients] == [[[], []]] * 3
    assert (await two.get("/blacklist/")).json() == []
    check_disk(settings)
    assert files(settings.blacklist_db_path) == []
    stored = (await three.get("/processed-images/", params={"limit": 1000, "matched_only": True})).json()
    assert stored["total_items"] == 0


async def test_a_deleted_embedding_is_readable_nowhere_whoever_else_writes(
    clients: list[httpx.AsyncClient], settings: Settings
) -> None:
    async def act(actor: int) -> None:
        for number in range(8):
            client, colour = clients[(actor + number) % len(clients)], (200, 10 * actor, 10 * number)
            record = await enroll(client, "Ada", photo(colour))
            assert is_readable(settings, colour)
            assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 200
            assert not is_readable(settings, colour)

    await asyncio.gather(*map(act, range(6)))


async def test_no_process_answers_from_a_stale_or_deleted_collection(
    clients: list[httpx.AsyncClient], settings: Settings
) -> None:
    async def act(actor: int) -> None:
        random = Random(actor)  # noqa: S311 - the same choices every time
        name, colour = f"list-{actor}", (200, 10 * actor, 0)
        for cycle in range(CYCLES):
            created = await random.choice(clients).post("/collections/", json={"name": name})
            assert created.status_code == 201, created.text
            for client in clients:
                assert await search(client, colour, collection=name) == (0, [[]])
            person = f"{actor}-{cycle}"
            await enroll_in(random.choice(clients), name, person, photo(colour))
            for client in random.sample(clients, len(clients)):
                assert (await search(client, colour, collection=name))[1] == [[person]]
                assert (await search(client, colour))[1] == [[]]
            assert (await random.choice(clients).delete(f"/collections/{name}/")).status_code == 204
            assert not is_readable(settings, colour)
            body = {"images": [inline(photo(colour))], "collection": name}
            for client in clients:
                for answer in (
                    await client.post("/process/process-images", json=body),
                    await client.get("/blacklist/", params={"collection": name}),
                    await client.get(f"/collections/{name}/"),
                ):
                    assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")

    await asyncio.gather(*map(act, range(ACTORS)))
    check_disk(settings)
    assert files(settings.blacklist_db_path) == []


async def test_synchronisations_wait_for_each_other(clients: list[httpx.AsyncClient]) -> None:
    await enroll(clients[0], "Ada", photo(RED))
    reports = await asyncio.gather(*(client.post("/blacklist/sync") for client in clients * 40))
    unchanged = {"added": [], "withdrawn": [], "skipped": [], "warnings": [], "unchanged": 1}
    assert [report.json() for report in reports] == [unchanged] * 120
