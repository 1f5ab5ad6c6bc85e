"""Names and other text that people read: what may be in it, and how it is compared and shown."""

import unicodedata
from typing import Final

_JOINERS: Final = frozenset("\u200c\u200d")
"""Emoji and several scripts join or part letters with them."""

_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that look like a space: fillers of Hangul, and Braille without a dot."""

_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""General categories (Unicode Standard 4.5) of what is not seen itself, and changes how other text looks or is read."""


def folded(text: str) -> str:
    """Equal for texts that differ in case or in how their characters are encoded (Unicode Standard 3.13, D146)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def fault_of_name(name: str) -> str | None:
    """Why this cannot be the name of anything: it has no visible character, or one that cannot be shown."""
    if not any(unicodedata.category(character)[0] in "LNPS" and character not in _BLANK for character in name):
        return "has no visible character"
    return fault_of_text(name, lines=False)


def fault_of_text(text: str, *, lines: bool = True) -> str | None:
    """Which character of a text cannot be shown, ``None`` if every one can.

    Args:
        lines: whether it may have tabs and more than one line.
    """
    character = next((character for character in text if _is_unseen(character, lines=lines)), None)
    return f"has a character that cannot be shown: {_code(character)}" if character is not None else None


def escaped(text: str) -> str:
    r"""The text for a terminal: what it would obey instead of showing it stands as in ``\u{202e}``."""
    return "".join(
        f"\\u{{{ord(character):x}}}" if _is_unseen(character, lines=True) else character for character in text
    )


def _is_unseen(character: str, *, lines: bool) -> bool:
    if character in _JOINERS or (lines and character in "\t\n"):
        return False
    return unicodedata.category(character) in _UNSEEN


def _code(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
