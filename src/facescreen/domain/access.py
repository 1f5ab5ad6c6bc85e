"""Who may do what."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv6Address, ip_address


class Scope(StrEnum):
    """What a key may be allowed to do; none includes another."""

    SCREEN = "screen"
    """Detect faces and screen images."""
    READ = "read"
    """See results, their pictures, and the list."""
    MANAGE = "manage"
    """Change who is on the list."""
    REVIEW = "review"
    """Clear a face of a match, and take that back."""
    ADMINISTER = "administer"
    """Collections, calibrations, deletion of results, and the audit trail."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; its secret is not.

    Attributes:
        id: public part of the key, which the audit trail names.
        label: what it is for, in the operator's words.
        expires_at, revoked_at: ``None`` if never.
        replaced_by: id of the key that it was rotated to.
    """

    id: str
    label: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach, or be, this address: of 127.0.0.0/8, ::1, or the name localhost."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
