"""Text that reads as something it is not, refused in files and written as escapes.

Who reviews a change reads characters; what is compared are code points. `customers.*` with a Cyrillic letter
names no action, and its policy holds nothing.
"""

from __future__ import annotations

import re
import unicodedata

from jit_approval.portable.keys import Kind
from jit_approval.redaction import visible

_WORD = re.compile(r"\w+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|[\s\S])")
_LETTERS = re.compile("[A-Za-z]")


def unseen(text: str) -> int | None:
    """Return the line, from 1, with the first character that hides or reorders what is around it."""
    for number, line in enumerate(text.split("\n"), 1):
        if visible(line, keep_lines=True) != line:
            return number
    return None


def objection(written: str, kind: Kind) -> str:
    """Return what is wrong with the way a text is written in the file; "" where nothing is."""
    if kind is Kind.PROSE:
        return ""
    for match in _ESCAPE.finditer(written):
        number = int(match[1] or match[2] or "0", 16)
        if 0x20 < number < 0x7F:
            return f"write {chr(number)} as itself, not as {match[0]}"
    odd = _odd(_ESCAPE.sub(" ", written), kind)
    if odd:
        first = odd[0]
        name = unicodedata.name(first, "an unnamed character")
        return (
            f"{first} is {name}, which can be mistaken for another; write it as {_escaped(first)}"
        )
    return ""


def escaped(text: str, kind: Kind) -> str:
    """Return a text with what `objection` would object to as escapes; its backslashes are doubled already."""
    if kind is not Kind.PROSE:
        odd = set(_odd(text, kind))
        text = "".join(_escaped(each) if each in odd else each for each in text)
    return visible(text, keep_lines=True)


def _odd(text: str, kind: Kind) -> str:
    """Return the characters that may be taken for others.

    Names of people and groups are written in any script, but one word not in two; all else is ASCII.
    """
    if text.isascii():
        return ""
    if kind not in {Kind.COUNTS, Kind.HOLDERS, Kind.PERMISSIONS, Kind.STEPS}:
        return "".join(each for each in text if not each.isascii())
    return "".join(
        each
        for word in _WORD.findall(text)
        if _LETTERS.search(word)
        for each in word
        if not each.isascii() and not unicodedata.name(each, "").startswith("LATIN ")
    )


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
