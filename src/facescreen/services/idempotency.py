"""A request that is sent again with its idempotency key is done once, and answered as the first time.

An answer names people, so it is encrypted with what only the caller has: the idempotency key and the payload. Neither
is stored, so the database alone tells nobody what was asked or answered.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from facescreen import acting
from facescreen.acting import Claim
from facescreen.db import idempotency
from facescreen.db.connection import Database
from facescreen.domain.sealing import seal, unseal
from facescreen.errors import (
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
    IdempotencyOutcomeUnknownError,
    UnavailableError,
)
from facescreen.lifeline import require_wanted, to_the_end, uninterrupted
from facescreen.services.presence import Presence

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with an idempotency key.

    Attributes:
        operation: what it asks for, as ``POST /path?query``.
        payload: the same bytes whenever it is sent again.
    """

    actor: str
    operation: str
    key: str
    payload: bytes


class Outcome(NamedTuple):
    """What a request was answered with, and whether it is to be answered so whenever it is sent again."""

    answer: bytes
    is_final: bool


class Answered(NamedTuple):
    """An answer, given now or the first time."""

    answer: bytes
    is_replayed: bool


class _Seal:
    """Encrypts the answer to a request.

    Attributes:
        id: names the request; the same for every payload.
        fingerprint: tells payloads apart.
    """

    def __init__(self, request: KeyedRequest) -> None:
        self.id = _digest(request.actor, request.operation, request.key)
        secret = HKDF(SHA256(), length=64, salt=request.key.encode(), info=b"facescreen idempotency key")
        # The halves are independent: the fingerprint, which is stored, says nothing of the key, which is not.
        derived = secret.derive(request.payload)
        self.fingerprint, self._key = derived[:32].hex(), AESGCM(derived[32:])

    def close(self, answer: bytes) -> bytes:
        return seal(self._key, answer, self.id.encode())

    def open(self, sealed: bytes) -> bytes:
        return unseal(self._key, sealed, self.id.encode())


class IdempotencyService:
    """Sees to it that a request with an idempotency key is done once, whichever processes it reaches, and how often.

    Args:
        presence: of this process, by which others see whether it still works on a request.
    """

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence
        self._running: set[str] = set()

    async def answered(self, request: KeyedRequest, work: Callable[[], Awaitable[Outcome]]) -> Answered:
        """The first answer to this request, from ``work`` if there is none.

        An answer that is not final, and whatever ``work`` raises, is forgotten unless something was done.

        Raises:
            IdempotencyKeyReusedError: the key came with another payload before.
            IdempotencyInProgressError: the first one is still worked on.
            IdempotencyOutcomeUnknownError: it did something, and its answer was lost.
        """
        sealing = await asyncio.to_thread(_Seal, request)
        claim = Claim(sealing.id, self._presence.owner)
        kept = await self._begin(claim, sealing.fingerprint)
        if kept is not None:
            return Answered(sealing.open(kept), is_replayed=True)
        token = acting.claim.set(claim)
        answer = None
        try:
            require_wanted()
            outcome = await work()
            answer = sealing.close(outcome.answer) if outcome.is_final else None
        finally:
            acting.claim.reset(token)
            # Also when the request was stopped: whoever sends it again should not find it half begun.
            with uninterrupted():
                await to_the_end(self._end(claim, answer))
        return Answered(outcome.answer, is_replayed=False)

    async def _begin(self, claim: Claim, fingerprint: str) -> bytes | None:
        """The encrypted answer that was given before; ``None`` if the request is this process's to answer."""
        async with self._database.write() as connection:
            known = await idempotency.known(connection, claim.id)
            if known is not None:
                if known.fingerprint != fingerprint:
                    raise IdempotencyKeyReusedError("this idempotency key was used for a request with another payload")
                if known.answer:
                    return known.answer
                if known.owner is not None and self._is_running(claim.id, known.owner):
                    raise IdempotencyInProgressError("the first request with this idempotency key is still running")
                if known.has_effect:
                    raise IdempotencyOutcomeUnknownError(
                        "the first request with this idempotency key took effect, and its answer is gone; "
                        "look at what is there, and use another key to do it again"
                    )
                await idempotency.forget(connection, claim.id)
            await idempotency.claim(connection, claim, fingerprint=fingerprint)
        self._running.add(claim.id)  # not before: whoever is cancelled in there does not work on it
        return None

    async def _end(self, claim: Claim, answer: bytes | None) -> None:
        try:
            async with self._database.write() as connection:
                if answer is None:
                    await idempotency.give_up(connection, claim)
                else:
                    await idempotency.keep(connection, claim, answer)
        except UnavailableError as error:
            # What was done is done, and its answer is at hand; only sending it again cannot be answered well.
            logger.warning("idempotent_answer_not_kept", extra={"code": error.code})
        finally:
            self._running.discard(claim.id)

    def _is_running(self, request_id: str, owner: str) -> bool:
        # A row of ours that nobody works on was left behind by a database that took no writes.
        return request_id in self._running if owner == self._presence.owner else self._presence.is_alive(owner)


def _digest(*parts: str) -> str:
    """SHA-256 in hexadecimal; no two sequences of parts have the same bytes."""
    framed = b"".join(len(part.encode()).to_bytes(8) + part.encode() for part in parts)
    return sha256(framed).hexdigest()
