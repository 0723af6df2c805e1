"""What a sealer signs: how large the trail is and its root (https://c2sp.org/tlog-checkpoint), and who signs next.

Both are signed notes. Each names the one before it by the hash of its text, so that none can be left out, and says
when it was made, so that an idle trail is known to be alive. See docs/audit.md for the form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from jit_approval.audit import notes
from jit_approval.audit.merkle import EMPTY_ROOT, HASH_BYTES
from jit_approval.audit.notes import NoteError, Signer, Verifier

ROTATION = "jit-approval/key-rotation/v1"
"""The first line of a note that names the next key. No trail may have it as its origin."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """The first `size` events of the trail `origin` have the root `root`, said at `time`.

    `time` is in seconds since 1970, by the database's clock; `after` is the `digest` of the statement before, and
    None in the first.
    """

    origin: str
    size: int
    root: bytes
    time: int
    after: bytes | None = None

    def text(self) -> str:
        """Return the text to be signed."""
        head = f"{self.origin}\n{self.size}\n{_encoded(self.root)}\n"
        return head + _ending(self.time, self.after)


@dataclass(frozen=True)
class Rotation:
    """From here on the trail `origin` is signed by `key`. Signed by the key before, and by `key` itself."""

    origin: str
    key: Verifier
    time: int
    after: bytes | None = None

    def text(self) -> str:
        """Return the text to be signed."""
        return f"{ROTATION}\n{self.origin}\n{self.key}\n" + _ending(self.time, self.after)


Statement = Checkpoint | Rotation


def digest(text: str) -> bytes:
    """Return the hash by which the next statement names the one with this text."""
    return hashlib.sha256(text.encode()).digest()


def sign(statement: Statement, *signers: Signer) -> str:
    """Return a statement as a signed note.

    Raises:
        NoteError: it cannot be read back as what it is.
    """
    text = statement.text()
    if parse(text) != statement:
        raise NoteError("it would not be read as it is meant")
    return notes.sign(text, *signers)


def opened(note: str, trusted: Iterable[Verifier]) -> tuple[Statement, tuple[Verifier, ...]]:
    """Return what a note states, and the trusted keys that signed it.

    Raises:
        NoteError: no trusted key vouches for it, or it states nothing that is known here.
    """
    found = notes.verify(note, trusted)
    statement = parse(found.text)
    if isinstance(statement, Rotation):
        # Whoever names a key must show that somebody has it.
        notes.verify(note, [statement.key])
    return statement, found.by


def parse(text: str) -> Statement:
    """Read the text of a note that has been verified.

    Raises:
        NoteError: it is neither a checkpoint nor a rotation, or not in the one form that each has.
    """
    lines = text.split("\n")[:-1]
    if len(lines) < 4 or not all(lines):
        raise NoteError("it states nothing that is known here")
    time, after = _read_ending(lines[3:])
    statement: Statement
    if lines[0] == ROTATION:
        try:
            key = notes.parse_verifier(lines[2])
        except notes.KeyFormatError as error:
            raise NoteError(f"it names no key: {error}") from None
        statement = Rotation(lines[1], key, time, after)
    else:
        statement = Checkpoint(lines[0], _number(lines[1]), _hash(lines[2]), time, after)
        if statement.size == 0 and statement.root != EMPTY_ROOT:
            raise NoteError("an empty trail has another root")
    if statement.text() != text:
        raise NoteError("it is not in the form it should be")
    return statement


def _ending(time: int, after: bytes | None) -> str:
    return f"time {time}\n" + (f"after {_encoded(after)}\n" if after is not None else "")


def _read_ending(lines: list[str]) -> tuple[int, bytes | None]:
    after = None
    if len(lines) == 2 and lines[1].startswith("after "):
        after = _hash(lines.pop().removeprefix("after "))
    if len(lines) != 1 or not lines[0].startswith("time "):
        raise NoteError("it does not say when it was made")
    return _number(lines[0].removeprefix("time ")), after


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise NoteError("a number is malformed")
    return int(text)


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _hash(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        raise NoteError("a hash is malformed") from None
    if len(found) != HASH_BYTES:
        raise NoteError("a hash has another length")
    return found
