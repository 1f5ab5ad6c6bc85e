"""Anything in any order: every answer is what a small model says.

``MACHINE_RUNS=600 MACHINE_STEPS=100 pytest tests/stateful`` is the long form, ``MACHINE_SEED=<number>`` repeats what a
failure's output names. Most runs are on the application in this process, some on a server that is killed: between two
requests, or at any step of one.
"""

import asyncio
import copy
import os
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import httpx
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, seed, strategies
from hypothesis import settings as limits
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.main import create_app
from tests.api.test_blacklist import upload
from tests.at_rest import check_disk
from tests.crash.callers import EXACT
from tests.crash.mortal import HEADER, Mortal
from tests.painted import Colour, PaintedBackend, inline, photo
from tests.painted_server import HANGING, ServerProcess
from tests.stateful.model import Entry, Face, Model, Photo, faces_of, outline_of_list, outline_of_results

RUNS = int(os.environ.get("MACHINE_RUNS", "6"))
STEPS = int(os.environ.get("MACHINE_STEPS", "100" if RUNS >= 100 else "25"))
SEED = int(os.environ.get("MACHINE_SEED") or secrets.randbits(32))
LOOK_EVERY = 10
"""Steps after which everything is looked at, not the list alone."""

COLOURS: tuple[Colour, ...] = tuple((200 + 10 * n, 15 * n, 90 - 15 * n) for n in range(6))
NAMES = ("Ada", "Eve", "Zoë")

NOTHING = 10**6
"""No entry, photo or result has this id."""

_IMMORTAL = str(10**9)
T = TypeVar("T")

_pick = strategies.integers(0, 99)
_colour = strategies.sampled_from(COLOURS)
_name = strategies.sampled_from(NAMES)


class Request(NamedTuple):
    """What is asked, with what httpx takes."""

    method: str
    path: str
    options: Mapping[str, Any] = MappingProxyType({})


class Match(NamedTuple):
    """A face of a result, and an entry that it matches."""

    result: int | None
    face_index: int
    entry_id: int

    @property
    def path(self) -> str:
        return f"/processed-images/{self.result}/faces/{self.face_index}/clear"

    def face(self, model: Model) -> Face:
        return model.results[self.result][self.face_index]

    def review(self, model: Model, *, is_cleared: bool) -> None:
        self.face(model).is_cleared[self.entry_id] = is_cleared
        self.face(model).judge()


