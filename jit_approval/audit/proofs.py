"""An event with the proof that it is in the tree of a checkpoint: receipts and selections of events are made of them.

Pure, as all that verifies elsewhere. See docs/audit.md for the form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jit_approval.audit import merkle, origins, records
from jit_approval.audit.links import digest
from jit_approval.audit.records import Record

_STEP = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_STEPS = 64


@dataclass(frozen=True, slots=True)
class Proven:
    """An event, and the hashes that lead from it to the root of the checkpoint over the first `size` events."""

    record: Record
    size: int
    steps: tuple[bytes, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, members in the one order they have."""
        record = self.record
        has_content = record.body is not None
        previous = {"previous": record.previous} if has_content else {}
        origin = {"origin": record.origin} if has_content and record.origin is not None else {}
        return {
            "index": record.index,
            **previous,
            "hash": record.hash,
            "body": record.body,
            **origin,
            "size": self.size,
            "proof": [step.hex() for step in self.steps],
        }

    def is_under(self, root: bytes) -> bool:
        """Tell whether the tree of this root and of `size` events has this event in this place."""
        leaf = merkle.leaf_hash(self.record.leaf)
        try:
            merkle.check_inclusion(leaf, self.record.index, self.size, self.steps, root)
        except merkle.ProofError:
            return False
        return True


def is_content_of(record: Record) -> bool:
    """Tell whether the content is what the hash says. Where there is none, it is not."""
    try:
        return record.body is not None and digest(record.previous, record.body) == record.hash
    except UnicodeEncodeError:
        return False


def origin_state(record: Record) -> origins.State:
    """Tell what is there of the origin that the content commits to."""
    return origins.state_in(record.origin, record.body or "null")


def from_dict(found: Any) -> Proven | None:
    """Return what `as_dict` gave; None where it is something else."""
    if not isinstance(found, Mapping):
        return None
    try:
        record = records.of(found, found["index"])
        size, steps = found["size"], found["proof"]
        sound = (
            records.is_sound(record)
            and type(size) is int
            and isinstance(steps, list)
            and len(steps) <= _MOST_STEPS
            and all(isinstance(step, str) and _STEP.fullmatch(step) for step in steps)
        )
        if not sound:
            return None
        proven = Proven(record, size, tuple(map(bytes.fromhex, steps)))
    except (KeyError, TypeError):
        return None
    return proven if proven.as_dict() == found else None


def as_line(proven: Proven) -> bytes:
    """Return the line of a selection or a stream, its newline included."""
    text = json.dumps(proven.as_dict(), ensure_ascii=False, separators=(",", ":"))
    return f"{text}\n".encode()


def parse(line: bytes) -> Proven | None:
    """Return what has exactly this line; None where there is nothing."""
    try:
        proven = from_dict(json.loads(line))
        return proven if proven is not None and as_line(proven) == line else None
    except (ValueError, RecursionError):
        return None
