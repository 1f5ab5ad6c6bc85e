"""Kill -9 at any moment: what was acknowledged is there, what was deleted stays deleted, nothing is half there.

Callers enroll, screen and delete, and write down what they attempt and what they are told. Their server is killed,
another takes over, and what it answers, its files and its database are held against the callers' ledgers.

``CRASH_ROUNDS=200 pytest tests/crash`` kills so often at random, and at every single step instead of every third.
``CRASH_SEED=<number>`` repeats what a failure's output names, as far as time lets it.
"""

import asyncio
import os
import secrets
from contextlib import AsyncExitStack
from functools import partial
from random import Random

import httpx
import pytest

from facescreen.config import Settings
from tests.at_rest import check_disk, is_readable
from tests.crash.callers import Action, Caller, all_colours, check_answers
from tests.crash.mortal import HEADER, Mortal
from tests.painted_server import ServerProcess

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
SEED = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))
CALLERS = 6
LONGEST_ROUND = 0.7
"""Seconds; enough for a few dozen requests."""
STEPS_TO_START = 16
"""About, where something is to be recovered."""
STRIDE = 1 if ROUNDS >= 100 else 3


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another process"])
async def test_kill_at_any_moment(settings: Settings, *, beside: bool) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    random = Random(f"{SEED}/{beside}")  # noqa: S311 - can be repeated
    colours = all_colours()
    callers = [Caller(f"c{index}-", f"{SEED}/{beside}/{index}", colours) for index in range(CALLERS)]
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
    Caller.screen,
    Caller.delete_result,
)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
async def test_kill_at_every_step(settings: Settings, action: Action) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    random = Random(f"{SEED}/{action.__name__}")  # noqa: S311 - can be repeated
    caller = Caller("c", str(SEED), all_colours())
    async with AsyncExitStack() as stack:
        server = await _take_over(settings, random, stack)
        answered = False
        steps = random.randrange(STRIDE)
        while not answered:
            await _prepare(caller, server.client)
            server.client.headers[HEADER] = str(steps)
            answered = await caller.attempt(action, server.client)
            server.kill()
            server = await _take_over(settings, random, stack)
            await check_answers(server.client, [caller], check_disk(settings))
            assert not [colour for colour in caller.gone if is_readable(settings, colour)]
            steps += STRIDE


async def _prepare(caller: Caller, client: httpx.AsyncClient) -> None:
    """Something to delete."""
    if not caller.people.known:
        assert await caller.attempt(Caller.add_person, client)
    if not any(person.photos for person in caller.people.known.values()):
        assert await caller.attempt(Caller.add_photos, client)
    if not caller.results.known:
        assert await caller.attempt(Caller.screen, client)
    caller.touched.clear()


async def _take_over(settings: Settings, random: Random, stack: AsyncExitStack) -> ServerProcess:
    """A server that is ready. Now and then others die before it while they start."""
    while True:
        steps = random.randrange(STEPS_TO_START) if random.random() < 0.4 else None
        server = ServerProcess(settings, partial(Mortal, steps=steps))
        stack.push_async_callback(server.aclose)
        try:
            await server.started()
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            assert steps is not None
        else:
            return server
