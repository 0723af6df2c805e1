"""What a decider is shown of a call: escaped, redacted, capped. It never changes what is bound or run."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.db.models import QuerySet

REDACTED = "[redacted]"

# Whole words within a key: `card_number`, `userPassword` and `password1` are hidden, `discard` is not.
_SENSITIVE = (
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "pin",
    "secret",
    "token",
    "authorization",
    "auth",
    "credential",
    "credentials",
    "cookie",
    "session",
    "sessionid",
    "apikey",
    "api_key",
    "access_key",
    "accesskey",
    "private_key",
    "privatekey",
    "secretkey",
    "bearer",
    "jwt",
    "signature",
    "otp",
    "totp",
    "mfa",
    "card",
    "cardnumber",
    "creditcard",
    "pan",
    "cvv",
    "cvc",
    "iban",
    "ssn",
)
# These also at the end of a word written without a break: `csrfmiddlewaretoken`, `newpassword`.
_SENSITIVE_ENDS = ("password", "passwd", "passphrase", "secret", "token", "apikey")
# Surrogates, controls, formats (bidirectional marks, zero-width characters), private use, unassigned.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Invisible as well, though Unicode calls them letters, marks and symbols: fillers, joiners, variation
# selectors (which can carry a hidden text), the blank Braille cell.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
# MariaDB takes no JSON of more than 31.
_LEVELS = 30
_PLAIN = re.compile(r"[\x20-\x7e]*\Z")
_ESCAPED = re.compile(r"\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


def visible(text: str, *, keep_lines: bool = False) -> str:
    """Return `text` with every character that hides, reorders or breaks shown as its escape.

    NUL and lone surrogates break database columns; bidirectional and zero-width characters mislead the eye.
    `keep_lines` leaves line feeds and tabs alone.
    """
    if _PLAIN.match(text):
        return text
    kept = "\n\t" if keep_lines else ""
    return "".join(
        character if character in kept or not _is_hidden(character) else _escape(character)
        for character in text
    )


def _is_hidden(character: str) -> bool:
    return character in _INVISIBLE or unicodedata.category(character) in _HIDDEN_CATEGORIES


def spelled(text: str) -> str:
    """Return `text` in printable ASCII, the rest as escapes: as `visible` returns it or not, it is the same.

    Which characters `visible` leaves changes with the Unicode that Python knows: 3.12 has letters that 3.11 has not.
    """
    return "".join(each if " " <= each <= "~" else _escape(each) for each in text)


def seen(text: str) -> str:
    """Return what `visible` left as it was: an escape stands for something that nobody could see."""
    return _ESCAPED.sub("", text)


def shorten(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters; that it was cut can be seen."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


@cache
def _pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    words = "|".join(re.escape(word.lower()) for word in (*_SENSITIVE, *extra))
    ends = "|".join(_SENSITIVE_ENDS)
    return re.compile(rf"(?:(?:^|_)(?:{words})|(?:{ends}))s?\d*(?:_|$)")


def is_sensitive(key: str, extra: Iterable[str] = ()) -> bool:
    """Tell whether the value under `key` is hidden from display."""
    snake = _WORD_BREAK.sub("_", key).lower()
    return bool(_pattern(tuple(extra)).search(snake))


def redact(value: Any, extra: Iterable[str] = ()) -> Any:
    """Return a copy of parsed data without what its keys say is nobody's business."""
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if is_sensitive(str(key), extra) else redact(item, extra)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset | QuerySet):
        return [redact(item, extra) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) else str(value)


def storable(value: Any, *, levels: int = _LEVELS) -> Any:
    """Return redacted data as every database's JSON column takes it, and as it may be shown.

    What lies deeper than so many levels is text.
    """
    if isinstance(value, dict | list) and not levels:
        return visible(json.dumps(value, ensure_ascii=False), keep_lines=True)
    if isinstance(value, dict):
        return {visible(key): storable(item, levels=levels - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item, levels=levels - 1) for item in value]
    if isinstance(value, float):
        return str(value)  # NaN and Infinity are no JSON, and rounding would show another number
    return visible(value, keep_lines=True) if isinstance(value, str) else value


def as_text(value: Any, *, extra: Iterable[str] = (), limit: int) -> tuple[str, bool]:
    """Return parsed data as readable JSON of at most `limit` characters, and whether it was cut.

    Escaped after JSON has doubled every backslash: a hidden character and its escape, sent as text, differ.
    """
    text = visible(json.dumps(redact(value, extra), indent=2, ensure_ascii=False), keep_lines=True)
    return text[:limit], len(text) > limit
