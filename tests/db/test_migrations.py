"""A list that was kept by an earlier version is the same list after the upgrade."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from alembic import command
from sqlalchemy.exc import OperationalError

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.errors import StartupError
from facescreen.recognition.catalog import shipped_false_alerts
from tests.api.test_blacklist import enroll, matches
from tests.api.test_process import process
from tests.api.test_sync import sync
from tests.at_rest import check_disk, is_readable
from tests.conftest import serving
from tests.painted import BLUE, GREEN, RED, YELLOW, Colour, inline, photo

PHOTOS: dict[int, tuple[int, str, Colour]] = {
    4: (3, "ada-1/a.png", RED),
    6: (7, "eve-2/e.png", GREEN),
    9: (3, "ada-1/b.png", BLUE),
}
"""Reference images by id: the entry, the file and the colour of the face."""
LAST = {"entries": 12, "reference_images": 20, "changes": 40, "screenings": 11, "screened_faces": 15, "matches": 18}
"""Ids that were given out. Those of the last rows were of what has been deleted since."""
NOW = datetime.now(UTC)


@pytest.fixture
async def old(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a service whose database revision 0001 made and kept."""
    folder = tmp_path / "old"
    made = settings.model_copy(update={"database_url": f"sqlite+aiosqlite:///{folder / 'facescreen.db'}"})
    for _, file, colour in PHOTOS.values():
        path = made.blacklist_db_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(colour))
    made.processed_images_output_dir.mkdir()
    (made.processed_images_output_dir / "copy.jpg").write_bytes(b"a copy")
    await upgrade_to("0001", made)
    with opened(made) as connection:
        _fill(connection)
    return made


@contextmanager
def opened(settings: Settings) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(Database(settings.database_url).path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.row_factory = sqlite3.Row
        yield connection


def rows(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with opened(settings) as connection:
        return [tuple(row) for row in connection.execute(statement)]


async def upgrade_to(revision: str, settings: Settings) -> None:
    database = Database(settings.database_url)
    await asyncio.to_thread(command.upgrade, database._alembic(), revision)
    await database.aclose()


async def upgrade(settings: Settings) -> None:
    database = Database(settings.database_url)
    try:
        await database.migrate()
        await database.require_head()
    finally:
        await database.aclose()


def _fill(connection: sqlite3.Connection) -> None:
    def insert(table: str, **values: object) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))  # noqa: S608

    now = NOW.replace(tzinfo=None).isoformat(" ")
    eyes = json.dumps({"left_eye": [76.8, 51.2], "right_eye": [51.2, 51.2]})
    face = {"x": 32, "y": 32, "w": 64, "h": 64, "landmarks": eyes, "confidence": 0.99}
    for id_, name, folder in ((3, "Ada", "ada-1"), (7, "Eve", "eve-2"), (LAST["entries"], "Gone", "gone-3")):
        insert("entries", id=id_, name=name, reason="theft", folder=folder, created_at=now, updated_at=now)
    gone = (LAST["entries"], "gone-3/g.png", YELLOW)
    for id_, (entry_id, path, colour) in {**PHOTOS, LAST["reference_images"]: gone}.items():
        insert(
            "reference_images",
            id=id_,
            entry_id=entry_id,
            file=path.partition("/")[2],
            sha256=hashlib.sha256(photo(colour)).hexdigest(),
            width=128,
            height=128,
            detector="centerface",
            created_at=now,
            **face,
        )
        vector = (np.array(colour) / 255 - 0.5).astype("<f4").tobytes()
        insert("embeddings", reference_image_id=id_, space="SFace/painted", vector=vector)
        insert("changes", version=id_ + 20, kind="embedded", entry_id=entry_id, reference_image_id=id_, at=now)
    for id_ in (5, LAST["screenings"]):
        insert(
            "screenings",
            id=id_,
            image_identifier="door.jpg",
            detector="centerface",
            model_name="SFace",
            metric="cosine",
            threshold=0.05,
            all_references=False,
            list_version=30,
            copy="copy.jpg",
            created_at=now,
        )
    for id_, index, verdict in ((8, 0, "match"), (9, 1, "clear"), (LAST["screened_faces"], 2, "clear")):
        insert("screened_faces", id=id_, screening_id=5, face_index=index, verdict=verdict, **face)
    for id_ in (10, LAST["matches"]):
        insert(
            "matches",
            id=id_,
            face_id=8,
            entry_id=3,
            reference_image_id=4,
            name="Ada",
            reason="theft",
            identity="ada-1/a.png",
            target_x=32,
            target_y=32,
            target_w=64,
            target_h=64,
            distance=0.01,
        )
    for table, last in LAST.items():
        connection.execute(f"DELETE FROM {table} WHERE {'version' if table == 'changes' else 'id'} = {last}")  # noqa: S608


