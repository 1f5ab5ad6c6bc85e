"""The audit: what it finds, what it repairs, and what it leaves alone."""

import asyncio
import io
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.errors import AwsAccessDeniedError
from facescreen.services.audit import Finding, FindingKind
from tests import conftest
from tests.api.test_blacklist import enroll, files, matches, upload
from tests.api.test_sync import drop
from tests.at_rest import check_disk
from tests.loopback_aws import CREDENTIALS
from tests.painted import BLUE, GREEN, RED, YELLOW, photo
from tests.rekognition import s3_proxy
from tests.rekognition.agreement import check_sides, rows
from tests.rekognition.sides import COLLECTION, PREFIX, Aws, audit, inside, serving
from tests.rekognition_server import ACCESS_DENIED, IndexedFace, Partial, Silence, Square

FOREIGN_USER = "somebody-elses"
PINK = (230, 20, 230)


def kinds(findings: list[Finding]) -> list[str]:
    return sorted(finding.kind for finding in findings)


async def repaired(client: httpx.AsyncClient) -> list[str]:
    """What an audit finds; the same whether it may repair or not, and all of it is repaired, for good."""
    found = await audit(client)
    assert not any(finding.repaired for finding in found)
    fixed = await audit(client, fix=True)
    assert [(f.kind, f.where, f.subject) for f in found] == [(f.kind, f.where, f.subject) for f in fixed]
    assert all(finding.repaired for finding in fixed)
    assert await audit(client) == []
    return kinds(fixed)


