"""The audit trail: what is recorded of what was done, and the chain that its records form."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypedDict

from facescreen.errors import NotFoundError

DONE = "done"
"""Outcome of what was done; of what was not, it is the stable code of the error."""

_HASH = ',"hash":"'


class Action(StrEnum):
    """What was done, or attempted."""

    ENTRY_CREATE = "entry.create"
    ENTRY_UPDATE = "entry.update"
    ENTRY_DELETE = "entry.delete"
    IMAGE_ADD = "image.add"
    IMAGE_MOVE = "image.move"
    """Photos became another entry's, one that was made for them perhaps."""
    IMAGE_DELETE = "image.delete"
    SYNC = "sync"
    """The blacklist folder; each change of it has an event of its own."""
    DETECT = "detect"
    COMPARE = "compare"
    SEARCH = "search"
    """A search that keeps no result."""
    SCREENING = "screening"
    RESULT_DELETE = "result.delete"
    CLEAR = "clear"
    UNCLEAR = "unclear"
    COLLECTION_CREATE = "collection.create"
    COLLECTION_DELETE = "collection.delete"
    """With every entry in it; these have no events of their own."""
    CALIBRATION_CREATE = "calibration.create"
    CALIBRATION_DELETE = "calibration.delete"
    REINDEX = "reindex"
    KEY_CREATE = "key.create"
    KEY_ROTATE = "key.rotate"
    """The subject is the old key and the new one."""
    KEY_REVOKE = "key.revoke"
    RETENTION = "retention"
    BACKUP = "backup"
    """The subject is its digest."""
    RESTORE = "restore"
    """The subject is the backup's digest, and the last event of the trail that it replaced, if there was one."""
    AUDIT_FIX = "audit.fix"
    """What did not fit was repaired; changes of the list have events of their own."""
    ENCRYPTION_APPLY = "encryption.apply"
    ENCRYPTION_ROTATE = "encryption.rotate"
    AUDIT_EXPORT = "audit.export"
    AUDIT_CUT = "audit.cut"
    """The oldest events were removed; the subject is the id of the first that is kept."""
    DENIED = "denied"
    """The key does not allow the operation, which is the subject."""


class Details(TypedDict, total=False):
    """What is known of an action, in ids: never a name, a note, a path, or anything of a face.

    Attributes:
        outcome: :data:`DONE`, which it is if nothing else is given, or the stable code of the error.
        entry_ids: what was changed, or whom a face resembles.
        list_version: of the collection, as it was searched or as it is after the change.
        subject: public id of what has no member of its own, such as an API key.
    """

    outcome: str
    collection_id: int | None
    entry_ids: Collection[int]
    result_ids: Collection[int]
    list_version: int | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what, and when.

    Attributes:
        actor: as in :data:`facescreen.acting.actor`.
        request_id: of the HTTP request, ``None`` outside of one.
    """

    at: datetime
    actor: str
    request_id: str | None
    action: Action
    details: Details


@dataclass(frozen=True, slots=True)
class Link:
    """An event in its place.

    Attributes:
        id: consecutive, from 1 on.
        text: the event with its id and the hash of the link before, as canonical JSON.
        hash: SHA-256 of the text, in hexadecimal.
    """

    id: int
    text: str
    hash: str

    @property
    def line(self) -> str:
        """The link as one JSON object, the text with the hash as its last member."""
        return f'{self.text[:-1]}{_HASH}{self.hash}"}}'

    @classmethod
    def of(cls, event: Event, *, id: int, previous: str) -> "Link":  # noqa: A002 - the column's name
        """The link of an event after the one with this hash."""
        details = event.details
        members = {
            "id": id,
            "at": stamp(event.at),
            "actor": event.actor,
            "request_id": event.request_id,
            "action": event.action,
            "outcome": details.get("outcome", DONE),
            "collection_id": details.get("collection_id"),
            "entry_ids": sorted(set(details.get("entry_ids", ()))),
            "result_ids": sorted(set(details.get("result_ids", ()))),
            "list_version": details.get("list_version"),
            "subject": details.get("subject"),
            "previous": previous,
        }
        text = json.dumps(members, separators=(",", ":"))
        return cls(id, text, _digest(text))

    @classmethod
    def of_line(cls, line: str) -> "Link":
        """What :attr:`line` says; of a line that says nothing of the kind, a link that fits nowhere."""
        text, _, end = line.rstrip("\n").rpartition(_HASH)
        id_ = _members(f"{text}}}").get("id")
        return cls(id_ if type(id_) is int else 0, f"{text}}}", end.removesuffix('"}'))


@dataclass(frozen=True, slots=True)
class Head:
    """A place in the chain; whoever notes it elsewhere can tell later whether what leads there is the same."""

    id: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What is known of a chain.

    Attributes:
        count: links that fit, from the first one on.
        last: the last of them; the place before the first one, if none fits.
        misfit: the first id that does not fit, ``None`` if all do; 0 if that is where an export begins, with no id.
    """

    count: int
    last: Head
    misfit: int | None

    @property
    def first_id(self) -> int:
        """Of the links that fit."""
        return self.last.id - self.count + 1


class Chain:
    """Follows links as long as each is unharmed and in its place.

    Args:
        before: the place before the first link, ``None`` to begin wherever the first link does.
        expected: a place that was noted elsewhere.
    """

    def __init__(self, before: Head | None, expected: Head | None = None) -> None:
        self._begin = self._head = before
        self._expected = expected
        self._count = 0
        self._misfit: int | None = None
        self._cut_at = "1"

    def follow(self, link: Link) -> bool:
        """Whether the link fits; nothing fits after one that does not."""
        members = _members(link.text)
        before = self._head or Head(link.id - 1, str(members.get("previous")))
        self._begin = self._begin or before
        if not self._fits(link, members, before):
            self._misfit = link.id if 0 < link.id <= before.id else before.id + 1
            return False
        if members.get("action") == Action.AUDIT_CUT:
            self._cut_at = str(members.get("subject"))
        self._head = Head(link.id, link.hash)
        self._count += 1
        return True

    def verification(self, end: Head | None = None) -> Verification:
        """What is known once every link was followed.

        Args:
            end: where the chain ends, ``None`` if that is not known, nor whether it begins where it was cut.

        Raises:
            NotFoundError: the expected place is before what was followed.
        """
        begin, last = self._begin or Head(0, ""), self._head or Head(0, "")
        misfit = self._misfit
        if misfit is None and end is not None:
            if str(begin.id + 1) != self._cut_at:
                misfit = begin.id + 1
            elif last != end:
                misfit = min(last.id, end.id) + (last.id != end.id)
        if misfit is None and self._expected is not None:
            if self._expected.id < begin.id:
                raise NotFoundError(f"event {self._expected.id} is not kept any more")
            if self._expected.id > last.id or (self._expected.id == begin.id and self._expected != begin):
                misfit = min(self._expected.id, last.id + 1)
        return Verification(self._count, last, misfit)

    def _fits(self, link: Link, members: Mapping[str, Any], before: Head) -> bool:
        if link.hash != _digest(link.text) or link.id != before.id + 1:
            return False
        if (members.get("id"), members.get("previous")) != (link.id, before.hash):
            return False
        return self._expected is None or self._expected.id != link.id or self._expected.hash == link.hash


def stamp(moment: datetime) -> str:
    """The moment as events have it; the order of stamps is that of moments."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _members(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
