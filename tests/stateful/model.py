"""What the service should know: a list, results and files in a folder, without any of the service's code."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.painted import Colour


@dataclass
class Photo:
    """A reference photo; ``id`` and ``path`` are ``None`` until the service says them."""

    colour: Colour
    id: int | None = None
    path: str | None = None
    is_dropped: bool = False


@dataclass
class Entry:
    """Somebody on the list, who has a folder as soon as there is a photo."""

    name: str
    reason: str
    photos: list[Photo]
    id: int | None = None
    folder: str | None = None

    def has(self, colour: Colour, *, is_dropped: bool) -> bool:
        """Whether there is the very photo; an upload is stored as another file than what was dropped."""
        return any((photo.colour, photo.is_dropped) == (colour, is_dropped) for photo in self.photos)


@dataclass
class Face:
    """A face of a result: whom it matches, and whether it was cleared of being that."""

    is_cleared: dict[int, bool]
    verdict: str = ""

    def judge(self) -> None:
        if not all(self.is_cleared.values()):
            self.verdict = "match"
        elif self.verdict != "withdrawn":
            self.verdict = "clear"

    def withdraw(self, entry_id: int) -> None:
        if self.is_cleared.pop(entry_id, True) is False:
            self.verdict = "withdrawn"
            self.judge()


@dataclass
class Model:
    """All there is.

    Attributes:
        results: by id, ``None`` for one whose id nobody was told.
        dropped: colours of the files that lie in the blacklist folder and were not enrolled.
        missing: files of photos that somebody removed from there.
    """

    entries: list[Entry] = field(default_factory=list)
    results: dict[int | None, list[Face]] = field(default_factory=dict)
    dropped: dict[str, Colour] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def photos(self) -> Iterator[tuple[Entry, Photo]]:
        return ((entry, photo) for entry in self.entries for photo in entry.photos)

    def matched(self, colour: Colour) -> Face:
        """The face of this colour, nearest photo first, which is the oldest where all are the same."""
        theirs = sorted((photo.id or 0, entry.id or 0) for entry, photo in self.photos() if photo.colour == colour)
        face = Face({entry_id: False for _, entry_id in theirs})
        face.judge()
        return face

    def delete(self, entry: Entry) -> None:
        self.entries.remove(entry)
        for face in (face for faces in self.results.values() for face in faces):
            face.withdraw(entry.id or 0)
        self.missing -= {photo.path for photo in entry.photos if photo.path}

    def forget_folder(self, folder: str | None) -> None:
        """What was dropped there is gone."""
        self.dropped = {path: colour for path, colour in self.dropped.items() if _folder(path) != folder}

    def files(self) -> set[str]:
        """Whatever lies in the blacklist folder."""
        return {photo.path for _, photo in self.photos() if photo.path} - self.missing | set(self.dropped)

    @property
    def is_suspicious(self) -> bool:
        """The folder is empty and the list is not, which is taken for a missing mount."""
        return bool(self.missing) and not self.files()

    def synchronise(self) -> tuple[set[str], set[str], set[str], int]:
        """Added, withdrawn, skipped, and how many photos stayed."""
        before = sum(1 for _ in self.photos())
        withdrawn = set(self.missing)
        for entry, photo in list(self.photos()):
            if photo.path in self.missing:
                entry.photos.remove(photo)
                if not entry.photos and entry.folder not in {_folder(path) for path in self.files()}:
                    self.delete(entry)
        self.missing = set()
        added = set()
        for path, colour in sorted(self.dropped.items()):
            folder = _folder(path)
            there = next((entry for entry in self.entries if entry.folder == folder), None)
            if there is not None and there.has(colour, is_dropped=True):
                continue
            if there is None:
                there = Entry(folder, "", [], folder=folder)
                self.entries.append(there)
            there.photos.append(Photo(colour, path=path, is_dropped=True))
            del self.dropped[path]
            added.add(path)
        return added, withdrawn, set(self.dropped), before - len(withdrawn)

    def outline(self) -> Any:
        """What can be compared with :func:`outline_of_list` and of results though ids are not known yet."""
        entries = [(entry.name, entry.reason, len(entry.photos)) for entry in self.entries]
        results = [[(face.verdict, face.is_cleared) for face in faces] for faces in self.results.values()]
        return entries, results

    def learn(self, records: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]] = ()) -> None:
        """Take over the ids that are not known yet, which have to be those of what is new."""
        for entry, record in zip(self.entries, records, strict=True):
            entry.id = entry.id or record["id"]
            assert entry.id == record["id"]
            assert [photo.id or image["id"] for photo, image in zip(entry.photos, record["images"], strict=True)] == [
                image["id"] for image in record["images"]
            ]
            for photo, image in zip(entry.photos, record["images"], strict=True):
                photo.id, path = image["id"], image["identity"].removeprefix("blacklist_db/")
                assert photo.path in {None, path}
                photo.path, entry.folder = path, _folder(path)
        if None in self.results:
            self.results[results[-1]["id"]] = self.results.pop(None)


def outline_of_list(records: Iterable[Mapping[str, Any]]) -> Any:
    """Of each entry, in order, what it is."""
    return [(record["name"], record["reason"], len(record["images"])) for record in records]


def outline_of_results(results: Iterable[Mapping[str, Any]]) -> Any:
    """Of each result, in order, what it says."""
    return [faces_of(result) for result in results]


def faces_of(result: Mapping[str, Any]) -> list[tuple[str, dict[int, bool]]]:
    """Verdict and matches of each face."""
    return [
        (face["verdict"], {match["entry_id"]: match["clearance"] is not None for match in face["blacklist_matches"]})
        for face in result["faces"]
    ]


def _folder(path: str) -> str:
    return path.partition("/")[0]
