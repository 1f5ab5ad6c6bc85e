"""API keys: made, rotated, revoked, and recognized.

A key is ``fsk_<id>_<secret>``. The id is public and stands in the audit trail; of the secret only a SHA-256 is stored.
A secret is 256 random bits: there is no dictionary to try, so a slow hash would protect nothing and cost every request.
"""

import asyncio
import re
import secrets
import time
from base64 import b32encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest

from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db import api_keys
from facescreen.db.api_keys import StoredKey
from facescreen.db.connection import Database
from facescreen.domain.access import ApiKey, Scope
from facescreen.domain.trail import Action
from facescreen.errors import ConflictError, InputError, NotFoundError, UnauthenticatedError
from facescreen.services.trail import record

RING_SECONDS = 0.5
"""How old a process's ring may be: every worker knows of a revocation within a second."""

_LONGEST_LABEL = 200
_ID_BYTES = 5
_SECRET_BYTES = 32
_KEY = re.compile(r"fsk_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; ``text`` is what a caller sends, and is to be had nowhere else."""

    key: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Every key that was ever created, by id, as things were when the ring was read."""

    keys: Mapping[str, StoredKey]

    def authenticate(self, text: str) -> ApiKey:
        """The key that this is the text of.

        Raises:
            UnauthenticatedError: it is malformed, unknown, revoked or expired; which, is not told.
        """
        parts = _KEY.fullmatch(text)
        stored = self.keys.get(parts[1]) if parts else None
        if parts is None or stored is None or not compare_digest(_digest(parts[2]), stored.sha256):
            raise UnauthenticatedError
        if not stored.key.is_valid(datetime.now(UTC)):
            raise UnauthenticatedError
        return stored.key


class KeyService:
    """Keeps the keys."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ring = KeyRing({})
        self._ring_ends = -float("inf")
        self._reading = asyncio.Lock()

    async def ring(self) -> KeyRing:
        """The keys as they were at most :data:`RING_SECONDS` ago."""
        if time.monotonic() >= self._ring_ends:
            async with self._reading:
                if (now := time.monotonic()) >= self._ring_ends:
                    self._ring = KeyRing({stored.key.id: stored for stored in await self._stored()})
                    self._ring_ends = now + RING_SECONDS
        return self._ring

    async def all(self) -> Sequence[ApiKey]:
        """Every key that was ever created, oldest first."""
        return [stored.key for stored in await self._stored()]

    async def create(self, scopes: Collection[Scope], *, label: str = "", expires_at: datetime | None = None) -> NewKey:
        """A new key.

        Raises:
            InputError: the label is too long, or has characters that cannot be printed.
        """
        if len(label) > _LONGEST_LABEL or not label.isprintable():
            raise InputError(f"a label is at most {_LONGEST_LABEL} printable characters")
        made = _made(scopes, label=label, expires_at=expires_at)
        async with self._database.write() as connection:
            await api_keys.insert_key(connection, _to_store(made))
            await record(connection, Action.KEY_CREATE, subject=made.key.id)
        return made

    async def rotate(self, key_id: str, *, grace: timedelta = timedelta(0)) -> NewKey:
        """A new key with the label, the scopes and the end of an old one, which is revoked.

        Args:
            key_id: of the old key.
            grace: how long the old key is still valid, so that callers can be moved to the new one.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: it is revoked or expired, or was rotated before.
        """
        now = datetime.now(UTC)
        async with self._database.write() as connection:
            old = await _present(connection, key_id)
            if not old.is_valid(now):
                raise ConflictError("the key is revoked or expired; create a new one")
            if old.replaced_by is not None:
                raise ConflictError(f"the key was rotated before; rotate {old.replaced_by}, which came in its place")
            made = _made(old.scopes, label=old.label, expires_at=old.expires_at)
            await api_keys.insert_key(connection, _to_store(made))
            if grace:
                old = replace(old, expires_at=min(now + grace, old.expires_at or datetime.max.replace(tzinfo=UTC)))
            else:
                old = replace(old, revoked_at=now)
            await api_keys.update_key(connection, replace(old, replaced_by=made.key.id))
            await record(connection, Action.KEY_ROTATE, subject=f"{key_id} {made.key.id}")
        return made

    async def revoke(self, key_id: str) -> ApiKey:
        """The key, which is valid no more; one that was revoked before stays as it is.

        Raises:
            NotFoundError: there is no such key.
        """
        async with self._database.write() as connection:
            key = await _present(connection, key_id)
            if key.revoked_at is None:
                key = replace(key, revoked_at=datetime.now(UTC))
                await api_keys.update_key(connection, key)
                await record(connection, Action.KEY_REVOKE, subject=key_id)
        return key

    async def _stored(self) -> Sequence[StoredKey]:
        async with self._database.read() as connection:
            return await api_keys.list_keys(connection)


async def _present(connection: AsyncConnection, key_id: str) -> ApiKey:
    key = await api_keys.get_key(connection, key_id)
    if key is None:
        raise NotFoundError("no key has this id")
    return key


def _made(scopes: Collection[Scope], *, label: str, expires_at: datetime | None) -> NewKey:
    key = ApiKey(
        id=b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower(),
        label=label,
        scopes=frozenset(scopes),
        created_at=datetime.now(UTC),
        expires_at=expires_at,
        revoked_at=None,
    )
    return NewKey(key, f"fsk_{key.id}_{secrets.token_urlsafe(_SECRET_BYTES)}")


def _to_store(made: NewKey) -> StoredKey:
    return StoredKey(made.key, _digest(made.text.removeprefix(f"fsk_{made.key.id}_")))


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
