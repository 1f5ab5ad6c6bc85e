"""``facescreen audit``: of the trail as a user of the shell sees it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from facescreen.config import Settings
from facescreen.db.connection import Database
from tests.cli.test_cli import facescreen


def test_the_trail_is_verified_exported_and_found_tampered_with(settings: Settings, tmp_path: Path) -> None:
    for _ in range(3):
        assert facescreen(tmp_path, "keys", "create", "--scope", "read").returncode == 0
    verified = facescreen(tmp_path, "audit", "verify")
    assert verified.returncode == 0, verified.stderr
    summary, last = verified.stdout.splitlines()
    assert summary == "events 1 to 3 fit, 3 in all"
    noted = last.removeprefix("last: ")
    assert facescreen(tmp_path, "audit", "export", "--output", "trail.jsonl").returncode == 0
    lines = (tmp_path / "trail.jsonl").read_text().splitlines()
    assert [(json.loads(line)["action"], json.loads(line)["actor"]) for line in lines] == [
        ("key.create", "command")
    ] * 3
    assert facescreen(tmp_path, "audit", "verify", "--file", "trail.jsonl", "--expect", noted).returncode == 0
    assert facescreen(tmp_path, "audit", "export", "--since", "2999-01-01").stdout == ""
    # That it was exported is recorded.
    assert facescreen(tmp_path, "audit", "verify", "--expect", noted).stdout.startswith("events 1 to 5 fit, 5 in all\n")

    path = Database(settings.database_url).path
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER audit_events_no_update")
        connection.execute("UPDATE audit_events SET event = replace(event, 'command', 'somebody') WHERE id = 2")
    tampered = facescreen(tmp_path, "audit", "verify")
    assert tampered.returncode == 1
    assert tampered.stdout.splitlines()[-1] == "event 2 does not fit: the trail was changed there"
    (tmp_path / "trail.jsonl").write_text("\n".join([lines[0], lines[2]]))
    tampered = facescreen(tmp_path, "audit", "verify", "--file", "trail.jsonl")
    assert (tampered.returncode, tampered.stdout.splitlines()[0]) == (1, "events 1 to 1 fit, 1 in all")


def test_a_place_is_an_id_and_a_hash(settings: Settings, tmp_path: Path) -> None:
    refused = facescreen(tmp_path, "audit", "verify", "--expect", "3")
    assert refused.returncode == 2
    assert "is not the id of an event" in refused.stderr
    missing = facescreen(tmp_path, "audit", "verify", "--expect", f"3:{'0' * 64}")
    assert (missing.returncode, missing.stdout.splitlines()[0]) == (1, "no event fits")
