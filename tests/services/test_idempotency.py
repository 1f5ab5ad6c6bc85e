"""What becomes of a request with a key that ends at an unlucky moment; the rest is in ``tests/api``."""

from sqlalchemy import event
from sqlalchemy.pool import Pool

from facescreen.errors import DeadlineExceededError
from facescreen.factory import Services
from facescreen.lifeline import Lifeline
from facescreen.services.idempotency import KeyedRequest, Outcome


async def test_a_request_that_ends_while_its_answer_is_kept_is_answered(services: Services) -> None:
    lifeline = Lifeline()

    def end(*_: object) -> None:
        lifeline.end(DeadlineExceededError("late"))

    async def work() -> Outcome:
        event.listen(Pool, "checkout", end)
        return Outcome(b"done", is_final=True)

    request = KeyedRequest(actor="somebody", operation="POST /", key="a" * 16, payload=b"")
    try:
        with lifeline.holding():
            first = await services.idempotency.answered(request, work)
    finally:
        event.remove(Pool, "checkout", end)
    assert (first.answer, first.is_replayed) == (b"done", False)
    again = await services.idempotency.answered(request, work)
    assert (again.answer, again.is_replayed) == (b"done", True)
