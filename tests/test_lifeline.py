"""What stops work that nobody waits for, and what it leaves alone."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from typing import Any

import pytest

from facescreen.aws import AwsAccess, AwsClient
from facescreen.errors import FacescreenError
from facescreen.images.fetch import Fetcher
from facescreen.images.sources import ImageSources
from facescreen.lifeline import Lifeline, require_wanted, to_the_end, uninterrupted
from facescreen.pool import WorkPool, together


class StoppedError(Exception):
    """Why the work is stopped."""


async def hang() -> None:
    await asyncio.Event().wait()


async def held(work: Callable[[Lifeline], Coroutine[Any, Any, str]]) -> str:
    """Result of work on a lifeline, after which the task can go on as if nothing had been."""
    lifeline = Lifeline()
    try:
        with lifeline.holding():
            return await work(lifeline)
    except StoppedError:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(0)
        raise


async def test_work_that_waits_is_stopped_with_the_first_reason() -> None:
    async def work(lifeline: Lifeline) -> str:
        asyncio.get_running_loop().call_soon(lifeline.end, StoppedError("first"))
        asyncio.get_running_loop().call_soon(lifeline.end, StoppedError("second"))
        await hang()
        return "done"

    with pytest.raises(StoppedError, match="first"):
        await held(work)


async def test_children_are_stopped_too() -> None:
    ended = []

    async def child() -> None:
        try:
            await hang()
        finally:
            ended.append(1)

    async def work(lifeline: Lifeline) -> str:
        asyncio.get_running_loop().call_later(0, lifeline.end, StoppedError())
        await asyncio.gather(together([child(), child()]), child())
        return "done"

    with pytest.raises(StoppedError):
        await held(work)
    assert len(ended) == 3


async def test_work_stops_itself() -> None:
    async def work(lifeline: Lifeline) -> str:
        await lifeline.stop(StoppedError())

    with pytest.raises(StoppedError):
        await held(work)


async def test_work_stops_itself_though_a_section_kept_it_from_being_stopped_before() -> None:
    async def work(lifeline: Lifeline) -> str:
        with uninterrupted():
            lifeline.end(StoppedError("first"))
        await lifeline.stop(StoppedError("second"))

    async with asyncio.timeout(10):
        with pytest.raises(StoppedError, match="first"):
            await held(work)


async def test_a_section_is_finished_and_what_was_done_is_answered() -> None:
    async def work(lifeline: Lifeline) -> str:
        with uninterrupted():
            lifeline.end(StoppedError())
            await asyncio.sleep(0)
            require_wanted()
        await asyncio.sleep(0)
        return "done"

    assert await held(work) == "done"


async def test_a_section_of_a_child_protects_everybody() -> None:
    async def child(lifeline: Lifeline) -> None:
        with uninterrupted():
            lifeline.end(StoppedError())
            await asyncio.sleep(0)

    async def work(lifeline: Lifeline) -> str:
        await together([child(lifeline)])
        return "done"

    assert await held(work) == "done"


async def test_nothing_more_is_computed_after_a_section_in_which_the_request_ended() -> None:
    ran: list[str] = []

    async def work(lifeline: Lifeline) -> str:
        with closing(WorkPool(threads=1)) as pool:
            with uninterrupted():
                lifeline.end(StoppedError())
                await pool.run(ran.append, "half done without it")
            await together([pool.run(ran.append, "too late")])
        return "done"

    with pytest.raises(StoppedError):
        await held(work)
    assert ran == ["half done without it"]


async def read_image() -> None:
    fetcher = Fetcher(timeout_seconds=1, max_bytes=1, allowed_hosts=())
    await ImageSources(roots=(), fetcher=fetcher, max_bytes=1).read("http://127.0.0.1/image.png")


async def call_outside() -> None:
    nowhere = AwsAccess("us-east-1", {"s3": "http://127.0.0.1:9"}, 1, 1, 1)
    await AwsClient("s3", nowhere).call("list_buckets")


@pytest.mark.parametrize("step", [read_image, call_outside])
async def test_nobody_is_asked_after_a_section_in_which_the_request_ended(
    step: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def work(lifeline: Lifeline) -> str:
        with uninterrupted():
            lifeline.end(StoppedError())
            with suppress(FacescreenError):
                await step()  # half done without it
        await step()
        return "done"

    with pytest.raises(StoppedError):
        await held(work)


async def test_a_child_that_has_not_heard_of_the_end_begins_no_section() -> None:
    begun = []

    async def child() -> None:
        with uninterrupted():
            begun.append(1)

    async def work(lifeline: Lifeline) -> str:
        asyncio.create_task(child()).add_done_callback(ended.set_result)
        await lifeline.stop(StoppedError())

    ended = asyncio.get_running_loop().create_future()
    with pytest.raises(StoppedError):
        await held(work)
    assert (await ended).cancelled()
    assert not begun


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    started = asyncio.Event()

    async def work(_lifeline: Lifeline) -> str:
        started.set()
        await hang()
        return "done"

    task = asyncio.create_task(held(work))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.shield(task)


async def test_what_others_build_on_goes_on() -> None:
    finished = asyncio.Event()
    gate = asyncio.Event()

    async def shared(pool: WorkPool) -> None:
        await gate.wait()
        await pool.run(lambda: None)
        finished.set()

    async def work(lifeline: Lifeline) -> str:
        asyncio.get_running_loop().call_later(0, lifeline.end, StoppedError())
        await to_the_end(shared(pool))
        return "done"

    with closing(WorkPool(threads=1)) as pool:
        with pytest.raises(StoppedError):
            await held(work)
        gate.set()
        await finished.wait()


async def test_queued_work_of_a_stopped_request_never_begins() -> None:
    ran: list[int] = []
    busy = threading.Event()

    async def work(lifeline: Lifeline) -> str:
        asyncio.get_running_loop().call_later(0, lifeline.end, StoppedError())
        await together(pool.run(ran.append, number) for number in range(5))
        return "done"

    with closing(WorkPool(threads=1)) as pool:
        other = asyncio.create_task(pool.run(busy.wait))
        await asyncio.sleep(0)
        with pytest.raises(StoppedError):
            await held(work)
        busy.set()
        await other
        await pool.run(lambda: None)
    assert not ran
