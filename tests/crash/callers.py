"""Callers of a service that may die at any moment, and what they know of it."""

import asyncio
import hashlib
import io
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar

import httpx
from PIL import Image

from facescreen.domain.blacklist import DEFAULT_COLLECTION
from tests.api.test_blacklist import upload
from tests.painted import Colour, inline, photo

PEOPLE, PHOTOS, RESULTS = 2, 3, 4
"""What a caller keeps about at most, so that every round can look at everything."""

WITHDRAWN = "(withdrawn)"
EXACT = {"distance_metric": "euclidean", "threshold": 0.001, "review_threshold": 0.001}
"""Only the very colour matches."""

Faces = tuple[str | None, ...]
"""For each face of a picture who it is: a name, nobody on the list, or somebody who was withdrawn; or who it is not."""

Details = tuple[str, frozenset[Colour]]
"""The reason of an entry, and the colours of its photos."""

State = Details | Faces | int

Action = Callable[["Caller", httpx.AsyncClient], Awaitable[None]]


@dataclass(frozen=True)
class Person:
    """An entry, and the ids of its photos by their colour."""

    id: int
    reason: str
    photos: Mapping[Colour, int]

    @classmethod
    def of(cls, record: Mapping[str, Any], colours: Iterable[Colour]) -> "Person":
        ids = (image["id"] for image in record["images"])
        return cls(record["id"], record["reason"], dict(zip(colours, ids, strict=True)))

    @property
    def state(self) -> Details:
        return self.reason, frozenset(self.photos)


@dataclass(frozen=True)
class Result:
    """A stored result."""

    id: int
    state: Faces

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> "Result":
        assert result["error"] is None
        return cls(result["id"], tuple(map(_who, result["faces"])))


def _who(face: Mapping[str, Any]) -> str | None:
    names = [match["name"] for match in face["blacklist_matches"] if match["clearance"] is None]
    cleared = [_not(match["name"]) for match in face["blacklist_matches"] if match["clearance"] is not None]
    assert len(names) == (face["verdict"] == "match"), face
    return (names or cleared or [{"clear": None, "withdrawn": WITHDRAWN}[face["verdict"]]])[0]


def _not(name: str) -> str:
    """What a face is that was cleared of being this person."""
    return f"not {name}"


@dataclass(frozen=True)
class List:
    """A collection of its own; its state is how many photos it has."""

    state: int


T = TypeVar("T", Person, Result, List)


@dataclass
class Ledger(Generic[T]):
    """What a caller was told, by name, and what its unanswered request would make of it; ``None``: a deletion."""

    known: dict[str, T] = field(default_factory=dict)
    attempted: dict[str, State | None] = field(default_factory=dict)

    def settle(self, there: Mapping[str, T]) -> None:
        """What is there must be what was acknowledged, or that with the attempt done; then that is known."""
        names = self.known.keys() | self.attempted.keys()
        done = set()
        for name in names:
            was, is_ = (found[name].state if name in found else None for found in (self.known, there))
            assert is_ in (was, self.attempted.get(name, was)), f"{name}: {was} -> {is_}, {self.attempted=}"
            if name in self.attempted:
                done.add(is_ == self.attempted[name])
        assert len(done) <= 1, f"half of {self.attempted} was done"
        self.known = {name: there[name] for name in names if name in there}
        self.attempted = {}


