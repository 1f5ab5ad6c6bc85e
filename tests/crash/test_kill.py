"""Kill -9 at any moment: what was acknowledged is there, what was deleted stays deleted, nothing is half there.

Callers enroll, screen and delete, and write down what they attempt and what they are told. Their server is killed,
another takes over, and what it answers, its files and its database are held against the callers' ledgers.

``CRASH_ROUNDS=300 pytest tests/crash`` kills so often at random, and at every single step instead of every seventh.
``CRASH_SEED=<number>`` repeats what a failure's output names, as far as time lets it.
"""

import asyncio
import os
import secrets
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from random import Random
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from tests.api.test_blacklist import upload
from tests.at_rest import check_disk, is_readable
from tests.crash.callers import Action, Caller, all_colours, check_answers
from tests.crash.mortal import HEADER, Mortal
from tests.painted import inline, photo
from tests.painted_server import ServerProcess

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
SEED = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))
CALLERS = 6
LONGEST_ROUND = 0.7
"""Seconds; enough for a few dozen requests."""
STEPS_TO_START = 16
"""About, where something is to be recovered."""
STRIDE = 1 if ROUNDS >= 100 else 7


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another process"])
async def test_kill_at_any_moment(settings: Settings, *, beside: bool) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    random = Random(f"{SEED}/{beside}")  # noqa: S311 - can be repeated
    colours = all_colours()
    folder = settings.blacklist_db_path
    callers = [Caller(f"c{index}-", f"{SEED}/{beside}/{index}", colours, folder=folder) for index in range(CALLERS)]
    async with AsyncExitStack() as stack:
        server = await _take_over(settings, random, stack)
        survivor = await _take_over(settings, random, stack) if beside else None
        for _ in range(max(1, ROUNDS // 2)):
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for index, caller in enumerate(callers):
                    caller.touched.clear()
                    client = survivor.client if survivor and index % 2 else server.client
                    tasks.create_task(caller.work(client, over))
                await asyncio.sleep(random.uniform(0, LONGEST_ROUND))
                server.kill()
                server = await _take_over(settings, random, stack)
                over.set()
            files = check_disk(settings)
            await check_answers(server.client, callers, files)
            if survivor:
                await check_answers(survivor.client, callers, files)
            assert not [colour for caller in callers for colour in caller.gone if is_readable(settings, colour)]


ACTIONS = (
    Caller.add_person,
    Caller.add_photos,
    Caller.delete_photo,
    Caller.delete_person,
    Caller.update_person,
    Caller.drop_person,
    Caller.screen,
    Caller.delete_result,
    Caller.clear,
    Caller.restore,
    Caller.create_list,
    Caller.fill_list,
    Caller.delete_list,
)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
async def test_kill_at_every_step(settings: Settings, action: Action) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    random = Random(f"{SEED}/{action.__name__}")  # noqa: S311 - can be repeated
    caller = Caller("c", str(SEED), all_colours(), folder=settings.blacklist_db_path)
    async with AsyncExitStack() as stack:
        server = await _take_over(settings, random, stack)
        answered = False
        steps = random.randrange(STRIDE)
        while not answered:
            await _prepare(caller, server.client, action)
            server.client.headers[HEADER] = str(steps)
            answered = await caller.attempt(action, server.client)
            server.kill()
            server = await _take_over(settings, random, stack)
            await check_answers(server.client, [caller], check_disk(settings))
            assert not [colour for colour in caller.gone if is_readable(settings, colour)]
            steps += STRIDE


@pytest.mark.parametrize("path", ["/blacklist/", "/process/process-images"])
async def test_a_request_that_is_retried_with_its_key_after_a_kill_is_done_once(settings: Settings, path: str) -> None:
    random = Random(SEED)  # noqa: S311 - can be repeated
    colours = all_colours()
    outcomes = []
    async with AsyncExitStack() as stack:
        server = await _take_over(settings, random, stack, may_die=False)
        for steps in count(0, STRIDE):
            picture = photo(next(colours))
            request: dict[str, Any] = (
                {"data": {"name": str(steps)}, "files": upload(picture)}
                if path == "/blacklist/"
                else {"json": {"images": [inline(picture)]}}
            )
            key = {"Idempotency-Key": f"key-{steps}"}
            before = await _done(server.client, path)
            try:
                await server.client.post(path, headers={**key, HEADER: str(steps)}, **request)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                is_killed = True
            else:
                is_killed = False
            server.kill()
            server = await _take_over(settings, random, stack, may_die=False)
            answer = await server.client.post(path, headers=key, **request)
            done = await _done(server.client, path) - before
            if answer.is_success:
                assert done == 1
            else:
                assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_outcome_unknown")
                assert done == 1
            outcomes.append(answer.status_code)
            check_disk(settings)
            if not is_killed:
                break
    assert outcomes[-1] in {200, 201}
    assert len(outcomes) > 1


async def _done(client: httpx.AsyncClient, path: str) -> int:
    """How many entries, or results, there are."""
    if path == "/blacklist/":
        return len((await client.get(path)).json())
    total: int = (await client.get("/processed-images/")).json()["total_items"]
    return total


async def _prepare(caller: Caller, client: httpx.AsyncClient, action: Action) -> None:
    """Something to delete, to review and to fill."""
    if not caller.people.known:
        assert await caller.attempt(Caller.add_person, client)
    if not any(person.photos for person in caller.people.known.values()):
        assert await caller.attempt(Caller.add_photos, client)
    if not caller.results.known:
        assert await caller.attempt(Caller.screen, client)
    while action in {Caller.clear, Caller.restore} and not caller.faces(is_cleared=action is Caller.restore):
        assert await caller.attempt(Caller.clear if caller.faces(is_cleared=False) else Caller.screen, client)
    if action in {Caller.fill_list, Caller.delete_list}:
        wanted = 0 if action is Caller.fill_list else 1
        while [found.state for found in caller.lists.known.values()] != [wanted]:
            steps = {(): Caller.create_list, (0,): Caller.fill_list, (1,): Caller.delete_list}
            there = tuple(found.state for found in caller.lists.known.values())
            assert await caller.attempt(steps[there], client)
    caller.touched.clear()


async def _take_over(
    settings: Settings, random: Random, stack: AsyncExitStack, *, may_die: bool = True
) -> ServerProcess:
    """A server that is ready. Now and then others die before it while they start, if they may."""
    while True:
        steps = random.randrange(STEPS_TO_START) if may_die and random.random() < 0.4 else None
        server = ServerProcess(settings, partial(Mortal, steps=steps))
        stack.push_async_callback(server.aclose)
        try:
            await server.started()
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            assert steps is not None
        else:
            return server
