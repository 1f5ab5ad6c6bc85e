"""What holds of the database and the folders whenever nobody is writing."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from facescreen.config import Settings
from facescreen.db.connection import Database
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
        copies = rows("SELECT copy FROM screenings")
    references = _files(settings.blacklist_db_path)
    assert sorted(photos) == sorted((name, hashlib.sha256(data).hexdigest()) for name, data in references.items())
    assert sorted(copies) == sorted((name,) for name in _files(settings.processed_images_output_dir))
    return {f"blacklist_db/{name}": data for name, data in references.items()}


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
