"""Images that are encrypted in whatever store they are in."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

from facescreen.domain.sealing import DataKeys, SealBrokenError, seal, unseal
from facescreen.images.decode import format_of
from facescreen.images.store import ImageStore, name_parts

_MAGIC = b"facescreen sealed 1\n"
_LENGTH_BYTES = 2


class _Sealed(NamedTuple):
    """A sealed image: the key that it says it was sealed with, its header, and its ciphertext."""

    key: str
    header: bytes
    ciphertext: bytes


class SealedStore:
    """An ``ImageStore`` that encrypts what is put, each image with a key of its own, which goes with it.

    An image that is not sealed is read as it is: photos are dropped by hand, and data are older than the setting. Each
    image says which key it was sealed with, which is the one of its name, and this is authenticated with the rest: none
    can be put in another's place. What cannot be opened is :class:`facescreen.domain.sealing.SealBrokenError`, a
    ``FileNotFoundError``.

    Args:
        name: of the store, which the names of its keys begin with.
        keys: ``None`` where nothing is to be encrypted; what is, cannot be read then.
    """

    def __init__(self, store: ImageStore, name: str, keys: DataKeys | None) -> None:
        self._store = store
        self._name = name
        self._keys = keys

    async def put(self, name: str, data: bytes) -> None:
        name_parts(name)
        if self._keys is not None:
            key = self.key_of(name)
            header = _header(key)
            keys = await asyncio.to_thread(self._keys.make, [key])
            data = header + await asyncio.to_thread(seal, keys[key], data, header)
        await self._store.put(name, data)

    async def get(self, name: str) -> bytes:
        data = await self._store.get(name)
        sealed = _parsed(data)
        if sealed is not None:
            if sealed.key != self.key_of(name):
                raise SealBrokenError("this image was sealed under another name")
            return await self._open(sealed)
        # Of what was damaged in its first bytes, only the key is left to say that it was sealed.
        if format_of(data) is None and await self._has_key(name):
            raise SealBrokenError("this image is neither one nor sealed any more")
        return data

    async def delete(self, name: str) -> None:
        name_parts(name)
        await self.drop_key(name)  # first: from then on it is gone, whatever becomes of the file
        await self._store.delete(name)

    async def list(self, folder: str | None = None) -> list[str]:
        return await self._store.list(folder)

    def key_of(self, name: str) -> str:
        """Name of an image's key."""
        return f"{self._name}/{name}"

    async def is_sealed(self, name: str) -> bool:
        """Whether the image is encrypted, readable or not; raises FileNotFoundError if nothing has the name."""
        return is_sealed(await self._store.get(name))

    async def is_as_put(self, name: str) -> bool:
        """Whether the image is encrypted under this name, or nothing is; raises FileNotFoundError if there is none."""
        sealed = _parsed(await self._store.get(name))
        return self._keys is None if sealed is None else sealed.key == self.key_of(name)

    async def seal(self, name: str, *, anew: bool = False) -> bytes:
        """Encrypt the image where it is, if it is not; returns the image.

        Args:
            anew: not with a key that the name has already, because what had the name before is gone.

        Raises:
            FileNotFoundError: nothing has the name, or what has it cannot be opened.
        """
        data = await self.get(name)
        if self._keys is not None and not await self.is_sealed(name):
            if anew:
                await self.drop_key(name)
            await self.put(name, data)
        return data

    async def adopt(self, name: str) -> None:
        """Seal an image under this name that was sealed under another one, and moved by hand; leave all others alone.

        Raises:
            FileNotFoundError: nothing has the name.
        """
        sealed = _parsed(await self._store.get(name)) if self._keys is not None else None
        if sealed is not None and sealed.key != self.key_of(name):
            with suppress(SealBrokenError):
                await self.put(name, await self._open(sealed))

    async def drop_key(self, name: str) -> None:
        """Make every copy of the image that was sealed, and every embedding of it, unreadable."""
        if self._keys is not None:
            await asyncio.to_thread(self._keys.drop, [self.key_of(name)])

    async def release(self, name: str) -> None:
        """Drop the key of the image that had this name; what somebody has put in its place stays, unsealed."""
        with suppress(FileNotFoundError):
            data = await self.get(name)
            if await self.is_sealed(name):  # moved here by hand, and adopted with the key that goes
                await self._store.put(name, data)
        await self.drop_key(name)

    async def _has_key(self, name: str) -> bool:
        return self._keys is not None and bool(await asyncio.to_thread(self._keys.find, [self.key_of(name)]))

    async def _open(self, sealed: _Sealed) -> bytes:
        found = await asyncio.to_thread(self._keys.find, [sealed.key]) if self._keys is not None else {}
        if sealed.key not in found:
            raise SealBrokenError("the key of this image was dropped, or is another installation's")
        return await asyncio.to_thread(unseal, found[sealed.key], sealed.ciphertext, sealed.header)


def is_sealed(data: bytes) -> bool:
    """Whether what is stored is an encrypted image, readable or not."""
    return _parsed(data) is not None


def _header(key: str) -> bytes:
    name = key.encode()
    return _MAGIC + len(name).to_bytes(_LENGTH_BYTES, "big") + name


def _parsed(data: bytes) -> _Sealed | None:
    """The parts of a sealed image, ``None`` if it is not sealed."""
    if not data.startswith(_MAGIC):
        return None
    begin = len(_MAGIC) + _LENGTH_BYTES
    end = begin + int.from_bytes(data[len(_MAGIC) : begin], "big")
    return _Sealed(data[begin:end].decode(errors="replace"), data[:end], data[end:])