class Machine(RuleBasedStateMachine):
    """The service beside its model."""

    data: ClassVar[Path]
    template: ClassVar[Path]
    settings: ClassVar[Settings]
    runner: ClassVar[asyncio.Runner]
    app: ClassVar[FastAPI]
    steps: ClassVar[int] = 0
    crashes: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.numbers = iter(range(10**6))
        self.service: InProcess | Killable | None = None
        self.since = 0
        self.version = 0

    @initialize(kind=strategies.sampled_from(["in process"] * 9 + ["killable"]))
    def begin(self, kind: str) -> None:
        for folder in (self.settings.blacklist_db_path, self.settings.processed_images_output_dir, self.data):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, self.data)
        self.service = InProcess(self.app) if kind == "in process" else Killable(self.settings)
        self.run(self.service.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(work, HANGING))

    def expect(self, status: int, request: Request, headers: Mapping[str, str] | None = None) -> Any:
        assert self.service is not None
        call = self.service.client.request(request.method, request.path, headers=headers, **request.options)
        response = self.run(call)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    def refuse(self, status: int, code: str, request: Request) -> None:
        assert self.expect(status, request)["code"] == code

    def change(self, status: int, change: Callable[[Model], object], dies: int | None, request: Request) -> Any:
        """Do it to both. Where the service dies of it, after so many steps, the model learns whether it was done.

        What is asked of :data:`NOTHING` is refused.

        Args:
            status: of the answer.
        """
        if str(NOTHING) in request.path:
            assert self.expect(404, request)["code"].endswith("_not_found")
            return None
        before, after = self.model, copy.deepcopy(self.model)
        change(after)
        may_die = dies is not None and not before.is_suspicious and not after.is_suspicious
        try:
            answer = self.expect(status, request, {HEADER: str(dies)} if may_die else None)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            assert may_die
            Machine.crashes += 1
            self.restarted(before, after)
            return None
        self.model = after
        return answer

    def restarted(self, *possible: Model) -> None:
        """The service starts again, which brings its list in line with the folder; the model is one of these then."""
        assert self.service is not None
        self.run(self.service.restart())
        records, results = self.lists()
        for model in possible:
            model.synchronise()
        found = outline_of_list(records), outline_of_results(results)
        matching = [model for model in possible if model.outline() == found]
        assert matching, (found, [model.outline() for model in possible])
        self.model = matching[0]
        self.model.learn(records, results)
        self.look()
        if not self.model.dropped:
            check_disk(self.settings)

    def lists(self) -> tuple[list[Any], list[Any]]:
        """Entries, and results, oldest first."""
        results = self.expect(200, Request("GET", "/processed-images/", {"params": {"limit": 1000}}))["items"]
        return self.expect(200, Request("GET", "/blacklist/")), results[::-1]

    def look(self) -> None:
        """Every result is there, a search for every colour finds whom it should, and every file is there."""
        _, results = self.lists()
        assert [result["id"] for result in results] == list(self.model.results)
        assert outline_of_results(results) == self.model.outline()[1]
        faces = [self.model.matched(colour) for colour in COLOURS]
        (result,) = self.expect(200, Request("POST", "/process/process-images", {"json": _screening(COLOURS)}))
        assert faces_of(result) == [(face.verdict, face.is_cleared) for face in faces]
        assert [list(ids) for _, ids in faces_of(result)] == [list(face.is_cleared) for face in faces]
        assert result["list_version"] >= self.version
        self.version = result["list_version"]
        self.expect(204, Request("DELETE", f"/processed-images/{result['id']}"))
        folder = self.settings.blacklist_db_path
        assert {path.relative_to(folder).as_posix() for path in folder.glob("*/*.*")} == self.model.files()

    @invariant()
    def is_the_model(self) -> None:
        Machine.steps += 1
        records = self.expect(200, Request("GET", "/blacklist/"))
        assert outline_of_list(records) == self.model.outline()[0]
        self.model.learn(records)
        self.since += 1
        if self.since % LOOK_EVERY == 0:
            self.look()

    def teardown(self) -> None:
        if self.service is None:
            return
        try:
            self.look()
            if not self.model.is_suspicious:
                self.restarted(self.model)
        finally:
            self.run(self.service.stop())

    # A kill may fall before or after a commit, so what there is to choose from is not the same when a run is repeated,
    # but what Hypothesis draws has to be. So no rule has a precondition about it, and there may be nothing to choose.

    def entry(self, pick: int) -> Entry:
        return _chosen(self.model.entries, pick) or Entry("", "", [], id=NOTHING)

    def photo(self, pick: int) -> tuple[Entry, Photo]:
        return _chosen(list(self.model.photos()), pick) or (self.entry(pick), Photo(COLOURS[0], id=NOTHING))

    def match(self, pick: int) -> Match:
        found = [
            Match(id_, index, entry_id)
            for id_, faces in self.model.results.items()
            for index, face in enumerate(faces)
            for entry_id in face.is_cleared
        ]
        return _chosen(found, pick) or Match(NOTHING, 0, NOTHING)

    _dies = strategies.none() | strategies.integers(0, 14)

    @rule(name=_name, colours=strategies.lists(_colour, min_size=1, max_size=3), dies=_dies)
    def add_entry(self, name: str, colours: list[Colour], dies: int | None) -> None:
        request = Request("POST", "/blacklist/", {"data": {"name": name}, "files": upload(*map(photo, colours))})
        if len(set(colours)) < len(colours):
            self.refuse(422, "enrollment_rejected", request)
            return
        self.change(201, lambda model: model.entries.append(Entry(name, "", list(map(Photo, colours)))), dies, request)

    @rule(pick=_pick, colour=_colour, dies=_dies)
    def add_image(self, pick: int, colour: Colour, dies: int | None) -> None:
        entry = self.entry(pick)
        request = Request("POST", f"/blacklist/{entry.id}/images", {"files": upload(photo(colour))})
        if entry.has(colour, is_dropped=False):
            assert self.expect(422, request)["errors"][0]["code"] == "duplicate_image"
            return
        self.change(200, lambda model: _same(model, entry).photos.append(Photo(colour)), dies, request)

    @rule(pick=_pick, name=_name, reason=strategies.sampled_from(["", "theft", "fraud"]), dies=_dies)
    def update(self, pick: int, name: str, reason: str, dies: int | None) -> None:
        entry = self.entry(pick)

        def change(model: Model) -> None:
            there = _same(model, entry)
            there.name, there.reason = name, reason

        self.change(
            200, change, dies, Request("PUT", f"/blacklist/{entry.id}/", {"json": {"name": name, "reason": reason}})
        )

    @rule(pick=_pick, dies=_dies)
    def delete_image(self, pick: int, dies: int | None) -> None:
        entry, gone = self.photo(pick)

        def change(model: Model) -> None:
            _same(model, entry).photos = [photo for photo in _same(model, entry).photos if photo.id != gone.id]
            model.missing.discard(gone.path or "")

        self.change(200, change, dies, Request("DELETE", f"/blacklist/{entry.id}/images/{gone.id}"))

    @rule(pick=_pick, dies=_dies)
    def delete_entry(self, pick: int, dies: int | None) -> None:
        entry = self.entry(pick)

        def change(model: Model) -> None:
            model.delete(_same(model, entry))
            model.forget_folder(entry.folder)

        self.change(200, change, dies, Request("DELETE", f"/blacklist/{entry.id}/"))

    @rule(colours=strategies.lists(_colour, max_size=3), dies=_dies)
    def screen(self, colours: list[Colour], dies: int | None) -> None:
        faces = [self.model.matched(colour) for colour in colours]
        names = {entry.id: entry.name for entry in self.model.entries}

        def change(model: Model) -> None:
            model.results[None] = copy.deepcopy(faces)

        answer = self.change(
            200, change, dies, Request("POST", "/process/process-images", {"json": _screening(colours)})
        )
        if answer is not None:
            (result,) = answer
            self.model.results[result["id"]] = self.model.results.pop(None)
            assert faces_of(result) == [(face.verdict, face.is_cleared) for face in faces]
            matches = [match for face in result["faces"] for match in face["blacklist_matches"]]
            assert all(names[match["entry_id"]] == match["name"] for match in matches)

    @rule(pick=_pick, dies=_dies)
    def delete_result(self, pick: int, dies: int | None) -> None:
        id_ = _chosen(list(self.model.results), pick) or NOTHING
        self.change(204, lambda model: model.results.pop(id_), dies, Request("DELETE", f"/processed-images/{id_}"))

    @rule(pick=_pick, dies=_dies)
    def clear(self, pick: int, dies: int | None) -> None:
        match = self.match(pick)
        request = Request("POST", match.path, {"json": {"entry_id": match.entry_id}})
        self.change(200, partial(match.review, is_cleared=True), dies, request)

    @rule(pick=_pick, dies=_dies)
    def restore(self, pick: int, dies: int | None) -> None:
        match = self.match(pick)
        request = Request("DELETE", match.path, {"params": {"entry_id": match.entry_id}})
        if match.result != NOTHING and not match.face(self.model).is_cleared[match.entry_id]:
            self.refuse(404, "clearance_not_found", request)
            return
        self.change(200, partial(match.review, is_cleared=False), dies, request)

    @rule(pick=_pick, colour=_colour, is_known=strategies.booleans())
    def drop_photo(self, pick: int, colour: Colour, is_known: bool) -> None:
        """By hand, into the folder of an entry or one of its own; nobody knows before it is synchronised."""
        folders = [entry.folder for entry in self.model.entries if entry.folder] if is_known else []
        folder = folders[pick % len(folders)] if folders else f"person_{pick % 3}"
        path = self.settings.blacklist_db_path / folder / f"{next(self.numbers)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(colour))
        self.model.dropped[f"{folder}/{path.name}"] = colour

    @rule(pick=_pick)
    def remove_photo(self, pick: int) -> None:
        """By hand."""
        name = _chosen(sorted(self.model.files()), pick)
        if name is None:
            return
        path = self.settings.blacklist_db_path / name
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        if self.model.dropped.pop(name, None) is None:
            self.model.missing.add(name)

    @rule(dies=_dies)
    def synchronise(self, dies: int | None) -> None:
        if self.model.is_suspicious:
            self.refuse(409, "blacklist_folder_empty", Request("POST", "/blacklist/sync"))
            return
        added, withdrawn, skipped, unchanged = copy.deepcopy(self.model).synchronise()
        report = self.change(200, Model.synchronise, dies, Request("POST", "/blacklist/sync"))
        if report is not None:
            assert {name.removeprefix("blacklist_db/") for name in report["added"]} == added
            assert {name.removeprefix("blacklist_db/") for name in report["withdrawn"]} == withdrawn
            assert {skip["file"].removeprefix("blacklist_db/") for skip in report["skipped"]} == skipped
            assert report["unchanged"] == unchanged

    @precondition(lambda self: self.since % 4 == 0)
    @rule()
    def restart(self) -> None:
        """In an orderly way in this process, by a kill elsewhere. It takes long, so it comes less often."""
        if not self.model.is_suspicious:
            self.restarted(self.model)


