"""Who asks, and may they: before anything of the body is read."""

from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from facescreen.acting import ANYBODY, actor
from facescreen.api.locality import is_from_foreign_page, is_from_this_machine
from facescreen.api.rate_limits import RateLimits, address_of
from facescreen.domain import access
from facescreen.domain.trail import Action
from facescreen.errors import LocalOnlyError, ScopeMissingError, UnauthenticatedError
from facescreen.factory import Services

_NOTHING: frozenset[access.Scope] = frozenset()
_EVERYTHING = frozenset(access.Scope)


class Access:
    """Lets in who has a key with every scope, as often as the limits allow.

    The request's state has, as ``scopes``, everything that the caller may do.

    While no key was ever created, this machine is let in, and nobody else; with ``AUTH_MODE=none`` everybody is.

    Args:
        scopes: that the operation needs; empty: any valid key; ``None``: everybody, and any number of times.
    """

    def __init__(self, app: ASGIApp, *, scopes: Collection[access.Scope] | None) -> None:
        self._app = app
        self._scopes = None if scopes is None else frozenset(scopes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, granted = (
            (ANYBODY, _NOTHING) if self._scopes is None else await _admitted(HTTPConnection(scope), self._scopes)
        )
        scope.setdefault("state", {})["scopes"] = granted
        token = actor.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            actor.reset(token)


async def _admitted(connection: HTTPConnection, scopes: frozenset[access.Scope]) -> tuple[str, frozenset[access.Scope]]:
    """Who asks, as :data:`actor` has it, and the scopes that the caller has."""
    services: Services = connection.app.state.services
    limits: RateLimits = connection.app.state.rate_limits
    address = address_of(connection)
    await limits.per_address.take(address)
    if services.settings.auth_mode == "none":
        return ANYBODY, _EVERYTHING
    ring = await services.keys.ring()
    if not ring.keys:
        allowed_origins = services.settings.cors_allowed_origins
        if not is_from_this_machine(connection) or is_from_foreign_page(connection, allowed_origins):
            raise LocalOnlyError
        return ANYBODY, _EVERYTHING
    try:
        key = ring.authenticate(_credential(connection))
    except UnauthenticatedError:
        await limits.failures.take(address)
        raise
    await limits.per_key.take(key.id)
    if missing := scopes - key.scopes:
        await _record_denial(services, key, operation=connection.scope["route"].name)
        raise ScopeMissingError(f"the API key lacks the scope {', '.join(sorted(missing))}")
    return key.id, key.scopes


async def _record_denial(services: Services, key: access.ApiKey, *, operation: str) -> None:
    token = actor.set(key.id)
    try:
        await services.trail.note_failure(Action.DENIED, outcome=ScopeMissingError.code, subject=operation)
    finally:
        actor.reset(token)


def _credential(connection: HTTPConnection) -> str:
    """The text that the request gives as its key, in either header or in both; other schemes are not for us."""
    given = set(connection.headers.getlist("x-api-key"))
    for header in connection.headers.getlist("authorization"):
        scheme, _, credentials = header.partition(" ")
        if scheme.lower() == "bearer":
            given.add(credentials.strip())
    if len(given) != 1:
        raise UnauthenticatedError
    return given.pop()
