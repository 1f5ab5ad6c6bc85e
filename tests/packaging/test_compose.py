"""What the container may reach, and who may reach it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from facescreen.config import Settings
from facescreen.main import create_app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def service() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["facescreen"]


def test_is_published_on_loopback_only(service: Any) -> None:
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert "network_mode" not in service


def test_runs_unprivileged_on_a_read_only_root(service: Any) -> None:
    assert service["user"] == "${FACESCREEN_UID:-1000}:${FACESCREEN_GID:-1000}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service


def test_list_output_and_database_outlive_the_container(service: Any) -> None:
    mounts = dict(volume.split(":") for volume in service["volumes"])
    environment = service["environment"]
    database = Path(environment["DATABASE_URL"].removeprefix("sqlite+aiosqlite:///"))
    for written in (environment["BLACKLIST_DB_PATH"], environment["PROCESSED_IMAGES_OUTPUT_DIR"], database.parent):
        assert mounts[f"./{written}"] == f"/app/{written}"
        assert (ROOT / written).is_dir()


def test_image_has_an_unprivileged_user() -> None:
    users = [line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("USER ")]
    assert users[-1:] == ["1000:1000"]


def test_health_is_asked_where_no_key_is_needed(settings: Settings) -> None:
    asked = re.search(r"(/api/v1/\w+)', timeout", (ROOT / "Dockerfile").read_text())
    assert asked is not None
    assert "security" not in create_app(settings).openapi()["paths"][asked[1]]["get"]


def test_build_context_holds_what_the_dockerfile_copies() -> None:
    copied = {
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    }
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == admitted
    assert all((ROOT / source).exists() for source in copied)
