"""What others do to the list and to its folder in the midst of a synchronisation; the rest is in ``tests/api``."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from facescreen.config import Settings
from facescreen.db import blacklist
from facescreen.errors import EntryNotFoundError
from facescreen.factory import Services
from facescreen.images.sealed_store import SealedStore
from facescreen.services.register import Register
from facescreen.services.sync import FolderSyncService
from tests.api.test_blacklist import matches
from tests.api.test_expiry import expire
from tests.api.test_sync import drop, sync
from tests.conftest import serving
from tests.painted import BLUE, RED, YELLOW, photo
from tests.test_encryption import sealed

__all__ = ["sealed"]


async def only_entry(client: httpx.AsyncClient) -> dict[str, Any]:
    (entry,) = (await client.get("/blacklist/")).json()
    record: dict[str, Any] = entry
    return record


def delete_while(
    monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient, entry: dict[str, Any], *, sealing: str
) -> Callable[[], "asyncio.Task[httpx.Response]"]:
    """Have somebody delete the entry between the reading of a file and the writing of it, encrypted, in its place."""
    put = SealedStore.put
    deletions: list[asyncio.Task[httpx.Response]] = []

    async def put_later(self: SealedStore, name: str, data: bytes) -> None:
        if name == sealing and not deletions:
            deletions.append(asyncio.create_task(client.delete(f"/blacklist/{entry['id']}/")))
            await asyncio.wait(deletions, timeout=0.3)  # as far as it comes
        await put(self, name, data)

    monkeypatch.setattr(SealedStore, "put", put_later)
    return lambda: deletions[0]


@pytest.mark.parametrize("again", ["person_A/a.png", "person_A/b.png"], ids=["a known photo", "a new photo"])
async def test_who_is_deleted_while_a_photo_is_encrypted_stays_deleted(
    sealed: Settings, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    async with serving(sealed) as client:
        drop(sealed, "person_A/a.png", photo(RED))
        await sync(client)
        entry = await only_entry(client)
        drop(sealed, again, photo(RED if again == "person_A/a.png" else YELLOW))
        deletion = delete_while(monkeypatch, client, entry, sealing=again)
        await sync(client)
        assert (await deletion()).status_code == 200
        assert not list(sealed.blacklist_db_path.rglob("*.png"))
        assert (await sync(client))["added"] == []
        assert (await client.get("/blacklist/")).json() == []


async def test_a_photo_that_is_being_deleted_is_nobodys(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_of, delete = FolderSyncService._entry_of, SealedStore.delete
    committed, go_on = asyncio.Event(), asyncio.Event()
    deletions: list[asyncio.Task[httpx.Response]] = []

    async def delete_later(self: SealedStore, name: str) -> None:
        committed.set()
        await go_on.wait()
        await delete(self, name)

    async def entry_of_after(self: FolderSyncService, folder: str) -> Any:
        deletions.append(asyncio.create_task(client.delete(f"/blacklist/{entry['id']}/")))
        await committed.wait()
        return await entry_of(self, folder)

    async with serving(settings) as client:
        drop(settings, "person_A/a.png", photo(RED))
        await sync(client)
        entry = await only_entry(client)
        drop(settings, "person_A/b.png", photo(YELLOW))
        monkeypatch.setattr(SealedStore, "delete", delete_later)
        monkeypatch.setattr(FolderSyncService, "_entry_of", entry_of_after)
        assert (await sync(client))["added"] == []
        go_on.set()
        assert (await deletions[0]).status_code == 200
        assert await matches(client, photo(YELLOW)) == []


async def test_a_photo_that_is_replaced_while_it_is_enrolled_is_noticed(
    client: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop(settings, "person_A/a.png", photo(RED))
    add = Register.add

    async def add_after(self: Register, *addition: Any) -> Any:
        path.write_bytes(photo(BLUE))
        return await add(self, *addition)

    monkeypatch.setattr(Register, "add", add_after)
    assert (await sync(client))["added"] == ["blacklist_db/person_A/a.png"]
    monkeypatch.setattr(Register, "add", add)
    await sync(client)
    assert await matches(client, photo(RED)) == []
    assert len(await matches(client, photo(BLUE))) == 1
    assert (await sync(client))["unchanged"] == 1


async def test_who_is_prolonged_while_a_sweep_begins_stays(settings: Settings) -> None:
    async with serving(settings) as client:
        drop(settings, "person_A/a.png", photo(RED))
        await sync(client)
        record = await only_entry(client)
        await expire(settings, record)
        services: Services = client.services  # type: ignore[attr-defined]
        async with services.database.read() as connection:
            (expired,) = await blacklist.expired_entries(connection)
        await expire(settings, record, within=timedelta(days=1))
        with pytest.raises(EntryNotFoundError):
            await services.register.withdraw(expired, if_expired=True)
        assert len(await matches(client, photo(RED))) == 1


async def test_a_photo_that_is_replaced_after_its_entry_had_expired_is_somebody_new(settings: Settings) -> None:
    async with serving(settings) as client:
        path = drop(settings, "person_A/a.png", photo(RED))
        drop(settings, "person_A/b.png", photo(YELLOW)).touch()
        await sync(client)
        await expire(settings, await only_entry(client))
        await asyncio.sleep(0.05)  # change times are of the last tick
        path.write_bytes(photo(BLUE))
        (settings.blacklist_db_path / "person_A" / "b.png").touch()  # changed, but the same photo
        await client.services.retention.sweep()  # type: ignore[attr-defined]
        assert [file.name for file in path.parent.iterdir()] == ["a.png"]
        assert (await sync(client))["added"] == ["blacklist_db/person_A/a.png"]
        assert len(await matches(client, photo(BLUE))) == 1
        assert await matches(client, photo(RED)) == await matches(client, photo(YELLOW)) == []
