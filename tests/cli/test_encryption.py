"""`facescreen encryption`, as a user of the shell sees it."""

import asyncio
import re
from pathlib import Path

from facescreen.config import Settings
from tests.api.test_blacklist import enroll
from tests.cli.test_cli import facescreen
from tests.conftest import serving
from tests.painted import RED, photo


def test_a_list_is_encrypted_and_its_master_key_rotated(settings: Settings, tmp_path: Path) -> None:
    async def enroll_ada() -> None:
        async with serving(settings) as client:
            await enroll(client, "Ada", photo(RED))

    asyncio.run(enroll_ada())
    environment = {
        "DATABASE_URL": settings.database_url,
        "BLACKLIST_DB_PATH": str(settings.blacklist_db_path),
        "PROCESSED_IMAGES_OUTPUT_DIR": str(settings.processed_images_output_dir),
    }
    without = facescreen(tmp_path, "encryption", "status", **environment)
    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr == "facescreen: ENCRYPTION_KEY_DIR: must be set; nothing is encrypted without it\n"
    environment["ENCRYPTION_KEY_DIR"] = str(tmp_path / "keys")
    before = facescreen(tmp_path, "encryption", "status", **environment)
    assert before.stdout.splitlines()[:4] == [
        "embeddings: 0 of 1 encrypted",
        "clearances: 0 of 0 encrypted",
        "files in blacklist: 0 of 1 encrypted",
        "files in processed: 0 of 0 encrypted",
    ]
    applied = facescreen(tmp_path, "encryption", "apply", **environment)
    lines = applied.stdout.splitlines()
    assert (lines[0], lines[2]) == ("embeddings: 1 of 1 encrypted", "files in blacklist: 1 of 1 encrypted")
    assert (master := re.fullmatch(r"master key (\w{16}) wraps 1 keys \(current\)", lines[4]))
    rotated = facescreen(tmp_path, "encryption", "rotate", **environment)
    assert (fresh := re.fullmatch(r"master key (\w{16}) wraps all 1 keys\n", rotated.stdout))
    assert fresh[1] != master[1]
    assert [path.name for path in (tmp_path / "keys").glob("*.key")] == [f"master-{fresh[1]}.key"]
