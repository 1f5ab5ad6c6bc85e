"""Photos in a bucket are encrypted as those in a folder are; what Rekognition is sent is not."""

from pathlib import Path

import pytest

from facescreen.config import Settings
from facescreen.errors import StartupError
from facescreen.factory import open_encryption, open_services
from facescreen.services.audit import FindingKind
from tests.api.test_blacklist import enroll, matches
from tests.api.test_sync import drop, sync
from tests.painted import BLUE, RED, photo
from tests.rekognition.sides import Aws, serving

JPEG = b"\xff\xd8\xff"


async def test_photos_in_the_bucket_are_sealed_and_go_with_their_keys(
    settings: Settings, aws: Aws, tmp_path: Path
) -> None:
    async with serving(settings) as client:
        await enroll(client, "Ada", photo(RED))
        ((key, data),) = aws.objects().items()
        assert data.startswith(JPEG)
    sealed = settings.model_copy(update={"encryption_key_dir": tmp_path / "keys"})
    async with serving(sealed) as client:
        async with open_encryption(sealed) as encryption:
            status = await encryption.apply()
            assert {each.count == each.total for each in status.files.values()} == {True}
        drop(sealed, "person_B/b.png", photo(BLUE))
        assert (await sync(client))["added"] == ["blacklist_db/person_B/b.png"]
        assert len(aws.objects()) == 2
        assert not any(JPEG in stored for stored in aws.objects().values())
        copy = aws.objects()[key]
        for colour, name in ((RED, "Ada"), (BLUE, "person_B")):
            (match,) = await matches(client, photo(colour))
            assert match["name"] == name
        ada = next(entry for entry in (await client.get("/blacklist/")).json() if entry["name"] == "Ada")
        shown = await client.get(f"/blacklist/{ada['id']}/images/{ada['images'][0]['id']}")
        assert shown.content == data
        with pytest.raises(StartupError, match="ENCRYPTION_KEY_DIR: must be set"):
            async with serving(settings):
                pass
        await client.delete(f"/blacklist/{ada['id']}/")
    async with open_services(sealed) as services:
        assert [finding async for finding in services.audit.audit(fix=True)] == []
        aws.put(key, copy)
        (finding,) = [finding async for finding in services.audit.audit(fix=True)]
        assert (finding.kind, finding.repaired) == (FindingKind.FILE_LEFT_OVER, True)
    assert len(aws.objects()) == 1
    # There are no embeddings that would tell at the start.
    (tmp_path / "keys").rename(tmp_path / "lost")
    with pytest.raises(StartupError, match=r"ENCRYPTION_KEY_DIR: \d of \d encrypted files have no key"):
        async with open_services(sealed):
            pass
