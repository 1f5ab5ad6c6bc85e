"""The documentation names what there is."""

import re
from pathlib import Path

import click
import pytest
from pydantic_core import PydanticUndefined

from facescreen.api.problems import STATUS
from facescreen.cli import cli
from facescreen.config import Settings
from facescreen.domain.trail import Action

ROOT = Path(__file__).parents[1]


def default(name: str) -> str:
    value = Settings.model_fields[name].default
    assert value is not PydanticUndefined
    if value == Path.home():
        return "`~`"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"`{value}`" if value not in (None, "") else ""


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    rows = re.findall(
        r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*?) \|$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE
    )
    expected = [(name.upper(), default(name), field.description) for name, field in Settings.model_fields.items()]
    assert [(name, given.strip(), meaning) for name, given, meaning in rows] == expected


def test_every_error_code_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| (\d{3}) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    expected = {(error.code, str(int(status))) for error, status in STATUS.items()}
    assert expected <= set(rows)
    assert len(rows) == len({code for code, _ in rows})


def test_every_action_of_the_audit_trail_is_documented() -> None:
    (row,) = re.findall(r"^\| `action` \| (.*) \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(.+?)`", row)) == sorted(Action)


PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for line in re.findall(r"`facescreen ([^`]+)`", page.read_text()):
        command: click.Command = cli
        for word in re.findall(r"[^\s\[\]]+", line):
            if word.startswith("--"):
                assert word in {option for parameter in command.params for option in parameter.opts}, line
            elif isinstance(command, click.Group):
                assert word in command.commands, line
                command = command.commands[word]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_row_of_the_fault_table_points_at_tests_that_exist() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    rows = [line for line in page.partition("## Figures")[0].splitlines() if re.match(r"\| (?!Fault|Promise)", line)]
    assert rows
    for row in rows:
        proofs = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", row.split(" | ")[-1])
        assert proofs, row
        for path, name in proofs:
            assert (ROOT / path).is_file(), path
            assert not name or re.search(rf"^\s*(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name
