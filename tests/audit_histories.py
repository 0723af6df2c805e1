"""Trails made up for tests, honest ones, as an exporter would have written them."""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jit_approval.audit import checkpoints, folder, links, merkle, origins, records
from jit_approval.audit.checkpoints import Checkpoint, Rotation
from jit_approval.audit.notes import Signer
from jit_approval.audit.records import Record

ORIGIN = "approvals.example/trail"
KINDS = ["held", "approve", "approved", "consumed", "outcome", "rejected", "expired"]
TEXTS = [
    "",
    "GDPR erasure #811",
    'naïve \u2028 "quoted"\\ and\nlong ' + "x" * 300,
    "\u202e 💥 \x7f",
]


def signer(name: str = "the first") -> Signer:
    """A key that is the same in every run."""
    return Signer(ORIGIN, hashlib.sha256(name.encode()).digest())


@dataclass
class History:
    """Events and signed statements, as lists to be tampered with."""

    events: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> Path:
        """Write it as an export."""
        path.mkdir(exist_ok=True)
        for old in path.iterdir():
            old.unlink()
        lines = b"".join(records.as_line(event) for event in self.events)
        (path / folder.events_file(0)).write_bytes(lines)
        (path / folder.CHECKPOINTS).write_bytes(b"".join(map(folder.note_line, self.notes)))
        return path


class Writer:
    """Writes a history as the package does: events chained by request, and sealed."""

    def __init__(self, by: Signer | None = None, time: int = 1_764_000_000) -> None:
        self.history = History()
        self.tree = merkle.Frontier()
        self.heads: dict[str, tuple[int, str]] = {}
        self.by = by or signer()
        self.time = time
        self.after: bytes | None = None

    def event(
        self, request: str | None, kind: str, data: dict[str, Any], origin: str = ""
    ) -> Record:
        """Add an event. `origin` is what it commits to; without, it is one of the first version."""
        sequence, previous = self.heads.get(request or "", (0, ""))
        body = {"v": 1, "request": request, "sequence": sequence + 1, "kind": kind, "data": data}
        body |= {"by": {"label": "bob", "pk": "7"}, "at": "2026-11-24T10:00:00.000000+00:00"}
        if origin:
            body |= {"v": 2, "by": {**body["by"], "origin": origins.commitment(origin)}}
        else:
            body["by"] |= {"ip": "192.0.2.7", "user_agent": "curl/8"}
        text = links.canonical(body)
        hash_ = links.digest(previous, text)
        record = Record(self.tree.size, hash_, previous, text, origin or None)
        self.append(record)
        if request is not None:
            self.heads[request] = (sequence + 1, record.hash)
        return record

    def append(self, record: Record) -> None:
        """Add an event as it is."""
        self.history.events.append(record)
        self.tree.append(merkle.leaf_hash(record.leaf))

    def checkpoint(self) -> str:
        """Sign what there is."""
        return self._state(
            Checkpoint(ORIGIN, self.tree.size, self.tree.root(), self.time, self.after), self.by
        )

    def rotate(self, to: Signer) -> str:
        """Let another key sign from here on."""
        note = self._state(Rotation(ORIGIN, to.verifier, self.time, self.after), self.by, to)
        self.by = to
        return note

    def _state(self, statement: checkpoints.Statement, *by: Signer) -> str:
        self.history.notes.append(checkpoints.sign(statement, *by))
        self.after = checkpoints.digest(statement.text())
        self.time += 60
        return self.history.notes[-1]


def honest(random_: random.Random, most: int = 60) -> Writer:
    """A history of some requests at the same time, perhaps with a new key, perhaps with something erased."""
    writer = Writer()
    requests = [str(uuid.UUID(int=random_.getrandbits(128))) for _ in range(8)]
    if random_.random() < 0.2:
        writer.checkpoint()
    for number in range(random_.randrange(6, most)):
        if random_.random() < 0.15:
            writer.event(None, "allowed", {"nonce": str(random_.getrandbits(64))})
        else:
            data = {"comment": random_.choice(TEXTS), "n": random_.randrange(3)}
            where = some_origin(random_) if random_.random() < 0.6 else ""
            writer.event(random_.choice(requests), random_.choice(KINDS), data, where)
        if random_.random() < 0.15:
            writer.checkpoint()
        if random_.random() < 0.02:
            writer.rotate(signer(f"the one of {number}"))
    if random_.random() < 0.3:
        erase(writer, random_)
    writer.checkpoint()
    return writer


def some_origin(random_: random.Random) -> str:
    """An address and a user agent, as they are written."""
    said = {"salt": f"{random_.getrandbits(128):032x}", "ip": f"192.0.2.{random_.randrange(255)}"}
    return links.canonical({**said, "user_agent": random_.choice(TEXTS)})


def erase(writer: Writer, random_: random.Random) -> None:
    """Erase some events, by an act that says so."""
    events = writer.history.events
    begin = random_.randrange(len(events) - 1)
    end = random_.randrange(begin + 1, len(events))
    writer.event(None, "erased", {"leaves": [[begin, end]]})
    for index in range(begin, end):
        events[index] = Record(index, events[index].hash, "", None)