class InProcess:
    """The application in this process, started and stopped by one task, as its lifespan asks for."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1", trust_env=False)

    async def start(self) -> None:
        self._over, started = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._live(started, self._over))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not started.is_set():
            waiting.cancel()
            await self._task

    async def _live(self, started: asyncio.Event, over: asyncio.Event) -> None:
        async with self._app.router.lifespan_context(self._app):
            started.set()
            await over.wait()

    async def _end(self) -> None:
        self._over.set()
        await self._task

    async def restart(self) -> None:
        await self._end()
        await self.start()

    async def stop(self) -> None:
        await self._end()
        await self.client.aclose()


class Killable:
    """A server in a process of its own, which only ever ends by a kill."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def start(self) -> None:
        self._server = ServerProcess(self._settings, Mortal)
        await self._server.started()
        self.client = self._server.client
        self.client.headers[HEADER] = _IMMORTAL

    async def restart(self) -> None:
        await self._server.aclose()
        await self.start()

    async def stop(self) -> None:
        await self._server.aclose()


def _chosen(things: Sequence[T], pick: int) -> T | None:
    return things[pick % len(things)] if things else None


def _same(model: Model, entry: Entry) -> Entry:
    """The entry in another copy of the model."""
    return next(there for there in model.entries if there.id == entry.id)


def _screening(colours: Any) -> dict[str, Any]:
    return {"images": [inline(photo(*colours))], **EXACT}


def test_any_order_of_anything(settings: Settings, tmp_path: Path) -> None:
    print(f"MACHINE_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    Machine.settings = settings
    Machine.data = Database(settings.database_url).path.parent
    Machine.template = Path(shutil.copytree(Machine.data, tmp_path / "template"))
    Machine.app = create_app(Machine.settings, PaintedBackend())
    began = time.monotonic()
    with asyncio.Runner() as Machine.runner:
        run_state_machine_as_test(
            seed(SEED)(Machine),
            settings=limits(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    seconds = time.monotonic() - began
    print(f"{Machine.steps} steps, {Machine.crashes} crashes, {seconds:.0f} s, no difference")  # noqa: T201 - the figure