def _copy(connection: sqlite3.Connection, table: str, id_: int, **changed: object) -> None:
    """Add a row like another one but for these columns."""
    (row,) = connection.execute(f"SELECT * FROM {table} WHERE id = ?", [id_])  # noqa: S608
    values = {**dict(row), **changed}
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))  # noqa: S608


async def test_everything_is_in_the_default_collection(old: Settings) -> None:
    await upgrade(old)
    assert rows(old, "PRAGMA integrity_check") == [("ok",)]
    assert rows(old, "PRAGMA foreign_key_check") == []
    assert rows(old, "SELECT id, name FROM collections") == [(1, "default")]
    assert rows(old, "SELECT id, collection_id, name, reason, folder, status FROM entries ORDER BY id") == [
        (3, 1, "Ada", "theft", "ada-1", "active"),
        (7, 1, "Eve", "theft", "eve-2", "active"),
    ]
    images = "SELECT id, collection_id, entry_id, photo, watched, status, sha256 FROM reference_images ORDER BY id"
    assert rows(old, images) == [
        (id_, 1, entry_id, path, path, "active", hashlib.sha256(photo(colour)).hexdigest())
        for id_, (entry_id, path, colour) in PHOTOS.items()
    ]
    embeddings = "SELECT reference_image_id, collection_id, space FROM embeddings ORDER BY 1"
    assert rows(old, embeddings) == [(id_, 1, "SFace/painted") for id_ in PHOTOS]
    assert rows(old, "SELECT collection_id, version FROM changes ORDER BY version") == [(1, id_ + 20) for id_ in PHOTOS]
    assert rows(old, "SELECT id, collection FROM screenings") == [(5, "default")]
    assert rows(old, "SELECT id, verdict FROM screened_faces ORDER BY id") == [(8, "match"), (9, "clear")]
    assert rows(old, "SELECT id, entry_id, reference_image_id, identity FROM matches") == [(10, 3, 4, "ada-1/a.png")]
    check_disk(old)


async def test_everybody_gets_outward_ids_of_their_own(old: Settings) -> None:
    await upgrade(old)
    people = [user_id for (user_id,) in rows(old, "SELECT user_id FROM entries")]
    assert len(set(people)) == 2
    assert all(user_id.startswith("fs-") for user_id in people)
    for column in ("face_id", "image_id"):
        ids = [UUID(id_) for (id_,) in rows(old, f"SELECT {column} FROM reference_images")]  # noqa: S608
        assert len(set(ids)) == len(PHOTOS)


