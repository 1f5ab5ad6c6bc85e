"""``facescreen keys`` as a user of the shell sees it, and what a service refuses without keys."""

from pathlib import Path

from facescreen.config import Settings
from tests.cli.test_cli import facescreen


def test_a_key_is_printed_once_listed_rotated_and_revoked(settings: Settings, tmp_path: Path) -> None:
    scopes = ("--scope", "screen", "--scope", "read")
    created = facescreen(tmp_path, "keys", "create", *scopes, "--label", "gate [1]", "--expires-days", "30")
    assert created.returncode == 0, created.stderr
    prefix, old, secret = created.stdout.removesuffix("\n").split("_", 2)
    assert (prefix, len(secret)) == ("fsk", 43)
    assert secret not in created.stderr
    rotated = facescreen(tmp_path, "keys", "rotate", old, "--grace", "5")
    new = rotated.stdout.split("_", 2)[1]
    assert facescreen(tmp_path, "keys", "revoke", new).stdout == f"{new} is revoked\n"
    listed = facescreen(tmp_path, "keys", "list", COLUMNS="200").stdout
    (first,) = (line for line in listed.splitlines() if old in line)
    (second,) = (line for line in listed.splitlines() if new in line)
    for line, state in ((first, "valid"), (second, "revoked")):
        assert all(shown in line for shown in (state, "read screen", "gate [1]"))
    assert secret not in listed


def test_a_key_needs_a_scope_that_there_is(tmp_path: Path) -> None:
    assert facescreen(tmp_path, "keys", "create").returncode == 2
    refused = facescreen(tmp_path, "keys", "create", "--scope", "everything")
    assert refused.returncode == 2
    assert "administer" in refused.stderr


def test_a_label_is_printable(settings: Settings, tmp_path: Path) -> None:
    for label in ("a\nb", "\udcff", "x" * 201):
        refused = facescreen(tmp_path, "keys", "create", "--scope", "read", "--label", label)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


def test_others_can_reach_the_service_only_with_keys_or_in_words(settings: Settings, tmp_path: Path) -> None:
    # What comes next is refused too, for a cause of its own, before anything is loaded.
    wide = {"HOST": "0.0.0.0", "FACE_PROCESSING_BACKEND": "aws_rekognition"}  # noqa: S104 - what is refused
    refused = facescreen(tmp_path, "serve", **wide)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("facescreen: HOST: ")
    assert "facescreen keys create" in line
    assert "AWS_S3_BUCKET_NAME" in facescreen(tmp_path, "serve", **wide, AUTH_MODE="none").stderr
    assert facescreen(tmp_path, "keys", "create", "--scope", "read").returncode == 0
    assert "AWS_S3_BUCKET_NAME" in facescreen(tmp_path, "serve", **wide).stderr
