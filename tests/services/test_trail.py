"""The audit trail: whatever is done to it past the service is found.

``TRAIL_EXAMPLES=200 pytest tests/services/test_trail.py`` tampers with so many chains in each way; Hypothesis prints
what was missed.
"""

import asyncio
import json
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from facescreen import acting
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.domain.trail import Action, Details, Head, Verification
from facescreen.errors import NotFoundError
from facescreen.services import trail as services_trail
from facescreen.services.trail import TrailService, count_cut, cut, record, verify_lines
from tests.at_rest import check_disk, events

EXAMPLES = int(os.environ.get("TRAIL_EXAMPLES", "6"))
AT_ONCE, EACH = 3, 15

LONG = 1100
"""More than is read at a time."""

IDS = st.lists(st.integers(1, 10**6), max_size=3)
ACTIONS = st.sampled_from([action for action in Action if action is not Action.AUDIT_CUT])
DETAILS = st.fixed_dictionaries(
    {"outcome": st.sampled_from(["done", "entry_not_found"])},
    optional={
        "entry_ids": IDS,
        "result_ids": IDS,
        "list_version": st.integers(0, 10**6),
        "subject": st.text("abc-7", max_size=9),
    },
)
CHAINS = st.lists(st.tuples(ACTIONS, DETAILS), min_size=3, max_size=8)

Tampering = Callable[[sqlite3.Connection, st.DataObject, int], int]
"""Does something to a trail of so many events; the first that does not fit then."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a new database."""
    path = tmp_path_factory.mktemp("empty") / "facescreen.db"

    async def migrate() -> None:
        async with opened(path) as database:
            await database.migrate()

    asyncio.run(migrate())
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{path}")
    try:
        yield database
    finally:
        await database.aclose()