class Caller:
    """Does one thing after another, to entries, results and collections of its own only.

    Args:
        folder: the blacklist folder.

    Attributes:
        touched: colours of the photos that came or went, or were to, since somebody cleared it.
    """

    def __init__(self, label: str, seed: str, colours: Iterator[Colour], *, folder: Path) -> None:
        self.people: Ledger[Person] = Ledger()
        self.results: Ledger[Result] = Ledger()
        self.lists: Ledger[List] = Ledger()
        self.touched: set[Colour] = set()
        self._listed: dict[str, Colour] = {}
        self._pictured: dict[str, Sequence[Colour]] = {}
        self._folder = folder
        self._names = (f"{label}{number}" for number in count())
        self._random = Random(seed)  # noqa: S311 - can be repeated
        self._colours = colours

    @property
    def gone(self) -> set[Colour]:
        """What was touched and is not there. A cleared face is, even if the photo that it matched is not."""
        listed = {self._listed[name] for name, found in self.lists.known.items() if found.state}
        cleared = {self._pictured[name][index] for name, index, _ in self.faces(is_cleared=True)}
        return self.touched.difference(listed, cleared, *(person.photos for person in self.people.known.values()))

    async def work(self, client: httpx.AsyncClient, over: asyncio.Event) -> None:
        """Until it is over or the server is gone."""
        while not over.is_set() and await self.attempt(self._next(), client):
            pass

    async def attempt(self, action: Action, client: httpx.AsyncClient) -> bool:
        """Whether there was an answer; if not, the ledgers keep what was attempted."""
        try:
            await action(self, client)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            return False
        for ledger in (self.people, self.results, self.lists):
            ledger.attempted = {}
        return True

    def _next(self) -> Action:
        match self._random.choice(["person", "photo", "result", "review", "list"]):
            case "person":
                add = self._random.choice([Caller.add_person, Caller.drop_person])
                change = self._random.choice([Caller.delete_person, Caller.update_person])
                return add if len(self.people.known) < PEOPLE else change
            case "list":
                sizes = tuple(found.state for found in self.lists.known.values())
                return {(): Caller.create_list, (0,): Caller.fill_list, (1,): Caller.delete_list}[sizes]
            case "review" if self.faces(is_cleared=False) or self.faces(is_cleared=True):
                return Caller.clear if self.faces(is_cleared=False) else Caller.restore
            case "photo" if self.people.known:
                photos = max(len(person.photos) for person in self.people.known.values())
                return Caller.add_photos if photos < PHOTOS else Caller.delete_photo
            case _:
                return Caller.screen if len(self.results.known) < RESULTS else Caller.delete_result

    async def add_person(self, client: httpx.AsyncClient) -> None:
        name, colours = next(self._names), self._some_colours()
        self.people.attempted = {name: ("", frozenset(colours))}
        response = await client.post("/blacklist/", data={"name": name}, files=upload(*map(photo, colours)))
        self.people.known[name] = Person.of(_answer(response, 201), colours)

    async def add_photos(self, client: httpx.AsyncClient) -> None:
        name, person = min(self.people.known.items(), key=lambda item: len(item[1].photos))
        colours = self._some_colours()
        self.people.attempted = {name: (person.reason, frozenset([*person.photos, *colours]))}
        response = await client.post(f"/blacklist/{person.id}/images", files=upload(*map(photo, colours)))
        self.people.known[name] = Person.of(_answer(response, 200)["record"], [*person.photos, *colours])

    async def delete_photo(self, client: httpx.AsyncClient) -> None:
        name, person = max(self.people.known.items(), key=lambda item: len(item[1].photos))
        colour, photo_id = self._random.choice(list(person.photos.items()))
        self.touched.add(colour)
        self.people.attempted = {name: (person.reason, frozenset(person.photos) - {colour})}
        response = await client.delete(f"/blacklist/{person.id}/images/{photo_id}")
        self.people.known[name] = Person.of(_answer(response, 200), [c for c in person.photos if c != colour])

    async def delete_person(self, client: httpx.AsyncClient) -> None:
        name, person = self._random.choice(list(self.people.known.items()))
        self.touched.update(person.photos)
        self.people.attempted = {name: None}
        _answer(await client.delete(f"/blacklist/{person.id}/"), 200)
        del self.people.known[name]

    async def update_person(self, client: httpx.AsyncClient) -> None:
        name, person = self._random.choice(list(self.people.known.items()))
        reason = f"reason of {next(self._names)}"
        self.people.attempted = {name: (reason, frozenset(person.photos))}
        response = await client.put(f"/blacklist/{person.id}/", json={"reason": reason})
        self.people.known[name] = Person.of(_answer(response, 200), person.photos)

    async def drop_person(self, client: httpx.AsyncClient) -> None:
        """Put a photo into the blacklist folder by hand, and have it enrolled."""
        name, colour = next(self._names), next(self._colours)
        self.touched.add(colour)
        self.people.attempted = {name: ("", frozenset([colour]))}
        path = self._folder / name / "dropped.png"
        path.parent.mkdir(parents=True)
        path.with_suffix(".part").write_bytes(photo(colour))
        path.with_suffix(".part").rename(path)
        _answer(await client.post("/blacklist/sync"), 200)
        (record,) = _answer(await client.get("/blacklist/", params={"q": name, "limit": 1}), 200)
        self.people.known[name] = Person.of(record, [colour])

    async def create_list(self, client: httpx.AsyncClient) -> None:
        name = next(self._names)
        self.lists.attempted = {name: 0}
        _answer(await client.post("/collections/", json={"name": name}), 201)
        self.lists.known[name] = List(0)

    async def fill_list(self, client: httpx.AsyncClient) -> None:
        name, colour = next(iter(self.lists.known)), next(self._colours)
        self._listed[name] = colour
        self.touched.add(colour)
        self.lists.attempted = {name: 1}
        within, files = {"collection": name}, upload(photo(colour))
        _answer(await client.post("/blacklist/", params=within, data={"name": "(listed)"}, files=files), 201)
        self.lists.known[name] = List(1)

    async def delete_list(self, client: httpx.AsyncClient) -> None:
        name = next(iter(self.lists.known))
        if name in self._listed:
            self.touched.add(self._listed[name])
        self.lists.attempted = {name: None}
        _answer(await client.delete(f"/collections/{name}/"), 204)
        del self.lists.known[name]

    async def screen(self, client: httpx.AsyncClient) -> None:
        owners = {colour: name for name, person in self.people.known.items() for colour in person.photos}
        attempted: dict[str, State | None] = {}
        pictures = []
        for _ in range(self._random.randint(1, 2)):
            # The stranger makes the picture, and with it its identifier, the only one of its kind.
            colours = [*self._random.sample(list(owners), min(2, len(owners))), next(self._colours)]
            pictures.append(photo(*colours))
            name = f"sha256:{hashlib.sha256(pictures[-1]).hexdigest()[:16]}"
            attempted[name] = tuple(map(owners.get, colours))
            self._pictured[name] = colours
        self.results.attempted = attempted
        answered = await _screen(client, *pictures)
        assert [result["image_path_or_identifier"] for result in answered] == list(attempted)
        results = list(map(Result.of, answered))
        assert [result.state for result in results] == list(attempted.values())
        self.results.known.update(zip(attempted, results, strict=True))

    async def delete_result(self, client: httpx.AsyncClient) -> None:
        name, result = self._random.choice(list(self.results.known.items()))
        self.results.attempted = {name: None}
        _answer(await client.delete(f"/processed-images/{result.id}"), 204)
        del self.results.known[name]

    async def clear(self, client: httpx.AsyncClient) -> None:
        name, index, who = self._random.choice(self.faces(is_cleared=False))
        result = self._reviewed(name, index, _not(who))
        body = {"entry_id": self.people.known[who].id}
        response = await client.post(f"/processed-images/{result.id}/faces/{index}/clear", json=body)
        assert Result.of(_answer(response, 200)) == result
        self.results.known[name] = result

    async def restore(self, client: httpx.AsyncClient) -> None:
        """Take back that a face was cleared."""
        name, index, who = self._random.choice(self.faces(is_cleared=True))
        result = self._reviewed(name, index, who)
        query = {"entry_id": self.people.known[who].id}
        response = await client.delete(f"/processed-images/{result.id}/faces/{index}/clear", params=query)
        assert Result.of(_answer(response, 200)) == result
        self.results.known[name] = result

    def faces(self, *, is_cleared: bool) -> list[tuple[str, int, str]]:
        """The result, number and person of every face that is, or was cleared of being, somebody on the list."""
        return [
            (name, index, who)
            for name, result in self.results.known.items()
            for index, face in enumerate(result.state)
            for who in self.people.known
            if face == (_not(who) if is_cleared else who)
        ]

    def _reviewed(self, name: str, index: int, face: str) -> Result:
        """The result once the face is somebody else, which is attempted now."""
        result = self.results.known[name]
        before = self._without_withdrawn(result.state)
        state = (*before[:index], face, *before[index + 1 :])
        self.results.attempted = {name: state}
        return Result(result.id, state)

    def _some_colours(self) -> list[Colour]:
        colours = [next(self._colours) for _ in range(self._random.randint(1, 2))]
        self.touched.update(colours)
        return colours

    def settle(self, people: Mapping[str, Person], results: Mapping[str, Result], lists: Mapping[str, List]) -> None:
        self.people.settle(people)
        self.lists.settle(lists)
        # Who was withdrawn after a screening is so in its result.
        for name, result in self.results.known.items():
            self.results.known[name] = Result(result.id, self._without_withdrawn(result.state))
        self.results.settle(results)

    def _without_withdrawn(self, faces: Faces) -> Faces:
        """What they are now, of whom some may have been withdrawn since."""

        def now(who: str | None) -> str | None:
            if who is None or who in self.people.known or who.removeprefix(_not("")) in self.people.known:
                return who
            return None if who.startswith(_not("")) else WITHDRAWN

        return tuple(map(now, faces))


