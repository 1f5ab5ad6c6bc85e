"""Many ids in statements that bind few values."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T", int, str)

_AT_ONCE = 500
"""Ids in one statement, below SQLite's limit on bound values."""


def batches(ids: Iterable[T]) -> Iterator[list[T]]:
    """The ids, each once and ascending, in as many lists as statements need."""
    wanted = sorted(set(ids))
    return (wanted[start : start + _AT_ONCE] for start in range(0, len(wanted), _AT_ONCE))