@contextmanager
def copied(empty: Path, chain: Sequence[tuple[Action, Details]]) -> Iterator[Path]:
    """The file of a database with these events."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "facescreen.db")
        shutil.copy(empty, path)
        asyncio.run(append(path, chain))
        yield path


async def append(path: Path, chain: Sequence[tuple[Action, Details]]) -> None:
    async with opened(path) as database, database.write() as connection:
        for action, details in chain:
            await record(connection, action, **details)


def verify(path: Path, expected: Head | None = None) -> Verification:
    async def verified() -> Verification:
        async with opened(path) as database:
            return await TrailService(database).verify(expected)

    return asyncio.run(verified())


def exported(path: Path) -> list[str]:
    async def lines() -> list[str]:
        async with opened(path) as database:
            return [line async for piece in await TrailService(database).export() for line in piece.splitlines()]

    return asyncio.run(lines())


@contextmanager
def past_triggers(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody who can write the file and knows how."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection


def rows(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    return {id_: (event, hash_) for id_, event, hash_ in connection.execute("SELECT * FROM audit_events")}


def put(connection: sqlite3.Connection, id_: int, event: str, hash_: str | None = None) -> None:
    """Another event in this place, with its own hash if none is given."""
    own = hash_ or sha256(event.encode()).hexdigest()
    connection.execute("INSERT OR REPLACE INTO audit_events VALUES (?, ?, ?)", [id_, event, own])


def canonical(members: dict[str, object]) -> str:
    return json.dumps(members, separators=(",", ":"))


def edit(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    """A member of an event, with its hash or without."""
    id_ = data.draw(st.integers(1, count))
    event, hash_ = rows(connection)[id_]
    members = json.loads(event)
    name = data.draw(st.sampled_from(sorted(members)))
    values = st.sampled_from([None, 0, -1, "x", "1970-01-01T00:00:00.000000+00:00", [7], 10**30])
    members[name] = data.draw(values.filter(lambda value: value != members[name]))
    is_hashed = data.draw(st.booleans())
    put(connection, id_, canonical(members), None if is_hashed else hash_)
    return min(id_ + 1, count) if is_hashed and name not in {"id", "previous"} else id_


def overwrite(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    """A column with whatever SQLite takes."""
    id_, column = data.draw(st.integers(1, count)), data.draw(st.sampled_from(["event", "hash"]))
    value = data.draw(st.sampled_from([0, 1.5, "", "null", "[]", b"\xff\xfe\x00", "{" * 5000]))
    connection.execute(f"UPDATE audit_events SET {column} = ? WHERE id = ?", [value, id_])  # noqa: S608 - of two
    return id_


def remove(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    id_ = data.draw(st.integers(1, count))
    connection.execute("DELETE FROM audit_events WHERE id = ?", [id_])
    return id_


def swap(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    """Two events, with their hashes or without."""
    first, second = sorted(data.draw(st.lists(st.integers(1, count), min_size=2, max_size=2, unique=True)))
    stored = rows(connection)
    is_hashed = data.draw(st.booleans())
    for id_, other in ((first, second), (second, first)):
        put(connection, id_, stored[other][0], stored[other if is_hashed else id_][1])
    return first


def move(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    """An event to another id."""
    id_, to = data.draw(st.integers(1, count)), data.draw(st.sampled_from([0, -5, count + 1, count + 7]))
    connection.execute("UPDATE audit_events SET id = ? WHERE id = ?", [to, id_])
    return id_ if to > 0 else 1


def insert(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    """A copy of an event before the first or after the last."""
    event, hash_ = rows(connection)[data.draw(st.integers(1, count))]
    to = data.draw(st.sampled_from([0, -1, count + 1, count + 2]))
    put(connection, to, event, hash_)
    return count + 1 if to > 0 else 1


def forge_next(connection: sqlite3.Connection, _data: st.DataObject, count: int) -> int:
    """One more, with everything as it should be but where the chain ends."""
    event, hash_ = rows(connection)[count]
    put(connection, count + 1, canonical({**json.loads(event), "id": count + 1, "previous": hash_}))
    return count + 1


def truncate(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    kept = data.draw(st.integers(0, count - 1))
    connection.execute("DELETE FROM audit_events WHERE id > ?", [kept])
    return kept + 1


def cut_by_hand(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    """The oldest, as if the service had cut them: with where the chain begins, or without."""
    first = data.draw(st.integers(2, count))
    is_adjusted = data.draw(st.booleans())
    if is_adjusted:
        before = rows(connection)[first - 1][1]
        connection.execute("UPDATE audit_chain SET first_id = ?, before_first = ?", [first, before])
    connection.execute("DELETE FROM audit_events WHERE id < ?", [first])
    return first if is_adjusted else 1


def misplace_begin(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    value = data.draw(st.sampled_from([2, count + 1, count + 9]))
    connection.execute("UPDATE audit_chain SET first_id = ?", [value])
    return 1


def misplace_end(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    end = data.draw(st.integers(0, count + 5).filter(lambda value: value != count))
    connection.execute("UPDATE audit_chain SET last_id = ?", [end])
    return min(end, count) + 1


def overwrite_end(connection: sqlite3.Connection, data: st.DataObject, count: int) -> int:
    connection.execute("UPDATE audit_chain SET last_hash = ?", [data.draw(st.sampled_from(["", "x", 0, b"\xff"]))])
    return count


def overwrite_begin(connection: sqlite3.Connection, data: st.DataObject, _count: int) -> int:
    connection.execute("UPDATE audit_chain SET before_first = ?", [data.draw(st.sampled_from(["x", 0, b"\xff"]))])
    return 1


def forget_chain(connection: sqlite3.Connection, _data: st.DataObject, _count: int) -> int:
    connection.execute("DELETE FROM audit_chain")
    return 1


TAMPERINGS: tuple[Tampering, ...] = (
    edit,
    overwrite,
    remove,
    swap,
    move,
    insert,
    forge_next,
    truncate,
    cut_by_hand,
    misplace_begin,
    misplace_end,
    overwrite_begin,
    overwrite_end,
    forget_chain,
)


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda tampering: tampering.__name__)
@profile(max_examples=EXAMPLES, deadline=None)
@given(chain=CHAINS, data=st.data())
def test_whatever_is_done_to_the_trail_is_found_where_it_was_done(
    empty: Path, tampering: Tampering, chain: list[tuple[Action, Details]], data: st.DataObject
) -> None:
    with copied(empty, chain) as path:
        known = verify(path)
        assert (known.first_id, known.last.id, known.count, known.misfit) == (1, len(chain), len(chain), None)
        assert verify(path, known.last) == known
        with past_triggers(path) as connection:
            misfit = tampering(connection, data, len(chain))
        assert verify(path).misfit == misfit


@profile(max_examples=2 * EXAMPLES, deadline=None)
@given(CHAINS, st.data())
def test_a_new_trail_is_found_by_what_was_noted_elsewhere_and_by_nothing_else(
    empty: Path, chain: list[tuple[Action, Details]], data: st.DataObject
) -> None:
    with copied(empty, chain) as path:
        noted = verify(path).last
        kept = data.draw(st.integers(0, len(chain) - 1))
        is_truncated = data.draw(st.booleans())
        with past_triggers(path) as connection:
            stored = rows(connection)
            previous = stored[kept][1] if kept else ""
            connection.execute("DELETE FROM audit_events WHERE id > ?", [kept])
            for id_ in range(kept + 1, 1 if is_truncated else len(chain) + 1):
                forged = canonical({**json.loads(stored[id_][0]), "actor": "somebody else", "previous": previous})
                put(connection, id_, forged)
                previous = sha256(forged.encode()).hexdigest()
            last = kept if is_truncated else len(chain)
            connection.execute("UPDATE audit_chain SET last_id = ?, last_hash = ?", [last, previous])
        assert verify(path).misfit is None
        assert verify(path, noted).misfit == (kept + 1 if is_truncated else len(chain))


@profile(max_examples=2 * EXAMPLES, deadline=None)
@given(CHAINS, st.data())
def test_an_export_verifies_by_itself(empty: Path, chain: list[tuple[Action, Details]], data: st.DataObject) -> None:
    with copied(empty, chain) as path:
        lines = exported(path)
        assert verify_lines(f"{line}\n" for line in lines) == verify_lines(lines, verify_lines(lines).last)
        assert verify_lines(lines).misfit is None
        assert [json.loads(line)["id"] for line in lines] == list(range(1, len(chain) + 1))
        for line in lines:  # as docs/operations.md says
            text, _, end = line.rpartition(',"hash":"')
            assert sha256(f"{text}}}".encode()).hexdigest() == end.removesuffix('"}')
        first, second = sorted(data.draw(st.lists(st.integers(1, len(lines)), min_size=2, max_size=2, unique=True)))
        place = data.draw(st.integers(0, len(lines[first - 1]) - 1))
        changed = lines.copy()
        changed[first - 1] = lines[first - 1][:place] + "#" + lines[first - 1][place + 1 :]
        assert verify_lines(changed).misfit in ({0, 1} if first == 1 else {first})  # before it there is no id to go by
        changed = lines.copy()
        changed[first - 1], changed[second - 1] = lines[second - 1], lines[first - 1]
        assert verify_lines(changed).misfit is not None
        removed = lines[: second - 1] + lines[second:]
        assert verify_lines(removed, verify_lines(lines).last).misfit == second
        assert verify_lines(lines[first:]).misfit is None
        with pytest.raises(NotFoundError):
            verify_lines(lines[second - 1 :], Head(first - 1, ""))


async def test_the_database_itself_refuses_to_change_the_trail(settings: Settings) -> None:
    path = Database(settings.database_url).path
    await append(path, [(Action.DETECT, {}), (Action.SYNC, {})])
    with closing(sqlite3.connect(path)) as connection:
        for statement in (
            "UPDATE audit_events SET event = '{}'",
            "UPDATE audit_events SET id = 7 WHERE id = 1",
            "DELETE FROM audit_events WHERE id = 2",
            "REPLACE INTO audit_events VALUES (1, '{}', '')",
            "INSERT INTO audit_events VALUES (4, '{}', '')",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    check_disk(settings)


async def test_what_is_cut_off_is_recorded_and_the_rest_fits(settings: Settings) -> None:
    path = Database(settings.database_url).path
    await append(path, [(Action.DETECT, {"subject": str(number)}) for number in range(5)])
    between = datetime.now(UTC)
    await append(path, [(Action.SYNC, {})])
    async with opened(path) as database:
        trail = TrailService(database)
        noted = (await trail.verify()).last
        async with database.write() as connection:
            assert await count_cut(connection, between) == 5
            assert await cut(connection, between) == 5
            assert await cut(connection, between) == 0
        assert [(event["id"], event["action"], event["subject"]) for event in events(settings)] == [
            (6, "sync", None),
            (7, "audit.cut", "6"),
        ]
        found = await trail.verify(noted)
        assert (found.first_id, found.last.id, found.misfit) == (6, 7, None)
        async with database.write() as connection:
            assert await cut(connection, datetime.now(UTC) + timedelta(days=1)) == 1
        assert [event["subject"] for event in events(settings)] == ["6", "7"]
        assert (await trail.verify()).misfit is None
        assert (await trail.verify(noted)).misfit is None
        with pytest.raises(NotFoundError, match="event 5 is not kept"):
            await trail.verify(Head(5, ""))
    check_disk(settings)


async def test_what_is_recorded_is_there_with_the_change_and_not_without(settings: Settings) -> None:
    async with opened(Database(settings.database_url).path) as database:
        with suppress(ZeroDivisionError):
            async with database.write() as connection:
                await record(connection, Action.SYNC)
                raise ZeroDivisionError
        assert events(settings) == []
        token = acting.request_id.set("7f")
        async with database.write() as connection:
            await record(connection, Action.ENTRY_DELETE, collection_id=1, entry_ids=[9, 4, 9])
        acting.request_id.reset(token)
    (event,) = events(settings)
    assert datetime.now(UTC) - datetime.fromisoformat(event.pop("at")) < timedelta(minutes=1)
    assert event == {
        "id": 1,
        "actor": acting.SERVICE,
        "request_id": "7f",
        "action": "entry.delete",
        "outcome": "done",
        "collection_id": 1,
        "entry_ids": [4, 9],
        "result_ids": [],
        "list_version": 0,
        "subject": None,
        "previous": "",
    }


async def test_what_is_recorded_late_is_waited_for_in_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_trail, "_FAILURE_SECONDS", 0.01)
    async with opened(Database(settings.database_url).path) as database:
        trail = TrailService(database)
        async with database.write():
            await trail.note_failure(Action.DETECT)
        await trail.aclose()
        assert [event["action"] for event in events(settings)] == ["detect"]


async def test_a_part_of_the_trail_can_be_exported(settings: Settings) -> None:
    path = Database(settings.database_url).path
    async with opened(path) as database:
        trail = TrailService(database)

        async def ids(**which: object) -> list[int]:
            pieces = await trail.export(**which)  # type: ignore[arg-type]
            return [json.loads(line)["id"] async for piece in pieces for line in piece.splitlines()]

        await append(path, [(Action.DETECT, {})] * 3)
        between = datetime.now(UTC)
        await append(path, [(Action.SYNC, {})] * 2)
        after = datetime.now(UTC)
        assert await ids() == [1, 2, 3, 4, 5]
        assert await ids(since=between, until=after) == [4, 5]
        assert await ids(until=between) == [1, 2, 3]
        assert await ids(since=datetime.now(UTC) + timedelta(days=1)) == []
        assert await ids(after_id=1, limit=2) == [2, 3]
        assert await ids(after_id=5, until=after) == []
        async with database.write() as connection:
            await cut(connection, between)
        assert await ids(limit=1) == [4]
    assert [event["action"] for event in events(settings)][2:] == ["audit.export"] * 6 + ["audit.cut", "audit.export"]


def _append_one_by_one(path: Path, subject: str) -> None:
    async def work() -> None:
        async with opened(path) as database:
            for _ in range(EACH):
                async with database.write() as connection:
                    await record(connection, Action.SYNC, subject=subject)

    asyncio.run(work())


def test_processes_that_record_at_the_same_time_make_one_chain(settings: Settings) -> None:
    path = Database(settings.database_url).path
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_append_one_by_one, [path] * AT_ONCE, map(str, range(AT_ONCE))))
    found = verify(path)
    assert (found.count, found.misfit) == (AT_ONCE * EACH, None)
    subjects = [event["subject"] for event in events(settings)]
    assert all(subjects.count(str(number)) == EACH for number in range(AT_ONCE))


async def test_a_long_trail_is_followed_to_its_end(settings: Settings) -> None:
    path = Database(settings.database_url).path
    await append(path, [(Action.DETECT, {})] * LONG)
    async with opened(path) as database:
        found = await TrailService(database).verify()
        lines = [line async for piece in await TrailService(database).export() for line in piece.splitlines()]
    assert (found.count, found.misfit) == (LONG, None)
    assert verify_lines(lines) == found
