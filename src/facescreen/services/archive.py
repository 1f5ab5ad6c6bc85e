"""The file of a backup: a tar archive whose end says of every byte before it whether it is what was written.

Any program that reads tar can open it. It holds ``database.db``, images as ``blacklist/<name>`` and
``processed/<name>``, ``manifest.json``, and last ``SHA256``, of everything before.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from facescreen.db.files import FileName, StoreName
from facescreen.errors import BackupError
from facescreen.images.store import name_parts

Progress = Callable[[int, int], None]
"""Told how much is done of how much."""

FORMAT = 1
"""Of the archive; what reads it refuses any other."""

DATABASE = "database.db"
_MANIFEST = "manifest.json"
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_STORES = (StoreName.BLACKLIST, StoreName.PROCESSED)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive; its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup.

    Attributes:
        version: of facescreen.
        schema: revision of the database's tables.
        missing: images that the database names and that were not there.
        not_included: what the data refer to and no backup holds.
    """

    version: str
    schema: str
    created_at: datetime
    missing: Sequence[str]
    not_included: Sequence[str]
    members: Sequence[Member] = ()
    format: int = FORMAT

    @property
    def images(self) -> Mapping[FileName, Member]:
        """The images by where they belong."""
        return {_file_name(member.name): member for member in self.members if member.name != DATABASE}


@contextmanager
def translated(failure: str) -> Iterator[None]:
    """Raise :class:`BackupError`, with what failed, where the block meets an error of a file or folder."""
    try:
        yield
    except OSError as error:
        raise BackupError(f"{failure}: {error.strerror}") from error


def created(path: Path) -> BinaryIO:
    """A new file for this user alone, to be written and read."""
    return open(path, "xb+", opener=lambda name, flags: os.open(name, flags, mode=0o600))


def member_name(file: FileName) -> str:
    """What an image is called in the archive."""
    return f"{file.store}/{file.name}"


class ArchiveWriter:
    """Writes a new archive.

    Args:
        file: empty, to be read and written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: dict[str, tuple[Member, int, int]] = {}
        self._erased = 0

    @property
    def names(self) -> set[str]:
        """What is in it."""
        return set(self._members)

    def add(self, name: str, data: bytes) -> None:
        """Add a file."""
        begin = self._file.tell()
        self._file.write(_header(name, len(data)))
        self._file.write(data)
        self._end(Member(name, len(data), sha256(data).hexdigest()), begin)

    def add_file(self, name: str, path: Path) -> None:
        """Add a file that need not fit into memory."""
        begin, digest, size = self._file.tell(), sha256(), path.stat().st_size
        self._file.write(_header(name, size))
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                self._file.write(chunk)
        self._end(Member(name, size, digest.hexdigest()), begin)

    def erase(self, name: str) -> None:
        """Overwrite a file that was added, its name too."""
        _, begin, end = self._members.pop(name)
        self._erased += 1
        here = self._file.tell()
        self._file.seek(begin)
        self._file.write(_header(f"erased/{self._erased}", end - begin - _BLOCK))
        for start in range(begin + _BLOCK, end, _CHUNK):
            self._file.write(bytes(min(_CHUNK, end - start)))
        self._file.seek(here)

    def finish(self, manifest: Manifest) -> str:
        """Write how it ends, so that it is on the disk when this returns; the digest of everything before the end."""
        manifest = replace(manifest, members=[member for member, _, _ in self._members.values()])
        document = json.dumps(asdict(manifest), default=datetime.isoformat, indent=1, ensure_ascii=False)
        self.add(_MANIFEST, document.encode())
        self._file.seek(0)
        digest = sha256()
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
        self._file.write(_end(digest.hexdigest()))
        self._file.flush()
        os.fsync(self._file.fileno())
        return digest.hexdigest()

    def _end(self, member: Member, begin: int) -> None:
        self._file.write(bytes(-member.size % _BLOCK))
        self._members[member.name] = member, begin, self._file.tell()


class ArchiveReader:
    """Reads an archive that is whole; made by :func:`opened`.

    Attributes:
        digest: of everything before the end, as :meth:`ArchiveWriter.finish` returned it.
    """

    def __init__(self, archive: tarfile.TarFile, manifest: Manifest, digest: str) -> None:
        self._archive = archive
        self.manifest = manifest
        self.digest = digest

    def pieces(self, member: Member) -> Iterator[bytes]:
        """The contents of a file; they end with :class:`BackupError` unless they are what the manifest says."""
        with _reading():
            info = self._archive.getmember(member.name)
            source = self._archive.extractfile(info) if info.type == tarfile.REGTYPE and not info.issparse() else None
            if source is None or info.size != member.size:
                raise _not_whole()
            digest = sha256()
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                yield chunk
            if digest.hexdigest() != member.sha256:
                raise _not_whole()


@contextmanager
def opened(path: Path, progress: Progress) -> Iterator[ArchiveReader]:
    """An archive whose every byte is what was written.

    Raises:
        BackupError: it is torn, was edited, is of a newer format, or is no backup at all.
    """
    with ExitStack() as stack:
        with _reading():
            file = stack.enter_context(path.open("rb"))
            digest = _verify(file, progress)
            file.seek(0)
            archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
            document = archive.extractfile(_MANIFEST)
            if document is None:
                raise _not_whole()
            manifest = _manifest(document.read())
        yield ArchiveReader(archive, manifest, digest)


def _verify(file: BinaryIO, progress: Progress) -> str:
    total = os.fstat(file.fileno()).st_size
    end, digest = total - len(_end("")), sha256()
    while (at := file.tell()) < end:
        progress(at, total)
        digest.update(file.read(min(_CHUNK, end - at)))
    if file.read() != _end(digest.hexdigest()):
        raise _not_whole()
    progress(total, total)
    return digest.hexdigest()


def _manifest(document: bytes) -> Manifest:
    if json.loads(document).get("format") != FORMAT:
        raise BackupError("the backup is of another format than this version of facescreen reads")
    manifest = TypeAdapter(Manifest).validate_json(document)
    names = [member.name for member in manifest.members]
    if names.count(DATABASE) != 1 or len(names) != len(set(names)):
        raise _not_whole()
    for name in names:
        if name != DATABASE:
            _file_name(name)
    return manifest


def _file_name(name: str) -> FileName:
    """Where an image belongs; a name that leads anywhere else is refused."""
    store, _, rest = name.partition("/")
    name_parts(rest)
    if store not in _STORES:
        raise ValueError("not an image of a store")
    return FileName(StoreName(store), rest)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.PAX_FORMAT)


def _end(digest: str) -> bytes:
    """What follows everything that the digest is of: the digest as a file, and how a tar archive ends."""
    return _header("SHA256", 64) + digest.encode().ljust(_BLOCK, b"\0") + bytes(2 * _BLOCK)


@contextmanager
def _reading() -> Iterator[None]:
    with translated("the backup cannot be read"):
        try:
            yield
        except (tarfile.TarError, KeyError, ValidationError, ValueError, RecursionError, EOFError) as error:
            raise _not_whole() from error


def _not_whole() -> BackupError:
    return BackupError("the file is no backup of facescreen, or it is torn or was edited")
