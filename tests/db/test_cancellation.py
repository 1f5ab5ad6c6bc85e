"""Writers that are cancelled at any moment leave no lock behind, and nothing half done."""

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from facescreen.config import Settings
from facescreen.db import connection
from facescreen.db.connection import Database
from facescreen.lifeline import Lifeline

SEED = os.environ.get("MOMENTS_SEED") or str(secrets.randbits(32))
ROUNDS = 40
HANGING = 60.0


@pytest.fixture
async def database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    # Whoever has to wait for a lock at all finds the database busy.
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setitem(connection._PRAGMAS, "busy_timeout", ("0", 0))
    made = Database(settings.database_url)
    async with made.write() as transaction:
        await transaction.execute(text("CREATE TABLE pairs (number INTEGER, half INTEGER)"))
    yield made
    await made.aclose()


async def write_pair(database: Database, number: int) -> None:
    async with database.write() as transaction:
        for half in (0, 1):
            await transaction.execute(
                text("INSERT INTO pairs VALUES (:number, :half)"), {"number": number, "half": half}
            )


async def counts(database: Database) -> list[int]:
    async with database.read() as transaction:
        return list((await transaction.execute(text("SELECT count(*) FROM pairs GROUP BY number"))).scalars())


async def test_a_cancelled_writer_leaves_no_lock(database: Database, settings: Settings) -> None:
    print(f"MOMENTS_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    moments = random.Random(SEED)  # noqa: S311 - can be repeated
    other = Database(settings.database_url)
    finished = 0
    for number in range(ROUNDS):
        writer = asyncio.create_task(write_pair(database, number))
        for _ in range(moments.randrange(25)):
            await asyncio.sleep(0.0001)
        writer.cancel()
        finished += not isinstance((await asyncio.gather(writer, return_exceptions=True))[0], BaseException)
        async with asyncio.timeout(HANGING):
            # At once, by this process and by another.
            await write_pair(moments.choice([database, other]), ROUNDS + number)
    assert set(await counts(database)) == {2}
    assert len(await counts(database)) >= ROUNDS + finished
    await other.aclose()


async def test_the_end_of_a_request_waits_for_its_transaction(database: Database) -> None:
    lifeline = Lifeline()
    with lifeline.holding():
        async with database.write() as transaction:
            await transaction.execute(text("INSERT INTO pairs VALUES (1, 0)"))
            lifeline.end(RuntimeError())
            await transaction.execute(text("INSERT INTO pairs VALUES (1, 1)"))
    assert await counts(database) == [2]


async def test_a_request_that_ends_while_it_waits_for_its_turn_writes_nothing(database: Database) -> None:
    async def write_on_a_lifeline(lifelines: list[Lifeline]) -> None:
        lifelines.append(Lifeline())
        with lifelines[0].holding():
            await write_pair(database, 1)

    made: list[Lifeline] = []
    async with database.write():
        waiting = asyncio.create_task(write_on_a_lifeline(made))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        made[0].end(RuntimeError("late"))
        with pytest.raises(RuntimeError, match="late"):
            await waiting
    await write_pair(database, 2)
    assert await counts(database) == [2]


async def test_a_read_is_finished_and_ends_its_request_then(database: Database) -> None:
    async def read() -> None:
        async with database.read() as transaction:
            rows = await transaction.execute(text("SELECT count(*) FROM pairs"))
            lifeline.end(RuntimeError("late"))
            steps.append(rows.scalar_one())
            await asyncio.sleep(0)
            steps.append("read")
        steps.append("went on")

    steps: list[object] = []
    lifeline = Lifeline()
    with pytest.raises(RuntimeError, match="late"), lifeline.holding():
        await read()
    assert steps == [0, "read"]
