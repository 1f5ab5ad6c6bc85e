"""Faces that a reviewer said are not somebody on the list: what that does, what ends it, and what is left of it."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import httpx
import pytest

from facescreen.backends.base import Probe
from facescreen.config import ModelName, Settings
from facescreen.db import blacklist, screenings
from facescreen.db.connection import Database
from facescreen.domain.faces import Vectors
from facescreen.factory import Services
from facescreen.images.sources import SourceImage
from facescreen.services.thresholds import ScreeningOptions
from tests.api.test_blacklist import enroll, files, upload
from tests.api.test_process import process
from tests.api.test_processed_images import ids
from tests.at_rest import check_disk
from tests.conftest import serving
from tests.painted import GREEN, RED, PaintedBackend, inline, photo
from tests.painted_server import HANGING
from tests.services.test_moved_photos import move

EVE, EVE_AGAIN = RED, (225, 25, 20)
BROTHER, BROTHER_AGAIN = (230, 60, 20), (230, 65, 20)
"""All four are within the match threshold of each other, and each pair is nearer to itself."""


async def screen(client: httpx.AsyncClient, *colours: tuple[int, int, int], **options: object) -> dict[str, Any]:
    (result,) = await process(client, inline(photo(*colours)), **options)
    return result


async def clear(
    client: httpx.AsyncClient, result: dict[str, Any], entry: dict[str, Any], *, face: int = 0, note: str = ""
) -> dict[str, Any]:
    body = {"entry_id": entry["id"], "note": note}
    response = await client.post(f"/processed-images/{result['id']}/faces/{face}/clear", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def undo(client: httpx.AsyncClient, result: dict[str, Any], entry: dict[str, Any]) -> httpx.Response:
    url = f"/processed-images/{result['id']}/faces/0/clear"
    return await client.delete(url, params={"entry_id": entry["id"]})


async def again(client: httpx.AsyncClient, result: dict[str, Any]) -> dict[str, Any]:
    """The result as it is stored now."""
    answer: dict[str, Any] = (await client.get(f"/processed-images/{result['id']}")).json()
    return answer


def verdicts(result: dict[str, Any]) -> list[str]:
    return [face["verdict"] for face in result["faces"]]


def clearances(result: dict[str, Any]) -> list[dict[str, Any] | None]:
    """What each match carries."""
    return [match["clearance"] for face in result["faces"] for match in face["blacklist_matches"]]


def kept(settings: Settings) -> list[tuple[int, bytes | None]]:
    """Every clearance in the database, with its embedding."""
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        return database.execute("SELECT id, vector FROM clearances ORDER BY id").fetchall()


def is_anywhere(settings: Settings, vector: bytes) -> bool:
    """Whether the embedding is in any file of the service's data."""
    folders = (
        Database(settings.database_url).path.parent,
        settings.blacklist_db_path,
        settings.processed_images_output_dir,
    )
    return any(vector in path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


async def test_a_cleared_match_stays_visible_and_does_not_count(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, GREEN, BROTHER)
    assert verdicts(result) == ["clear", "match"]
    cleared = await clear(client, result, eve, face=1, note="  brother, checked at the gate ")
    assert verdicts(cleared) == ["clear", "clear"]
    (clearance,) = clearances(cleared)
    assert clearance is not None
    assert {**clearance, "created_at": ""} == {
        "processed_image_id": result["id"],
        "face_index": 1,
        "note": "brother, checked at the gate",
        "created_at": "",
        "expired_at": None,
    }
    (match,), (before,) = (each["faces"][1]["blacklist_matches"] for each in (cleared, result))
    assert match == {**before, "clearance": clearance}
    assert await again(client, result) == cleared


async def test_the_filters_follow(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    assert await ids(client, verdict="match") == await ids(client, matched_only="true") == [result["id"]]
    await clear(client, result, eve)
    assert await ids(client, verdict="match") == await ids(client, matched_only="true") == []
    assert await ids(client, verdict="clear") == await ids(client, entry=eve["id"]) == [result["id"]]
    await undo(client, result, eve)
    assert await ids(client, verdict="match") == await ids(client, matched_only="true") == [result["id"]]


async def test_later_screenings_do_not_alert_for_the_pair_and_do_for_the_person(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    cleared = await clear(client, await screen(client, BROTHER), eve)
    later = await screen(client, BROTHER_AGAIN, EVE_AGAIN)
    assert verdicts(later) == ["clear", "match"]
    assert clearances(later) == [*clearances(cleared), None]
    assert await again(client, later) == later
    assert verdicts(await screen(client, EVE)) == ["match"]


async def test_a_clearance_is_of_one_entry(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    twin = await enroll(client, "Twin", photo(EVE_AGAIN))
    await client.post("/collections/", json={"name": "staff"})
    response = await client.post(
        "/blacklist/", data={"name": "Eve"}, files=upload(photo(EVE)), params={"collection": "staff"}
    )
    assert response.status_code == 201
    result = await screen(client, BROTHER)
    cleared = await clear(client, result, eve)
    assert verdicts(cleared) == ["match"]
    assert [match["entry_id"] for match in cleared["faces"][0]["blacklist_matches"] if not match["clearance"]] == [
        twin["id"]
    ]
    assert verdicts(await screen(client, BROTHER)) == ["match"]
    assert verdicts(await clear(client, result, twin)) == ["clear"]
    assert verdicts(await screen(client, BROTHER)) == ["clear"]
    assert clearances(await screen(client, BROTHER, collection="staff")) == [None]


async def test_what_remains_may_be_possible_or_not_screenable(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    other = await enroll(client, "Other", photo((230, 110, 20)))
    result = await screen(client, BROTHER, threshold=0.03, review_threshold=0.2)
    assert verdicts(result) == ["match"]
    assert verdicts(await clear(client, result, eve)) == ["possible"]
    assert verdicts(await clear(client, result, other)) == ["clear"]
    (tiny,) = await process(client, inline(photo(EVE_AGAIN, side=9)), threshold=0.03)
    assert verdicts(tiny) == ["match"]
    assert verdicts(await clear(client, tiny, eve)) == ["not_screenable"]


async def test_every_match_of_the_person_is_cleared_where_all_references_were_asked_for(
    client: httpx.AsyncClient,
) -> None:
    eve = await enroll(client, "Eve", photo(EVE), photo(EVE_AGAIN))
    url = "/process/process-images?all_references=true"
    (result,) = (await client.post(url, json={"images": [inline(photo(BROTHER))]})).json()
    assert clearances(result) == [None, None]
    cleared = await clear(client, result, eve)
    assert verdicts(cleared) == ["clear"]
    assert None not in clearances(cleared)
    assert clearances((await undo(client, result, eve)).json()) == [None, None]


async def test_another_model_knows_the_clearance_while_its_picture_is_kept(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    other_model = {"model_name": "Dlib", "threshold": 0.05}
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    assert verdicts(await screen(client, BROTHER, **other_model)) == ["clear"]
    assert verdicts(await screen(client, BROTHER)) == ["clear"], "embedding a photo for a model is no change of it"
    await undo(client, result, eve)
    assert verdicts(await screen(client, BROTHER, **other_model)) == ["match"]
    await clear(client, result, eve)
    for picture in files(settings.processed_images_output_dir):
        (settings.processed_images_output_dir / picture).unlink()
    seen = await screen(client, BROTHER, **other_model)
    assert verdicts(seen) == ["match"]
    assert verdicts(await screen(client, BROTHER)) == ["clear"]
    await clear(client, seen, eve)
    assert verdicts(await screen(client, BROTHER, **other_model)) == ["clear"]


async def test_clearing_twice_is_the_same_clearance(client: httpx.AsyncClient, settings: Settings) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    (first,) = clearances(await clear(client, result, eve, note="brother"))
    (second,) = clearances(await clear(client, result, eve, note="twin brother"))
    assert first is not None
    assert second == {**first, "note": "twin brother"}
    assert len(kept(settings)) == 1


async def test_undoing_gives_every_result_its_match_back(client: httpx.AsyncClient, settings: Settings) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    later = [await screen(client, BROTHER_AGAIN) for _ in range(3)]
    response = await undo(client, later[1], eve)
    assert response.status_code == 200
    assert response.json() == await again(client, later[1])
    for each in (result, *later):
        now = await again(client, each)
        assert (verdicts(now), clearances(now)) == (["match"], [None])
    assert await again(client, result) == result
    assert kept(settings) == []
    assert verdicts(await screen(client, BROTHER)) == ["match"]
    repeated = await undo(client, result, eve)
    assert (repeated.status_code, repeated.json()["code"]) == (404, "clearance_not_found")


async def test_a_face_that_was_judged_with_a_clearance_may_get_its_own(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    later = await clear(client, await screen(client, BROTHER_AGAIN), eve, note="seen again")
    assert [clearance and clearance["processed_image_id"] for clearance in clearances(later)] == [later["id"]]
    await undo(client, result, eve)
    assert verdicts(await again(client, result)) == ["match"]
    assert verdicts(await again(client, later)) == ["clear"]


async def add_photo(services: Services, client: httpx.AsyncClient, entry: dict[str, Any]) -> None:
    response = await client.post(f"/blacklist/{entry['id']}/images", files=upload(photo((230, 20, 25))))
    assert response.status_code == 200


async def delete_photo(services: Services, client: httpx.AsyncClient, entry: dict[str, Any]) -> None:
    last = entry["images"][-1]["id"]
    assert (await client.delete(f"/blacklist/{entry['id']}/images/{last}")).status_code == 200


async def lose_photo(services: Services, client: httpx.AsyncClient, entry: dict[str, Any]) -> None:
    """Somebody removes a photo from the blacklist folder."""
    folder, _, name = entry["images"][-1]["identity"].removeprefix("blacklist_db/").partition("/")
    (services.settings.blacklist_db_path / folder / name).unlink()
    assert len((await services.sync.sync()).withdrawn) == 1


CHANGES = (add_photo, delete_photo, lose_photo)


@pytest.mark.parametrize("change", CHANGES)
async def test_it_holds_until_the_references_change(
    client: httpx.AsyncClient, services: Services, settings: Settings, change: Any
) -> None:
    eve = await enroll(client, "Eve", photo(EVE), photo(EVE_AGAIN))
    result = await screen(client, BROTHER)
    await clear(client, result, eve, note="brother")
    later = await screen(client, BROTHER_AGAIN)
    ((_, vector),) = kept(settings)
    assert vector is not None
    assert is_anywhere(settings, vector)
    await change(services, client, eve)
    assert verdicts(await screen(client, BROTHER)) == ["match"]
    for each in (result, later):
        now = await again(client, each)
        assert verdicts(now) == ["clear"], "what was judged stays judged"
        assert all(clearance and clearance["expired_at"] for clearance in clearances(now))
    assert [vector for _, vector in kept(settings)] == [None]
    assert not is_anywhere(settings, vector)
    check_disk(settings)

    (expired,) = clearances(await again(client, result))
    (held,) = clearances(await clear(client, result, eve, note="brother"))
    assert expired is not None
    assert held == {**expired, "expired_at": None}
    assert verdicts(await screen(client, BROTHER)) == ["clear"]


async def test_changes_of_other_entries_and_of_words_do_not_end_it(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    await clear(client, await screen(client, BROTHER), eve)
    other = await enroll(client, "Other", photo(GREEN))
    await client.post(f"/blacklist/{other['id']}/images", files=upload(photo((20, 210, 20))))
    await client.put(f"/blacklist/{eve['id']}/", json={"reason": "banned"})
    assert verdicts(await screen(client, BROTHER)) == ["clear"]


async def test_an_expired_clearance_can_be_undone(client: httpx.AsyncClient, services: Services) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    await add_photo(services, client, eve)
    assert verdicts((await undo(client, result, eve)).json()) == ["match"]


async def test_nothing_of_the_embedding_is_left_after_it_was_undone(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    ((_, vector),) = kept(settings)
    assert vector is not None
    assert is_anywhere(settings, vector)
    await undo(client, result, eve)
    assert not is_anywhere(settings, vector)
    check_disk(settings)


async def test_it_ends_with_the_result_that_it_was_given_on(client: httpx.AsyncClient, settings: Settings) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    later = await screen(client, BROTHER_AGAIN)
    ((_, vector),) = kept(settings)
    assert vector is not None
    await client.delete(f"/processed-images/{result['id']}")
    assert not is_anywhere(settings, vector)
    (clearance,) = clearances(await again(client, later))
    assert clearance is not None
    assert clearance["processed_image_id"] is None
    assert clearance["expired_at"] is not None
    assert verdicts(await screen(client, BROTHER)) == ["match"]
    assert verdicts((await undo(client, later, eve)).json()) == ["match"]
    assert kept(settings) == []


async def test_what_no_result_shows_any_more_is_not_kept(client: httpx.AsyncClient, settings: Settings) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result, other = await screen(client, BROTHER), await screen(client, BROTHER)
    await clear(client, result, eve)
    await clear(client, other, eve)
    later = await screen(client, BROTHER_AGAIN)
    for each, left in ((later, 2), (other, 1), (result, 0)):
        assert (await client.delete(f"/processed-images/{each['id']}")).status_code == 204
        assert len(kept(settings)) == left
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    later = await screen(client, BROTHER_AGAIN)
    await client.delete(f"/processed-images/{result['id']}")
    assert [vector for _, vector in kept(settings)] == [None]
    await clear(client, later, eve)
    assert None not in [vector for _, vector in kept(settings)]
    check_disk(settings)


async def test_deleting_the_entry_takes_its_clearances_along(client: httpx.AsyncClient, settings: Settings) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    twin = await enroll(client, "Twin", photo(EVE_AGAIN))
    both, alone = await screen(client, BROTHER), await screen(client, BROTHER)
    await clear(client, both, eve)
    await clear(client, alone, eve)
    await clear(client, alone, twin)
    ((_, vector), *_) = kept(settings)
    assert vector is not None
    assert (await client.delete(f"/blacklist/{eve['id']}/")).status_code == 200
    assert verdicts(await again(client, both)) == ["match"]
    assert verdicts(await again(client, alone)) == ["clear"], "nothing that counted was withdrawn"
    assert len(kept(settings)) == 1
    assert (await client.delete(f"/blacklist/{twin['id']}/")).status_code == 200
    now = await again(client, both)
    assert (verdicts(now), clearances(now)) == (["withdrawn"], [])
    assert verdicts(await again(client, alone)) == ["clear"]
    assert kept(settings) == []
    assert not is_anywhere(settings, vector)
    check_disk(settings)


async def test_a_photo_that_becomes_somebody_elses_counts_again(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE), photo((230, 110, 20)))
    result = await screen(client, BROTHER)
    await clear(client, result, eve)
    by_the_other_photo = await screen(client, (230, 80, 20))
    (late,) = await services.screening.screen([SourceImage(photo(BROTHER), "late")], ScreeningOptions())
    assert late.faces[0].matches[0].clearance is not None
    other = await move(services, eve["id"], "Other")
    now = await again(client, result)
    assert (verdicts(now), clearances(now)) == (["match"], [None])
    assert now["faces"][0]["blacklist_matches"][0]["entry_id"] == other
    assert verdicts(await again(client, by_the_other_photo)) == ["clear"]
    async with services.database.write() as connection:
        stored = await screenings.insert_screening(connection, late)
    assert [(face.verdict, face.matches[0].clearance) for face in stored.faces] == [("match", None)]
    assert [vector for _, vector in kept(settings)] == [None]
    assert (await client.delete(f"/blacklist/{eve['id']}/")).status_code == 200
    assert kept(settings) == []
    assert verdicts(await clear(client, result, {"id": other})) == ["clear"]


async def test_an_alert_is_not_lost_where_two_entries_become_one(
    client: httpx.AsyncClient, services: Services, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    twin = await enroll(client, "Twin", photo((225, 15, 20)))
    result = await screen(client, BROTHER)
    nearest = result["faces"][0]["blacklist_matches"][0]["entry_id"]
    assert nearest == eve["id"]
    await clear(client, result, eve)
    async with services.database.write() as connection:
        await blacklist.move_images(connection, [twin["images"][0]["id"]], eve["id"])
    now = await again(client, result)
    assert (verdicts(now), clearances(now)) == (["match"], [None])
    assert kept(settings) == []


async def test_what_is_not_there_is_refused(client: httpx.AsyncClient, settings: Settings) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER, GREEN)
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"result": 99}, 404, "result_not_found"),
        ({"face": 2}, 404, "face_not_found"),
        ({"face": 1}, 404, "match_not_found"),
        ({"entry_id": 99}, 404, "match_not_found"),
        ({"face": -1}, 422, "invalid_request"),
        ({"entry_id": 0}, 422, "invalid_request"),
        ({"entry_id": "eve"}, 422, "invalid_request"),
    ]
    for wrong, status, code in refused:
        asked = {"result": result["id"], "face": 0, "entry_id": eve["id"], **wrong}
        url = f"/processed-images/{asked['result']}/faces/{asked['face']}/clear"
        for response in (
            await client.post(url, json={"entry_id": asked["entry_id"]}),
            await client.delete(url, params={"entry_id": asked["entry_id"]}),
        ):
            assert (response.status_code, response.json()["code"]) == (status, code), wrong
    assert kept(settings) == []


async def test_a_note_has_at_most_2000_characters(client: httpx.AsyncClient) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    assert verdicts(await clear(client, result, eve, note="x" * 2000)) == ["clear"]
    body = {"entry_id": eve["id"], "note": "x" * 2001}
    response = await client.post(f"/processed-images/{result['id']}/faces/0/clear", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("is_damaged", [True, False])
async def test_a_face_whose_picture_is_gone_cannot_be_cleared(
    client: httpx.AsyncClient, settings: Settings, is_damaged: bool
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    (copy,) = files(settings.processed_images_output_dir)
    copy.write_bytes(copy.read_bytes()[:100]) if is_damaged else copy.unlink()
    response = await client.post(f"/processed-images/{result['id']}/faces/0/clear", json={"entry_id": eve["id"]})
    assert (response.status_code, response.json()["code"]) == (409, "picture_gone")
    assert verdicts(await again(client, result)) == ["match"]


async def test_a_result_of_an_outside_service_has_no_embedding_to_clear_by(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    with closing(sqlite3.connect(Database(settings.database_url).path)) as database:
        database.execute("UPDATE screenings SET model_name = 'rekognition-7.0'")
        database.commit()
    response = await client.post(f"/processed-images/{result['id']}/faces/0/clear", json={"entry_id": eve["id"]})
    assert (response.status_code, response.json()["code"]) == (422, "option_not_available")


class WaitingBackend(PaintedBackend):
    """Embeds once :attr:`go` is set, and sets :attr:`began` before."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def embed(self, probes: Sequence[Probe], model: ModelName) -> Vectors:
        vectors = await super().embed(probes, model)
        self.began.set()
        await self.go.wait()
        return vectors


async def withdraw_photo(client: httpx.AsyncClient, result: dict[str, Any], entry: dict[str, Any]) -> None:
    await client.delete(f"/blacklist/{entry['id']}/images/{entry['images'][-1]['id']}")


async def delete_entry(client: httpx.AsyncClient, result: dict[str, Any], entry: dict[str, Any]) -> None:
    await client.delete(f"/blacklist/{entry['id']}/")


async def delete_result(client: httpx.AsyncClient, result: dict[str, Any], entry: dict[str, Any]) -> None:
    await client.delete(f"/processed-images/{result['id']}")


OVERTAKEN = [
    (withdraw_photo, 409, "entry_changed"),
    (delete_entry, 404, "match_not_found"),
    (delete_result, 404, "result_not_found"),
]


@pytest.mark.parametrize(("change", "status", "code"), OVERTAKEN)
async def test_a_clearing_that_is_overtaken_does_nothing(
    settings: Settings, change: Any, status: int, code: str
) -> None:
    backend = WaitingBackend()
    async with asyncio.timeout(HANGING), serving(settings, backend) as client:
        eve = await enroll(client, "Eve", photo(EVE), photo(EVE_AGAIN))
        result = await screen(client, BROTHER)
        backend.began.clear()
        backend.go.clear()
        url = f"/processed-images/{result['id']}/faces/0/clear"
        clearing = asyncio.create_task(client.post(url, json={"entry_id": eve["id"]}))
        await backend.began.wait()
        await change(client, result, eve)
        backend.go.set()
        response = await clearing
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert kept(settings) == []
    check_disk(settings)


async def test_two_reviewers_at_once_give_one_clearance_and_undo_it_once(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    eve = await enroll(client, "Eve", photo(EVE))
    result = await screen(client, BROTHER)
    answers = await asyncio.gather(*(clear(client, result, eve, note=str(number)) for number in range(4)))
    assert len(kept(settings)) == 1
    assert {verdict for answer in answers for verdict in verdicts(answer)} == {"clear"}
    undone = await asyncio.gather(*(undo(client, result, eve) for _ in range(4)))
    assert sorted(response.status_code for response in undone) == [200, 404, 404, 404]
    assert verdicts(await again(client, result)) == ["match"]
    check_disk(settings)
