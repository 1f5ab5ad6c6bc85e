"""Damaged pictures of every accepted format are pictures or documented errors, and kill nobody.

``MUTATIONS=10000 pytest tests/images/test_mutations.py`` damages so many; ``MUTATION_SEED=<text>`` repeats what a
failure's output names.
"""

import asyncio
import os
import resource
import secrets
import subprocess
import sys
from random import Random

import psutil
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from facescreen.config import Settings
from facescreen.images.decode import decode
from tests.api.test_crafted import detect, enroll, process
from tests.images import mutations
from tests.painted_server import HANGING, server_process

COUNT = int(os.environ.get("MUTATIONS", "300"))
SEED = os.environ.get("MUTATION_SEED") or secrets.token_hex(4)
SHARE_OVER_HTTP = 10
"""One of so many is sent to the service as well."""

MOST_ADDRESSES = 4 << 30
"""Bytes of address space that the decoding process may have."""


def test_what_is_damaged_was_whole() -> None:
    for data in mutations.seeds():
        assert decode(data, max_pixels=mutations.MAX_PIXELS).shape == (48, 48, 3)


@bounded(deadline=None, max_examples=100)
@given(random=st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_damage_is_a_picture_or_a_documented_error(random: Random) -> None:
    mutations.check(mutations.mutated(random))


def test_no_damage_kills_the_process() -> None:
    print(f"MUTATION_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    done = subprocess.run(
        [sys.executable, "-m", "tests.images.mutations", SEED, "0", str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGING + COUNT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES)),
    )
    last = done.stdout.rpartition("\n")[0].rpartition("\n")[2]
    assert done.returncode == 0, f"mutation {last} of seed {SEED}: {done.stderr}"
    assert last == str(COUNT - 1)


async def test_damage_over_http(settings: Settings) -> None:
    print(f"MUTATION_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    async with server_process(settings.model_copy(update={"max_image_pixels": mutations.MAX_PIXELS})) as server:
        worker = psutil.Process(server.pid)
        for number in range(0, COUNT, SHARE_OVER_HTTP):
            data = mutations.of_number(SEED, number)
            answers = await asyncio.gather(*(ask(server.client, data) for ask in (detect, process, enroll)))
            assert all(answer.status_code < 500 for answer in answers), f"mutation {number} of seed {SEED}"
        assert worker.is_running()
