"""Every kind of write, and what is promised of them while nothing can be written."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx

from facescreen.config import Settings
from tests.api.test_blacklist import enroll, upload
from tests.api.test_collections import create, enroll_in
from tests.api.test_process import process
from tests.api.test_sync import drop
from tests.painted import BLUE, GREEN, RED, YELLOW, inline, photo
from tests.painted_server import HANGING

Call = Callable[[], Coroutine[Any, Any, httpx.Response]]

READS = ("/", "/blacklist/", "/blacklist/report", "/collections/", "/processed-images/", "/models")


@dataclass(frozen=True)
class Written:
    """What there is before the fault, and every way to change it; in this order they succeed one after another."""

    client: httpx.AsyncClient
    eve: dict[str, Any]
    cleared: int
    uncleared: int

    @classmethod
    async def of(cls, client: httpx.AsyncClient, settings: Settings) -> "Written":
        eve = await enroll(client, "Eve", photo(RED), photo(GREEN))
        await create(client, "staff")
        await enroll_in(client, "staff", "Zoe", photo(BLUE))
        results = await process(client, *[inline(photo(RED, GREEN))] * 2)
        written = cls(client, eve, *(result["id"] for result in results))
        assert (await written.clear(written.cleared)).status_code == 200
        # Empties the write-ahead log, whose room would be taken next.
        assert (await client.post("/blacklist/sync")).is_success
        drop(settings, "Tom/dropped.png", photo(BLUE))
        return written

    def changes(self) -> dict[str, Call]:
        client, entry, kept = self.client, f"/blacklist/{self.eve['id']}/", self.eve["images"][0]["id"]
        person = {"name": "Ada", "reason": "x" * 2000}
        clearance = f"/processed-images/{self.cleared}/faces/0/clear"
        return {
            "enroll": lambda: client.post("/blacklist/", data=person, files=upload(photo(YELLOW))),
            "add a photo": lambda: client.post(f"{entry}images", files=upload(photo(YELLOW, side=80))),
            "update": lambda: client.put(entry, json={"reason": "y" * 2000}),
            "clear": lambda: self.clear(self.uncleared),
            "take back": lambda: client.delete(clearance, params={"entry_id": self.eve["id"]}),
            "create a collection": lambda: client.post("/collections/", json={"name": "zoo"}),
            "synchronise": lambda: client.post("/blacklist/sync"),
            "delete a photo": lambda: client.delete(f"{entry}images/{kept}"),
            "delete an entry": lambda: client.delete(entry),
            "delete a result": lambda: client.delete(f"/processed-images/{self.cleared}"),
            "delete a collection": lambda: client.delete("/collections/staff/"),
        }

    async def clear(self, result: int) -> httpx.Response:
        body = {"entry_id": self.eve["id"]}
        return await self.client.post(f"/processed-images/{result}/faces/0/clear", json=body)

    async def all(self) -> list[Any]:
        """Everything that can be read."""
        paths = [*READS, *(f"/processed-images/{result}/image" for result in (self.cleared, self.uncleared))]
        for record in await _json(self.client, "/blacklist/"):
            paths += [f"/blacklist/{record['id']}/images/{image['id']}" for image in record["images"]]
        answers = [await self.client.get(path) for path in paths]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.content for answer in answers]


async def outline(client: httpx.AsyncClient) -> tuple[Any, ...]:
    """What there is, without ids: people and how many photos they have, collections, and what results say."""
    people = [
        (record["name"], record["reason"], len(record["images"])) for record in await _json(client, "/blacklist/")
    ]
    lists = [(found["name"], found["entries"]) for found in await _json(client, "/collections/")]
    results = [
        [
            (face["verdict"], [(match["name"], match["clearance"] is None) for match in face["blacklist_matches"]])
            for face in result["faces"]
        ]
        for result in (await _json(client, "/processed-images/"))["items"]
    ]
    return people, lists, results


async def clean(client: httpx.AsyncClient) -> None:
    """Remove everything."""
    for record in await _json(client, "/blacklist/"):
        await client.delete(f"/blacklist/{record['id']}/")
    for found in await _json(client, "/collections/"):
        await client.delete(f"/collections/{found['name']}/")
    for result in (await _json(client, "/processed-images/"))["items"]:
        await client.delete(f"/processed-images/{result['id']}")
    assert await outline(client) == ([], [("default", 0)], [])


async def _json(client: httpx.AsyncClient, path: str) -> Any:
    return (await client.get(path)).json()


async def check_fault(
    client: httpx.AsyncClient, settings: Settings, fault: Callable[[], AbstractContextManager[None]]
) -> None:
    """While it lasts, writes are refused whole and everything else goes on; afterwards all is well without a restart.

    Args:
        settings: where this process finds the blacklist folder.
    """
    written = await Written.of(client, settings)
    before = await written.all()
    with fault():
        for name, change in written.changes().items():
            check_refused(await change(), name)
        for _ in range(2):
            await check_screening(client)
        assert await written.all() == before
        async with asyncio.timeout(HANGING):  # an answer serves everybody for a second
            while (await client.get("/ready")).status_code == 200:  # noqa: ASYNC110 - the server is another process
                await asyncio.sleep(0.1)
        assert not (await client.get("/ready")).json()["checks"]["storage"]
    for name, change in written.changes().items():
        answer = await change()
        assert answer.is_success, (name, answer.text)
    (result,) = await process(client, inline(photo(YELLOW)))
    assert (result["stored"], [m["name"] for m in result["faces"][0]["blacklist_matches"]]) == (True, ["Ada"])


def check_refused(answer: httpx.Response, name: str) -> None:
    assert answer.status_code == 507, (name, answer.status_code, answer.text)
    assert answer.json()["code"] == "storage_full", name
    assert int(answer.headers["retry-after"]) >= 1, name


async def check_screening(client: httpx.AsyncClient) -> None:
    """A screening whose results cannot be kept."""
    answered = await process(client, inline(photo(RED, YELLOW)), "!!")
    assert [(result["id"], result["stored"]) for result in answered] == [(None, False)] * 2
    assert [face["verdict"] for face in answered[0]["faces"]] == ["match", "clear"]
    assert [match["name"] for match in answered[0]["faces"][0]["blacklist_matches"]] == ["Eve"]
    assert answered[1]["error"] is not None
