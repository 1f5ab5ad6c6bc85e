"""The compiled requirements agree with each other and with what they were compiled from."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\\]+) \\(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+", re.MULTILINE
)


def pins(lock: str) -> set[tuple[str, str]]:
    """Names and versions, the latter with their environment markers, of what has at least one hash."""
    return {(match["name"], match["version"]) for match in PIN.finditer((ROOT / lock).read_text())}


def asked_for(source: str) -> set[str]:
    lines = (ROOT / source).read_text().splitlines()
    return {match[0].lower().replace("_", "-") for line in lines if (match := re.match(r"[A-Za-z][\w.-]*", line))}


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    lock = (ROOT / f"{name}.txt").read_text()
    assert asked_for(f"{name}.in") <= {pinned for pinned, _ in pins(f"{name}.txt")}
    assert len(pins(f"{name}.txt")) == len(re.findall(r"^\w", lock, re.MULTILINE))


@pytest.mark.parametrize("part", ["requirements.txt", "requirements-build.txt"])
def test_one_environment_serves_both_purposes(part: str) -> None:
    assert pins(part) <= pins("requirements-dev.txt")


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt", "requirements-build.txt"])
def test_no_lock_names_a_registry(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()
