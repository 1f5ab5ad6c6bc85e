"""What holds of the database and the folders whenever nobody is writing."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.domain.trail import DONE, Action, Chain, Head, Link
from tests.painted import Colour


def check_disk(settings: Settings) -> dict[str, bytes]:
    """Every file is named by one row, every row's file is there and unharmed; the reference photos by identity."""
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:

        def rows(statement: str) -> list[Any]:
            return database.execute(statement).fetchall()

        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("PRAGMA foreign_key_check") == []
        assert rows("SELECT * FROM file_intents") == []
        assert rows("SELECT reference_image_id FROM embeddings ORDER BY 1") == rows(
            "SELECT id FROM reference_images ORDER BY 1"
        )
        assert rows("SELECT version FROM changes WHERE collection_id NOT IN (SELECT id FROM collections)") == []
        assert rows("SELECT id FROM clearances WHERE (vector IS NULL) != (expired_at IS NOT NULL)") == []
        carried = "SELECT m.id FROM matches m JOIN clearances c ON c.id = m.clearance_id WHERE c.entry_id != m.entry_id"
        assert rows(carried) == []
        photos = rows("SELECT DISTINCT photo, sha256 FROM reference_images")
        _check_trail(database)
        copies = rows("SELECT copy FROM screenings WHERE copy IS NOT NULL")
    references = _files(settings.blacklist_db_path)
    assert sorted(photos) == sorted((name, hashlib.sha256(data).hexdigest()) for name, data in references.items())
    assert sorted(copies) == sorted((name,) for name in _files(settings.processed_images_output_dir))
    return {f"blacklist_db/{name}": data for name, data in references.items()}


def events(settings: Settings) -> list[dict[str, Any]]:
    """The audit trail."""
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        return [json.loads(text) for (text,) in database.execute("SELECT event FROM audit_events ORDER BY id")]


def _check_trail(database: sqlite3.Connection) -> None:
    """The chain is whole, and no entry came or went without an event, as far back as the trail goes."""
    ((first, before, last, last_hash),) = database.execute(
        "SELECT first_id, before_first, last_id, last_hash FROM audit_chain"
    )
    chain = Chain(Head(first - 1, before))
    links = [Link(*row) for row in database.execute("SELECT id, event, hash FROM audit_events ORDER BY id")]
    assert all(map(chain.follow, links))
    assert chain.verification(end=Head(last, last_hash)).misfit is None
    done = [event for link in links if (event := json.loads(link.text))["outcome"] == DONE]

    def entries_of(*actions: Action) -> dict[int, int]:
        """Their collections, by the entries of these events."""
        return {
            entry: event["collection_id"]
            for event in done
            if event["action"] in actions
            for entry in event["entry_ids"]
        }

    if first > 1:
        return
    live = {entry for (entry,) in database.execute("SELECT id FROM entries")}
    created = entries_of(Action.ENTRY_CREATE, Action.IMAGE_MOVE)
    # Those before were there before the trail was.
    assert {entry for entry in live if entry >= min(created, default=entry + 1)} <= created.keys()
    emptied = {event["collection_id"] for event in done if event["action"] == Action.COLLECTION_DELETE}
    deleted = entries_of(Action.ENTRY_DELETE)
    assert {entry for entry, within in created.items() if within not in emptied} - live <= deleted.keys()
    assert not live & deleted.keys()


def is_readable(settings: Settings, colour: Colour) -> bool:
    """Whether the embedding of a painted photo is anywhere in the files of the database."""
    vector = (np.array(colour) / 255 - 0.5).astype("<f4").tobytes()
    return any(vector in file.read_bytes() for file in Database(settings.database_url).path.parent.iterdir())


def _files(folder: Path) -> dict[str, bytes]:
    """Whatever lies in the store, also what only it should see; folders without anything in them are nobody's."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
        else:
            assert path.name == ".incoming" or any(path.iterdir()), f"{path.name} was left behind"
    found.pop(".sync.lock", None)
    return found
