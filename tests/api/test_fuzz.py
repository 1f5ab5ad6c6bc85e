"""Schemathesis over the OpenAPI document: what is sent may be anything, what is answered is as documented.

With every check but one: a request that the schema allows may be refused, for no schema can say that
a text is a picture with a face, or that a moment lies in the future.

``FUZZ_EXAMPLES=300 pytest tests/api/test_fuzz.py`` sends so many requests to each operation, and from 20 on also the
thousand that Schemathesis derives from the document. ``FUZZ_SEED=<number>`` repeats what a failure's output names.
"""

import asyncio
import os
import secrets
import sys
from pathlib import Path

import pytest

from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.domain.access import Scope
from facescreen.services.keys import KeyService
from tests.api.test_blacklist import enroll
from tests.painted import GREEN, RED, inline, photo
from tests.painted_server import HANGING, server_process

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbits(31))
IS_LONG = EXAMPLES >= 20
NOT_OURS = "positive_data_acceptance,ensure_resource_availability"
"""Not all that fits the schema can be done, and a collection that was just made has no calibration to be deleted."""
NOBODY_COUNTS = {"rate_limit_per_key": "", "rate_limit_per_address": "", "rate_limit_failures": ""}


async def fuzz(url: str, folder: Path, *options: str) -> None:
    print(f"FUZZ_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        "run",
        f"{url}/openapi.json",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--checks=all",
        "--continue-on-failure",
        "--suppress-health-check=all",
        "--generation-database=none",
        "--warnings=off",
        "--no-color",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    try:
        async with asyncio.timeout(HANGING + 60 * EXAMPLES):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, told.decode(errors="replace")


async def test_whoever_is_on_this_machine(settings: Settings, tmp_path: Path) -> None:
    async with server_process(settings.model_copy(update=NOBODY_COUNTS)) as server:
        await enroll(server.client, "Ada", photo(RED))
        await server.client.post("/process/process-images", json={"images": [inline(photo(RED, GREEN))]})
        await fuzz(
            server.url,
            tmp_path,
            f"--exclude-checks=ignored_auth,{NOT_OURS}",
            *(() if IS_LONG else ("--phases=examples,fuzzing,stateful",)),
        )
        assert (await server.client.get("/")).is_success


@pytest.mark.parametrize("header", ["X-API-Key: {}", *(["Authorization: Bearer {}"] if IS_LONG else [])])
async def test_whoever_has_a_key(settings: Settings, tmp_path: Path, header: str) -> None:
    async with server_process(settings.model_copy(update=NOBODY_COUNTS)) as server:
        database = Database(settings.database_url)
        key = await KeyService(database).create(frozenset(Scope))
        await database.aclose()
        server.client.headers["X-API-Key"] = key.text
        await enroll(server.client, "Ada", photo(RED))
        await fuzz(
            server.url,
            tmp_path,
            f"--header={header.format(key.text)}",
            "--generation-with-security-parameters=false",
            f"--exclude-checks={NOT_OURS}",
            *(() if IS_LONG else ("--phases=fuzzing",)),
        )
        assert (await server.client.get("/")).is_success
