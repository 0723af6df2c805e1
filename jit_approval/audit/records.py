"""One event of the trail as a line of an export (see docs/audit.md). There is one way to write it, and no other.

Whatever a line says beside the body is bound by the body's hash, or by the line's place in the tree.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_LINE = 8 * 1024 * 1024
"""Bytes of a line. Nothing that is written is as long; what is, is not read into memory."""

MOST = 2**63 - 1
"""The highest place that an event can have."""

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """An event at its place in the trail: `index`, from 0. `body` is None where it was erased.

    `origin` is what the body commits to (see `origins`), None where there is none, or where it was left out.
    """

    index: int
    hash: str
    previous: str
    body: str | None
    origin: str | None = None

    @property
    def leaf(self) -> bytes:
        """The content of its leaf in the tree."""
        return bytes.fromhex(self.hash)


def is_hash(text: str) -> bool:
    """Tell whether this is a hash as events have them: 64 digits in lower case."""
    return _HASH.fullmatch(text) is not None


def is_sound(record: Record) -> bool:
    """Tell whether its members are of the types and forms they should be; they come from whoever wrote them."""
    return (
        type(record.index) is int
        and 0 <= record.index <= MOST
        and isinstance(record.body, str | None)
        # Where there is none, nothing is written: there is one way to say it.
        and (record.origin is None or (isinstance(record.origin, str) and record.origin != ""))
        and isinstance(record.previous, str)
        and (not record.previous or is_hash(record.previous))
        and isinstance(record.hash, str)
        and is_hash(record.hash)
    )


def of(found: Any, index: int) -> Record:
    """Return the record with the members of what was parsed, whatever they are.

    Raises:
        KeyError, TypeError, AttributeError: one is not there, or there are none.
    """
    previous = found.get("previous", "")
    return Record(index, found["hash"], previous, found["body"], found.get("origin"))


def as_line(record: Record) -> bytes:
    """Return the line, its newline included."""
    if record.body is None:
        return f'{{"index":{record.index},"hash":"{record.hash}","body":null}}\n'.encode()
    body = json.dumps(record.body, ensure_ascii=False)
    if record.origin is not None:
        body += f',"origin":{json.dumps(record.origin, ensure_ascii=False)}'
    return (
        f'{{"index":{record.index},"previous":"{record.previous}","hash":"{record.hash}","body":{body}}}\n'
    ).encode()


def parse(line: bytes) -> Record | None:
    """Return the record that has exactly this line; None where there is none."""
    try:
        found = json.loads(line)
        record = of(found, found["index"])
        sound = is_sound(record) and as_line(record) == line
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if sound else None
