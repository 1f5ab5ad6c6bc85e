"""A caller whose server dies sends its request again, with its idempotency key: nothing is done twice."""

import os
from functools import partial

import httpx

from facescreen.config import Settings
from tests.api.test_idempotency import entries, post
from tests.at_rest import check_disk
from tests.crash.mortal import HEADER, Mortal
from tests.painted import RED, photo
from tests.painted_server import server_process

STRIDE = 1 if int(os.environ.get("CRASH_ROUNDS", "8")) >= 100 else 4


async def test_killed_at_any_step_and_sent_again_it_is_done_once(settings: Settings) -> None:
    known: set[int] = set()
    answered, steps, unknown = False, 0, 0
    while not answered:
        key = f"k{steps}"
        async with server_process(settings, around=partial(Mortal, steps=None)) as server:
            try:
                first = await post(server.client, key, photo(RED), **{HEADER: str(steps)})
                answered = first.status_code == 201
            except httpx.HTTPError:
                answered = False
        async with server_process(settings) as server:
            again = await post(server.client, key, photo(RED))
            found = set(await entries(server.client)) - known
            assert len(found) == 1, (steps, again.text)
            if again.status_code == 201:
                assert found == {again.json()["id"]}
            else:
                assert again.json()["code"] == "idempotency_outcome_unknown"
                unknown += 1
            known |= found
        check_disk(settings)
        steps += STRIDE
    assert unknown or STRIDE > 1
