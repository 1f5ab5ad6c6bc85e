"""What holds of all sides whenever nobody is writing."""

import hashlib
import io
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any

from PIL import Image

from facescreen.config import Settings
from facescreen.db.connection import Database
from tests.api.test_blacklist import files
from tests.rekognition.sides import COLLECTION, PREFIX, Aws


def rows(settings: Settings, statement: str) -> list[Any]:
    """What the database answers."""
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        return database.execute(statement).fetchall()


def check_sides(
    settings: Settings, aws: Aws, *, foreign: Collection[str] = (), dropped: Collection[str] = ()
) -> dict[str, int]:
    """Database, folders, bucket and collections hold the same and nothing else; how many photos everybody has.

    Args:
        foreign: keys in the bucket, names of processed pictures, and ids of faces and users, that never were ours.
        dropped: files of the blacklist folder that are not enrolled.
    """
    assert rows(settings, "PRAGMA integrity_check") == [("ok",)]
    assert rows(settings, "PRAGMA foreign_key_check") == []
    assert rows(settings, "SELECT * FROM file_intents") == []
    statuses = rows(settings, "SELECT status FROM entries UNION SELECT status FROM reference_images")
    assert set(statuses) <= {("active",)}

    names = {name for (name,) in rows(settings, "SELECT name FROM collections")}
    theirs = {name: COLLECTION if name == "default" else f"{COLLECTION}.{name}" for name in names}
    assert set(aws.rekognition.collections) - set(foreign) == set(theirs.values())
    for name, collection in theirs.items():
        joined = f"FROM entries e JOIN collections c ON e.collection_id = c.id AND c.name = '{name}'"
        people = dict(rows(settings, f"SELECT e.id, e.user_id {joined}"))
        images = rows(
            settings, f"SELECT i.face_id, i.id, e.user_id {joined} JOIN reference_images i ON i.entry_id = e.id"
        )
        faces = {face_id: known for face_id, known in aws.faces(collection).items() if face_id not in foreign}
        assert faces == {face_id: (f"{user_id}.{id_}", user_id) for face_id, id_, user_id in images}
        users = aws.users(collection) - set(foreign)
        assert {user_id for _, _, user_id in images} <= users <= set(people.values())

    photos: Mapping[str, str] = dict(rows(settings, "SELECT photo, sha256 FROM reference_images WHERE watched IS NULL"))
    named = {photo for (photo,) in rows(settings, "SELECT photo FROM reference_images")}
    objects = {key: data for key, data in aws.objects().items() if key not in foreign}
    assert set(objects) == {PREFIX + name for name in named}
    for key, data in objects.items():
        Image.open(io.BytesIO(data)).load()
        name = key.removeprefix(PREFIX)
        assert photos.get(name, hashlib.sha256(data).hexdigest()) == hashlib.sha256(data).hexdigest()

    folder = settings.blacklist_db_path
    local = {path.relative_to(folder).as_posix(): path for path in files(folder)}
    watched = {name for (name,) in rows(settings, "SELECT watched FROM reference_images WHERE watched IS NOT NULL")}
    copies = set(local) - watched - set(dropped)
    assert watched <= set(local)
    assert copies == (named - watched if settings.aws_keep_local_copy else set())
    assert all(local[name].read_bytes() == objects[PREFIX + name] for name in copies)
    pictures = {
        path.relative_to(settings.processed_images_output_dir).as_posix()
        for path in files(settings.processed_images_output_dir)
    }
    assert pictures - set(foreign) == {
        name for (name,) in rows(settings, "SELECT copy FROM screenings WHERE copy IS NOT NULL")
    }
    counts = rows(
        settings,
        "SELECT e.name, count(i.id) FROM entries e LEFT JOIN reference_images i ON i.entry_id = e.id GROUP BY e.id",
    )
    return dict(counts)