def _answer(response: httpx.Response, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json() if response.content else None


async def _screen(client: httpx.AsyncClient, *pictures: bytes) -> Sequence[dict[str, Any]]:
    body = {"images": [inline(picture) for picture in pictures], **EXACT}
    results: list[dict[str, Any]] = _answer(await client.post("/process/process-images", json=body), 200)
    return results


def all_colours() -> Iterator[Colour]:
    """Each is a face to the painted backend, and a photo of its own even once it is a JPEG."""
    return ((r, g, b) for g, b, r in product(range(0, 90, 3), range(0, 90, 3), range(200, 256, 3)))


async def check_answers(client: httpx.AsyncClient, callers: Sequence[Caller], files: Mapping[str, bytes]) -> None:
    """Every entry, photo, result and picture that should be there answers, is found by a screening, and no other is."""
    records = _answer(await client.get("/blacklist/"), 200)
    stored = _answer(await client.get("/processed-images/", params={"limit": 1000}), 200)["items"]
    kept = {colour for caller in callers for person in caller.people.known.values() for colour in person.photos}
    colours = sorted(kept.union(*(caller.touched for caller in callers)))
    found: dict[str, Colour] = {}
    if colours:
        (result,) = await _screen(client, photo(*colours, side=32))
        for colour, face in zip(colours, result["faces"], strict=True):
            found.update({match["identity"]: colour for match in face["blacklist_matches"]})
        _answer(await client.delete(f"/processed-images/{result['id']}"), 204)
    listed = [item for item in _answer(await client.get("/collections/"), 200) if item["name"] != DEFAULT_COLLECTION]
    images = [(record["id"], image) for record in records for image in record["images"]]
    assert sorted(found) == sorted(image["identity"] for _, image in images)

    people = {r["name"]: Person.of(r, [found[image["identity"]] for image in r["images"]]) for r in records}
    results = {item["image_path_or_identifier"]: Result.of(item) for item in stored}
    lists = {item["name"]: List(item["reference_images"]) for item in listed}
    for caller in callers:
        caller.settle(people, results, lists)
    assert people.keys() == {name for caller in callers for name in caller.people.known}
    assert results.keys() == {name for caller in callers for name in caller.results.known}
    assert lists.keys() == {name for caller in callers for name in caller.lists.known}

    for entry_id, image in images:
        response = await client.get(f"/blacklist/{entry_id}/images/{image['id']}")
        assert response.content == files[image["identity"]]
    for item in stored:
        response = await client.get(f"/processed-images/{item['id']}/image")
        Image.open(io.BytesIO(response.content)).load()