async def test_where_everything_fits_nothing_is_found(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    await enroll(client, "Ada", photo(RED), photo(GREEN))
    await matches(client, photo(RED))
    assert await audit(client) == await audit(client, fix=True) == []
    assert check_sides(settings, aws) == {"Ada": 2}


async def test_without_fix_nothing_changes(client: httpx.AsyncClient, settings: Settings, aws: Aws) -> None:
    await enroll(client, "Ada", photo(RED), photo(GREEN))
    collection = aws.rekognition.collections[COLLECTION]
    collection.faces.popitem()
    collection.users.add("fs-0123456789abcdef")
    aws.remove(next(iter(aws.objects())))
    aws.put(f"{PREFIX}fs-0123456789abcdef/{'0' * 64}.jpg")

    def state() -> Any:
        statements = ("SELECT * FROM entries", "SELECT * FROM reference_images", "SELECT * FROM changes")
        return aws.objects(), aws.faces(), aws.users(), [rows(settings, statement) for statement in statements]

    before = state()
    expected = [
        FindingKind.FACE_MISSING,
        FindingKind.FILE_LEFT_OVER,
        FindingKind.PERSON_LEFT_OVER,
        FindingKind.PHOTO_MISSING,
    ]
    assert kinds(await audit(client)) == expected
    assert state() == before


async def test_what_was_removed_from_the_collection_comes_back(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    ada = await enroll(client, "Ada", photo(RED), photo(GREEN))
    await enroll(client, "Bob", photo(BLUE))
    collection = aws.rekognition.collections[COLLECTION]
    faces = {known: face_id for face_id, (known, _) in aws.faces().items()}
    red, green = (faces[f"{ada['user_id']}.{image['id']}"] for image in ada["images"])

    del collection.faces[red]
    assert await matches(client, photo(RED)) == []
    assert await repaired(client) == [FindingKind.FACE_MISSING]
    assert len(await matches(client, photo(RED))) == 1
    assert check_sides(settings, aws) == {"Ada": 2, "Bob": 1}

    collection.faces[green].user_id = None
    assert await repaired(client) == [FindingKind.FACE_MISSING]
    assert check_sides(settings, aws) == {"Ada": 2, "Bob": 1}

    for face in collection.faces.values():
        face.user_id = None
    collection.users.clear()
    assert await repaired(client) == [FindingKind.FACE_MISSING] * 3
    assert check_sides(settings, aws) == {"Ada": 2, "Bob": 1}

    del aws.rekognition.collections[COLLECTION]
    assert await repaired(client) == [FindingKind.COLLECTION_MISSING, *[FindingKind.FACE_MISSING] * 3]
    assert [match["name"] for match in await matches(client, photo(RED))] == ["Ada"]
    assert check_sides(settings, aws) == {"Ada": 2, "Bob": 1}


async def test_a_group_photo_is_indexed_again_by_the_right_face(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    await enroll(client, "Ada", photo(RED))
    (key,) = aws.objects()
    group = np.full((128, 400, 3), 128, np.uint8)
    group[32:96, 32:96] = RED
    group[8:120, 200:312] = BLUE
    encoded = io.BytesIO()
    Image.fromarray(group).save(encoded, "PNG")
    aws.put(key, encoded.getvalue())
    aws.rekognition.collections[COLLECTION].faces.clear()
    assert await repaired(client) == [FindingKind.FACE_MISSING]
    assert len(await matches(client, photo(RED))) == 1
    assert await matches(client, photo(BLUE)) == []


async def test_what_is_left_over_goes_and_what_is_foreign_stays(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    ada = await enroll(client, "Ada", photo(RED))
    collection = aws.rekognition.collections[COLLECTION]

    def add(name: str | None, user_id: str | None = None) -> str:
        if user_id is not None:
            collection.users.add(user_id)
        square = Square((0.1, 0.1, 0.5, 0.5), (0.1, 0.2, 0.3))
        face = IndexedFace(square, b"", "11111111-1111-1111-1111-111111111111", name, user_id=user_id)
        collection.faces[face.face_id] = face
        return face.face_id

    add(f"{ada['user_id']}.{ada['images'][0]['id']}")  # a second one of the same photo
    add(f"{ada['user_id']}.99", ada["user_id"])
    add("fs-0123456789abcdef.7", "fs-0123456789abcdef")
    collection.users.add("fs-fedcba9876543210")
    foreign = {add(None), add("holiday.jpg"), add("visitor.12", FOREIGN_USER), FOREIGN_USER}
    aws.put(f"{PREFIX}fs-0123456789abcdef/{'0' * 64}.jpg")
    aws.put(f"{PREFIX}visitor-12-0123abcd/{'0' * 64}.jpg")
    foreign |= {f"{PREFIX}logo.jpg", "elsewhere/a.jpg", "album/holiday.jpg"}
    aws.put(f"{PREFIX}logo.jpg")
    aws.put("elsewhere/a.jpg")
    processed = settings.model_copy(update={"blacklist_db_path": settings.processed_images_output_dir})
    drop(processed, f"2024-02-29/{'0' * 32}.jpg", b"x")
    holiday = drop(processed, "album/holiday.jpg", b"x")

    findings = await audit(client, fix=True)
    assert kinds(findings) == sorted(
        [
            *[FindingKind.FACE_LEFT_OVER] * 3,
            *[FindingKind.PERSON_LEFT_OVER] * 2,
            *[FindingKind.FILE_LEFT_OVER] * 3,
            *[FindingKind.FOREIGN] * 6,
        ]
    )
    assert all(finding.repaired != (finding.kind is FindingKind.FOREIGN) for finding in findings)
    assert kinds(await audit(client)) == [FindingKind.FOREIGN] * 6
    assert holiday.exists()
    assert check_sides(settings, aws, foreign=foreign) == {"Ada": 1}
    assert len(await matches(client, photo(RED))) == 1


async def test_photos_that_are_gone_come_from_where_they_still_are(settings: Settings, aws: Aws) -> None:
    async with serving(settings) as client:
        await enroll(client, "Ada", photo(RED), photo(GREEN))
    settings = settings.model_copy(update={"aws_keep_local_copy": True})
    async with serving(settings) as client:
        assert await repaired(client) == [FindingKind.PHOTO_MISSING] * 2
        assert check_sides(settings, aws) == {"Ada": 2}
        for key in aws.objects():
            aws.remove(key)
        assert await repaired(client) == [FindingKind.PHOTO_MISSING] * 2
        assert check_sides(settings, aws) == {"Ada": 2}
        shutil.rmtree(settings.blacklist_db_path)
        lost = next(iter(aws.objects()))
        aws.remove(lost)
        findings = await audit(client, fix=True)
        assert [(f.where, f.repaired) for f in findings if f.subject == lost.removeprefix(PREFIX)] == [
            ("bucket", False),
            ("blacklist", False),
        ]
        assert sum(finding.repaired for finding in findings) == 1
        aws.rekognition.collections[COLLECTION].faces.clear()
        again = await audit(client, fix=True)
        faces = [finding.repaired for finding in again if finding.kind is FindingKind.FACE_MISSING]
        assert sorted(faces) == [False, True]


async def test_the_picture_of_a_result_that_is_gone_is_told(client: httpx.AsyncClient, settings: Settings) -> None:
    await matches(client, photo(RED))
    shutil.rmtree(settings.processed_images_output_dir)
    for fix in (False, True):
        (finding,) = await audit(client, fix=fix)
        assert (finding.kind, finding.repaired) == (FindingKind.COPY_MISSING, False)


async def test_a_face_that_the_service_refuses_now_is_told(
    client: httpx.AsyncClient, settings: Settings, aws: Aws
) -> None:
    await enroll(client, "Ada", photo(RED), photo(GREEN))
    aws.rekognition.collections[COLLECTION].faces.clear()
    for operation, reason in (("IndexFaces", "LOW_SHARPNESS"), ("AssociateFaces", "LOW_MATCH_CONFIDENCE")):
        aws.rekognition.fail(operation, Partial(reason))
    findings = await audit(client, fix=True)
    assert [(f.kind, f.repaired) for f in findings] == [(FindingKind.FACE_MISSING, False)] * 2
    assert aws.faces() == {}
    assert await repaired(client) == [FindingKind.FACE_MISSING] * 2
    assert check_sides(settings, aws) == {"Ada": 2}


async def test_an_audit_beside_an_enrollment_and_a_withdrawal_finds_nothing(settings: Settings, aws: Aws) -> None:
    async with serving(settings.model_copy(update={"aws_read_timeout_seconds": 2})) as client:
        bob = await enroll(client, "Bob", photo(BLUE))
        indexing = aws.rekognition.fail("IndexFaces", Silence.HANG)
        enrolling = asyncio.create_task(enroll(client, "Ada", photo(RED), photo(GREEN)))
        assert await asyncio.to_thread(indexing.wait, 20)
        # The audit has listed the faces, and hangs for longer than the enrollment.
        listing = aws.rekognition.fail("ListUsers", Silence.HANG, times=2)
        auditing = asyncio.create_task(audit(client, fix=True))
        assert await asyncio.to_thread(listing.wait, 20)
        assert (await client.delete(f"/blacklist/{bob['id']}/")).status_code == 200
        await enrolling
        assert await auditing == []
        assert check_sides(settings, aws) == {"Ada": 2}


async def test_what_comes_while_the_files_are_listed_is_not_missing(settings: Settings, aws: Aws) -> None:
    settings = settings.model_copy(update={"aws_keep_local_copy": True, "aws_read_timeout_seconds": 2})
    async with serving(settings) as client:
        # The audit has listed the folders, and hangs for longer than the enrollment.
        listing = aws.s3.fail("GET", Silence.HANG, times=2)
        auditing = asyncio.create_task(audit(client, fix=True))
        assert await asyncio.to_thread(listing.wait, 20)
        await enroll(client, "Ada", photo(RED))
        assert len(await matches(client, photo(RED))) == 1
        assert await auditing == []
        assert check_sides(settings, aws) == {"Ada": 1}


async def test_a_photo_that_cannot_be_copied_is_not_taken_away(settings: Settings, aws: Aws) -> None:
    settings = settings.model_copy(update={"aws_keep_local_copy": True, "aws_read_timeout_seconds": 2})
    async with serving(settings) as client:
        await enroll(client, "Ada", photo(RED))
        ((key, data),) = aws.objects().items()
        aws.remove(key)
        copying = aws.s3.fail("PUT", Silence.HANG)
        aws.s3.fail("PUT", s3_proxy.DENIED)
        auditing = asyncio.create_task(audit(client, fix=True))
        assert await asyncio.to_thread(copying.wait, 20)
        # A kill now would leave nothing that tells the next start to remove the photo.
        assert rows(settings, "SELECT * FROM file_intents") == []
        aws.put(key, data)
        with pytest.raises(AwsAccessDeniedError):
            await auditing
        assert check_sides(settings, aws) == {"Ada": 1}


async def test_a_photo_that_is_withdrawn_while_it_is_copied_goes(settings: Settings, aws: Aws) -> None:
    settings = settings.model_copy(update={"aws_keep_local_copy": True, "aws_read_timeout_seconds": 2})
    async with serving(settings) as client:
        ada = await enroll(client, "Ada", photo(RED))
        (key,) = aws.objects()
        aws.remove(key)
        copying = aws.s3.fail("PUT", Silence.HANG)
        auditing = asyncio.create_task(audit(client, fix=True))
        assert await asyncio.to_thread(copying.wait, 20)
        assert (await client.delete(f"/blacklist/{ada['id']}/")).status_code == 200
        (finding,) = await auditing
        assert (finding.kind, finding.repaired) == (FindingKind.PHOTO_MISSING, False)
        assert check_sides(settings, aws) == {}


@pytest.mark.parametrize("user_id", ["..", ".ada", "visitor:12", "fs-0123456789abcdef"])
async def test_people_whom_an_application_named_have_photos_of_their_own(
    settings: Settings, aws: Aws, user_id: str
) -> None:
    here = settings.model_copy(update={"face_processing_backend": "deepface", "match_threshold": 0.05})
    async with conftest.serving(here) as client:
        assert (await client.post("/collections/", json={"name": "staff"})).status_code == 201
        facade = inside(client).facade
        assert facade is not None
        for name in ("default", "staff"):
            await facade.people.create(name, user_id, token=None)
    async with serving(settings) as client:
        assert await repaired(client) == [FindingKind.COLLECTION_MISSING]
        for name in ("default", "staff"):
            within = {"collection": name}
            (record,) = (await client.get("/blacklist/", params=within)).json()
            added = await client.post(f"/blacklist/{record['id']}/images", params=within, files=upload(photo(RED)))
            assert added.status_code == 200, added.text
        assert len(aws.objects()) == 2
        assert await audit(client) == []
        assert (await client.delete(f"/blacklist/{record['id']}/", params=within)).status_code == 200
        assert check_sides(settings, aws) == {user_id: 1}


async def test_a_collection_of_this_machine_may_have_a_name_that_is_too_long_for_aws(
    settings: Settings, aws: Aws
) -> None:
    here = settings.model_copy(update={"face_processing_backend": "deepface", "match_threshold": 0.05})
    long = {"collection": "a" * 255}
    async with conftest.serving(here) as client:
        await client.post("/collections/", json={"name": long["collection"]})
        ada = await client.post("/blacklist/", params=long, data={"name": "Ada"}, files=upload(photo(RED)))
        assert ada.status_code == 201
    async with serving(settings) as client:
        findings = await audit(client, fix=True)
        assert [(finding.kind, finding.repaired) for finding in findings] == [
            (FindingKind.PHOTO_MISSING, True),
            (FindingKind.COLLECTION_MISSING, False),
        ]
        assert (await client.delete(f"/collections/{long['collection']}/")).status_code == 204
        assert await audit(client) == []
        assert check_sides(settings, aws) == {}


async def test_moving_from_this_machine_to_aws_and_back(settings: Settings, aws: Aws) -> None:
    here = settings.model_copy(update={"face_processing_backend": "deepface", "match_threshold": 0.05})
    drop(here, "person_A/a.png", photo(GREEN))
    async with conftest.serving(here) as client:
        await enroll(client, "Ada", photo(RED), photo(YELLOW))
        await client.post("/collections/", json={"name": "staff"})
        uploaded = {"images": ("b.png", photo(BLUE), "image/png")}
        bob = await client.post("/blacklist/", params={"collection": "staff"}, data={"name": "Bob"}, files=uploaded)
        assert bob.status_code == 201
    folder = {path: path.read_bytes() for path in files(settings.blacklist_db_path)}

    async with serving(settings) as client:
        assert await matches(client, photo(RED)) == []
        findings = await audit(client, fix=True)
        assert all(finding.repaired for finding in findings)
        assert await audit(client) == []
        for colour, name in ((RED, "Ada"), (YELLOW, "Ada"), (GREEN, "person_A")):
            assert [match["name"] for match in await matches(client, photo(colour))] == [name]
        assert await matches(client, photo(BLUE)) == []
        assert check_sides(settings, aws) == {"Ada": 2, "person_A": 1, "Bob": 1}
        await enroll(client, "Eve", photo(PINK))
    assert {path: path.read_bytes() for path in files(settings.blacklist_db_path)} == folder

    async with serving(settings.model_copy(update={"aws_keep_local_copy": True})) as client:
        assert await repaired(client) == [FindingKind.PHOTO_MISSING]
    async with conftest.serving(here) as client:
        for colour, name in ((RED, "Ada"), (GREEN, "person_A"), (PINK, "Eve")):
            assert [match["name"] for match in await matches(client, photo(colour))] == [name]
        for record in (await client.get("/blacklist/")).json():
            await client.delete(f"/blacklist/{record['id']}/")
        await client.delete("/collections/staff/")
        assert check_disk(here) == {}


async def test_faces_that_were_nobodys_become_people(settings: Settings, aws: Aws) -> None:
    here = settings.model_copy(update={"face_processing_backend": "deepface", "match_threshold": 0.05})
    async with conftest.serving(here) as client:
        ada, bob, _ = [
            await enroll(client, name, photo(colour)) for name, colour in (("Ada", RED), ("Bob", BLUE), ("Eve", GREEN))
        ]
    # As IndexFaces of the facade leaves them.
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database, database:
        database.execute("UPDATE entries SET user_id = NULL")
        database.execute("UPDATE reference_images SET watched = NULL")
    async with serving(settings) as client:
        assert (await client.delete(f"/blacklist/{bob['id']}/")).status_code == 200
        uploaded = {"images": ("b.png", photo(YELLOW), "image/png")}
        assert (await client.post(f"/blacklist/{ada['id']}/images", files=uploaded)).status_code == 200
        await audit(client, fix=True)
        assert await audit(client) == []
        for colour, name in ((RED, "Ada"), (YELLOW, "Ada"), (GREEN, "Eve")):
            assert [match["name"] for match in await matches(client, photo(colour))] == [name]
        assert len(aws.users()) == 2


async def test_what_aws_left_unfinished_does_not_keep_this_machine_from_starting(settings: Settings, aws: Aws) -> None:
    async with serving(settings) as client:
        record = await enroll(client, "Ada", photo(RED))
        aws.s3.fail("DELETE", s3_proxy.DENIED)
        assert (await client.delete(f"/blacklist/{record['id']}/")).status_code == 503
    here = settings.model_copy(update={"face_processing_backend": "deepface", "match_threshold": 0.05})
    async with conftest.serving(here) as client:
        assert (await client.get("/blacklist/")).json() == []
    assert len(aws.objects()) == 1
    async with serving(settings) as client:
        assert check_sides(settings, aws) == {}


def facescreen(folder: Path, settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with these settings."""
    names = [name for name in settings.model_fields_set if not name.startswith("image_")]
    values = {name.upper(): str(getattr(settings, name)) for name in names if getattr(settings, name) is not None}
    return subprocess.run(
        [sys.executable, "-m", "facescreen", *arguments],
        cwd=folder,
        env={"HOME": str(folder), "HF_HUB_OFFLINE": "1", **CREDENTIALS, **values},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_command(settings: Settings, aws: Aws, tmp_path: Path) -> None:
    async with serving(settings) as client:
        ada = await enroll(client, "Ada", photo(RED))
        aws.rekognition.fail("DeleteFaces", ACCESS_DENIED)
        assert (await client.delete(f"/blacklist/{ada['id']}/")).status_code == 503
    aws.put(f"{PREFIX}logo.jpg")
    told = facescreen(tmp_path, settings, "audit")
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.splitlines() == [
        f"unfinished in default: entry {ada['id']}",
        "foreign in bucket: logo.jpg",
        "2 findings, 0 repaired, 1 not ours",
    ]
    fixed = facescreen(tmp_path, settings, "audit", "--fix")
    assert (fixed.returncode, fixed.stderr) == (0, "")
    assert fixed.stdout.splitlines() == [
        f"unfinished in default: entry {ada['id']} (repaired)",
        "foreign in bucket: logo.jpg",
        "2 findings, 1 repaired, 1 not ours",
    ]
    assert check_sides(settings, aws, foreign={f"{PREFIX}logo.jpg"}) == {}
