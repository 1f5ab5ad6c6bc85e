"""API keys. Of a key's secret there is a digest, and nothing else."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from facescreen.db.schema import api_keys
from facescreen.domain.access import ApiKey, Scope


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with the SHA-256 of its secret, in hexadecimal."""

    key: ApiKey
    sha256: str


async def insert_key(connection: AsyncConnection, stored: StoredKey) -> None:
    """Add a key."""
    key = stored.key
    await connection.execute(
        insert(api_keys).values(
            id=key.id,
            label=key.label,
            scopes=sorted(key.scopes),
            sha256=stored.sha256,
            created_at=key.created_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            replaced_by=key.replaced_by,
        )
    )


async def list_keys(connection: AsyncConnection) -> list[StoredKey]:
    """Every key that was ever created, oldest first."""
    rows = await connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
    return [_stored(row) for row in rows]


async def get_key(connection: AsyncConnection, key_id: str) -> ApiKey | None:
    """The key with this id, if there is one."""
    row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).one_or_none()
    return _stored(row).key if row else None


async def update_key(connection: AsyncConnection, key: ApiKey) -> None:
    """Write how the key ends; nothing else of a key ever changes."""
    end = {"expires_at": key.expires_at, "revoked_at": key.revoked_at, "replaced_by": key.replaced_by}
    await connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(end))


def _stored(row: Row[Any]) -> StoredKey:
    key = ApiKey(
        id=row.id,
        label=row.label,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        replaced_by=row.replaced_by,
    )
    return StoredKey(key, row.sha256)
