"""One event of the trail as a line of an export (see docs/audit.md). There is one way to write it, and no other.

Whatever a line says beside the body is bound by the body's hash, or by the line's place in the tree.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MAX_LINE = 8 * 1024 * 1024
"""Bytes of a line. Nothing that is written is as long; what is, is not read into memory."""

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """An event at its place in the trail: `index`, from 0. `body` is None where it was erased."""

    index: int
    hash: str
    previous: str
    body: str | None

    @property
    def leaf(self) -> bytes:
        """The content of its leaf in the tree."""
        return bytes.fromhex(self.hash)


def as_line(record: Record) -> bytes:
    """Return the line, its newline included."""
    if record.body is None:
        return f'{{"index":{record.index},"hash":"{record.hash}","body":null}}\n'.encode()
    body = json.dumps(record.body, ensure_ascii=False)
    return (
        f'{{"index":{record.index},"previous":"{record.previous}","hash":"{record.hash}","body":{body}}}\n'
    ).encode()


def parse(line: bytes) -> Record | None:
    """Return the record that has exactly this line; None where there is none."""
    try:
        found = json.loads(line)
        record = Record(found["index"], found["hash"], found.get("previous", ""), found["body"])
        sound = (
            type(record.index) is int
            and isinstance(record.body, str | None)
            and (not record.previous or _HASH.fullmatch(record.previous) is not None)
            and _HASH.fullmatch(record.hash) is not None
            and as_line(record) == line
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if sound else None
