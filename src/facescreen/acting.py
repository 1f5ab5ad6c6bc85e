"""For whom the present task works: who asked, and in which request."""

from contextvars import ContextVar
from typing import NamedTuple

ANYBODY = "anybody"
"""Who asks where no keys exist."""
SERVICE = "service"
"""What the service does by itself."""
COMMAND = "command"
"""Whoever runs the command line."""

actor: ContextVar[str] = ContextVar("actor", default=SERVICE)
"""Id of the key that was used, ``rekognition:<access key id>``, or one of the above."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the HTTP request, ``None`` outside of one."""


class Claim(NamedTuple):
    """That this process (``owner``) works on a request which has an idempotency key."""

    id: str
    owner: str


claim: ContextVar[Claim | None] = ContextVar("claim", default=None)
"""Of the request with an idempotency key that the present task works on."""
