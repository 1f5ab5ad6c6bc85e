"""The blocks of the documentation that somebody may copy into a shell or into Python."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(sh|bash|console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path in the repository.
        language: as the fence names it.
    """

    page: str
    language: str
    text: str

    @property
    def name(self) -> tuple[str, str]:
        """The page and the block's first line."""
        return self.page, self.text.partition("\n")[0]


def blocks() -> list[Block]:
    """All of them, page by page, from the top."""
    pages = (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "samples/README.md",
    )
    return [
        Block(str(page.relative_to(ROOT)), language, text)
        for page in pages
        for language, text in _BLOCK.findall(page.read_text())
    ]