async def test_the_upgraded_schema_is_that_of_a_new_database(old: Settings, settings: Settings) -> None:
    def shape(of: Settings) -> dict[str, Any]:
        tables = [name for (name,) in rows(of, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {
            table: (
                "AUTOINCREMENT" in rows(of, f"SELECT sql FROM sqlite_master WHERE name = '{table}'")[0][0],  # noqa: S608
                sorted(rows(of, f"SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('{table}')")),  # noqa: S608
                sorted(
                    (unique, [name for (name,) in rows(of, f"SELECT name FROM pragma_index_info('{index}')")])  # noqa: S608
                    for index, unique in rows(of, f"SELECT name, \"unique\" FROM pragma_index_list('{table}')")  # noqa: S608
                ),
                sorted(
                    rows(of, f'SELECT "table", "from", "to", on_delete FROM pragma_foreign_key_list(\'{table}\')')  # noqa: S608
                ),
            )
            for table in tables
        }

    await upgrade(old)
    assert shape(old) == shape(settings)
    assert {name for (name,) in rows(old, "SELECT name FROM sqlite_sequence")} <= set(shape(settings))


async def test_results_that_show_a_hit_are_hits(old: Settings) -> None:
    await upgrade_to("0004", old)
    verdicts = {21: "clear", 22: "not_screenable", 23: "match", 24: "possible", 25: "withdrawn", 26: "clear"}
    cleared, refused = 26, 27
    with opened(old) as connection:
        for id_ in (*verdicts, refused):
            _copy(connection, "screenings", 5, id=id_, copy=None)
        for id_, verdict in verdicts.items():
            _copy(connection, "screened_faces", 9, id=id_, screening_id=id_, verdict=verdict)
        _copy(connection, "matches", 10, id=cleared, face_id=cleared)
        before = [tuple(row) for row in connection.execute("SELECT * FROM screenings ORDER BY id")]
    await upgrade(old)
    after = rows(old, "SELECT * FROM screenings ORDER BY id")
    assert [row[: len(before[0])] for row in after] == before
    assert [row[0] for row in rows(old, "SELECT id FROM screenings WHERE is_hit")] == [5, 23, 24, 25, cleared]
    assert rows(old, "SELECT DISTINCT is_hit FROM screenings ORDER BY 1") == [(0,), (1,)]
    check_disk(old)


async def test_what_was_decided_by_scores_stays_readable(old: Settings) -> None:
    await upgrade_to("0005", old)
    shipped = shipped_false_alerts("SFace")
    assert shipped is not None
    plain = [curve.to_document() for curve in shipped.curves]
    scores = {**plain[0], "list_sizes": [2], "crowding": {"typical": 0.16, "alike": 0.05}}
    applied = {
        "id": None,
        "source": "LFW",
        "faces": 1572,
        "list_size": 307,
        "false_alert_rate": 0.01,
        "review_false_alert_rate": 0.1,
    }
    ada, eve, face, result = 3, 7, 21, 21
    with opened(old) as connection:
        document = json.dumps({**applied, "crowding": scores["crowding"], "largest_distance": 0.081})
        _copy(connection, "screenings", 5, id=result, copy=None, calibration=document, threshold=0.08)
        _copy(connection, "screenings", 5, id=22, copy=None, calibration="null")
        _copy(connection, "screened_faces", 8, id=face, screening_id=result)
        _copy(connection, "matches", 10, id=21, face_id=face, entry_id=ada, distance=0.05, score=0.07)
        crowded = {"entry_id": eve, "name": "Eve", "grade": "possible", "distance": 0.04, "score": 0.085}
        _copy(connection, "matches", 10, id=22, face_id=face, **crowded)
        connection.execute(
            "INSERT INTO calibrations"
            " VALUES (1, 1, 'SFace/painted', 'centerface', 'door', 100, 10, ?, '2026-11-01 10:00')",
            [json.dumps([*({**curve, "crowding": None} for curve in plain), scores])],
        )
    await upgrade(old)
    ((curves,),) = rows(old, "SELECT curves FROM calibrations")
    assert json.loads(curves) == plain
    assert rows(old, "SELECT DISTINCT calibration FROM screenings WHERE id != 21 ORDER BY 1") == [(None,), ("null",)]
    async with serving(old) as client:
        stored = (await client.get(f"/processed-images/{result}")).json()
        assert stored["calibration"] == applied
        (found,) = stored["faces"]
        assert (found["verdict"], [match["name"] for match in found["blacklist_matches"]]) == ("match", ["Eve", "Ada"])
        assert found["explanation"].startswith("The distance to Ada is 0.0500 (cosine, SFace): within the match")
        assert (await client.get("/processed-images/22")).json()["calibration"] is None
        in_force = (await client.get("/collections/default/calibration")).json()
        assert (in_force["id"], in_force["source"]) == (1, "door")
    check_disk(old)


async def test_no_id_is_given_twice(old: Settings) -> None:
    await upgrade(old)
    assert dict(rows(old, "SELECT name, seq FROM sqlite_sequence")) == {**LAST, "collections": 1}
    async with serving(old) as client:
        # As many changes as there are in the feed now, not as were ever committed.
        assert (await client.get("/")).json()["list_version"] == 29
        bob = await enroll(client, "Bob", photo(YELLOW))
        assert bob["id"] == LAST["entries"] + 1
        assert bob["images"][0]["id"] == LAST["reference_images"] + 1
        (result,) = await process(client, inline(photo(YELLOW)))
        assert result["id"] == LAST["screenings"] + 1
        assert result["list_version"] == LAST["changes"] + 1
    for table in ("screened_faces", "matches"):
        assert rows(old, f"SELECT max(id) FROM {table}") == [(LAST[table] + 1,)]  # noqa: S608


async def test_the_upgraded_service_finds_shows_and_forgets_who_was_on_the_list(old: Settings) -> None:
    await upgrade(old)
    async with serving(old) as client:
        report = await sync(client)
        assert (report["added"], report["withdrawn"], report["skipped"], report["unchanged"]) == ([], [], [], 3)
        for colour, name, identity in (
            (RED, "Ada", "blacklist_db/ada-1/a.png"),
            (BLUE, "Ada", "blacklist_db/ada-1/b.png"),
            (GREEN, "Eve", "blacklist_db/eve-2/e.png"),
        ):
            (match,) = await matches(client, photo(colour))
            assert (match["name"], match["identity"]) == (name, identity)
        (result,) = await process(client, inline(photo(RED)), model_name="Dlib", threshold=0.05)
        assert [match["name"] for match in result["faces"][0]["blacklist_matches"]] == ["Ada"]
        stored = (await client.get("/processed-images/5")).json()
        assert stored["collection"] == "default"
        assert [face["verdict"] for face in stored["faces"]] == ["match", "clear"]
        assert stored["faces"][0]["blacklist_matches"][0]["identity"] == "blacklist_db/ada-1/a.png"
        assert (await client.get("/blacklist/3/images/4")).content == photo(RED)

        assert is_readable(old, RED)
        assert is_readable(old, BLUE)
        assert (await client.delete("/blacklist/3/")).status_code == 200
        assert not is_readable(old, RED)
        assert not is_readable(old, BLUE)
        assert not (old.blacklist_db_path / "ada-1").exists()
        assert (await client.get("/processed-images/5")).json()["faces"][0]["verdict"] == "withdrawn"
        assert await matches(client, photo(RED)) == []
        (match,) = await matches(client, photo(GREEN))
        assert match["name"] == "Eve"


async def test_an_upgrade_that_fails_half_way_changes_nothing_and_can_be_done_again(old: Settings) -> None:
    def content() -> list[str]:
        with opened(old) as connection:
            return list(connection.iterdump())

    with opened(old) as connection:
        connection.execute("CREATE TABLE _alembic_tmp_embeddings (in_the_way)")
    before = content()
    with pytest.raises(OperationalError, match="_alembic_tmp_embeddings"):
        await upgrade(old)
    assert content() == before
    database = Database(old.database_url)
    with pytest.raises(StartupError, match="run: facescreen migrate"):
        await database.require_head()
    await database.aclose()
    with opened(old) as connection:
        connection.execute("DROP TABLE _alembic_tmp_embeddings")
    await upgrade(old)
    assert check_disk(old)
