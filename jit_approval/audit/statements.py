"""What a signer stated, one statement after the other, and whether to believe it."""

from __future__ import annotations

from collections.abc import Sequence

from jit_approval.audit import checkpoints, notes
from jit_approval.audit.checkpoints import Checkpoint, Rotation, Statement
from jit_approval.audit.findings import Kind, Report, many
from jit_approval.audit.notes import NoteError, Verifier


class Statements:
    """The statements of a trail, one after the other, and whom to believe."""

    def __init__(self, report: Report, keys: Sequence[Verifier], kept: bytes | None = None) -> None:
        """`kept` is the digest of a statement to look out for."""
        self.trusted = list(keys)
        self._kept = kept
        self.has_kept = False
        """Whether that statement was among them."""
        self.origin = ""
        self._report = report
        self._count = 0
        self._last: bytes | None = None
        self._last_is_known = True
        self._size = self._time = 0
        # Each has named its successor, and is not believed any more.
        self._retired: set[Verifier] = set()
        self.is_believed = False
        """Whether a key that was trusted then signed the statement read last."""
        self._is_judged = False
        # Read, but not yet vouched for: by no trusted key, nor by a later statement of one.
        self._waiting = 0
        self._waiting_since = 0

    def read(self, note: str) -> Statement | None:
        """Return what a note states, believed or not; None where it cannot be read."""
        self._count += 1
        self.is_believed = False
        try:
            text, _ = notes.split(note)
            statement = checkpoints.parse(text)
            by = self._signers(note)
        except NoteError as error:
            self._bad(f"statement {self._count} of the signer: {error}")
            self._last_is_known = False
            return None
        self._follows(statement)
        self._last, self._last_is_known = checkpoints.digest(text), True
        self.has_kept = self.has_kept or self._last == self._kept
        self.is_believed = bool(by)
        self._vouch(statement, by)
        if isinstance(statement, Checkpoint):
            self._report.checkpoints += 1
        return statement

    @property
    def is_strange(self) -> bool:
        """Whether there are statements, and none by a key that was given: wrong keys, or somebody replaced them all."""
        return bool(self._count) and not self._is_judged

    def finish(self) -> None:
        """Say what nobody vouches for."""
        if not self._count:
            self._report.unfinished.append("there is no checkpoint")
        elif self.is_strange:
            what = many(self._count, "statement")
            self._report.unjudged.append(f"no key given signed any of the {what} of the signer")
        elif self._waiting:
            self._unsigned(self._count)

    def _vouch(self, statement: Statement, by: tuple[Verifier, ...]) -> None:
        """Believe, or wait for somebody who vouches for it: a key that is trusted, at the rotation that named it."""
        if not by:
            self._waiting_since = self._waiting_since if self._waiting else self._count
            self._waiting += 1
            return
        names_itself = isinstance(statement, Rotation) and statement.key in by
        if self._waiting and not names_itself:
            self._unsigned(self._count - 1)
        self._waiting = 0
        if statement.origin not in {key.name for key in by}:
            self._bad(
                f"statement {self._count} of the signer is signed by the key of another trail"
            )
        if isinstance(statement, Rotation):
            self._succeed(statement.key, by)

    def _unsigned(self, last: int) -> None:
        which = (
            f"statements {self._waiting_since} to {last} of the signer: no key given signed them"
        )
        self._report.add(Kind.UNSIGNED, None, which)

    def _succeed(self, key: Verifier, by: tuple[Verifier, ...]) -> None:
        self._retired.update(set(by) - {key})
        self._retired.discard(key)
        if key not in self.trusted:
            self.trusted.append(key)

    def _signers(self, note: str) -> tuple[Verifier, ...]:
        """Return who signed, of those who are believed now; none where all that signed are strangers.

        Raises:
            NoteError: a signature is wrong, or it states nothing.
        """
        believed = [key for key in self.trusted if key not in self._retired]
        # One that is not believed any more tells, too, whose trail it is.
        self._is_judged = self._is_judged or notes.is_signed_by_one_of(note, self.trusted)
        if not notes.is_signed_by_one_of(note, believed):
            return ()
        return checkpoints.opened(note, believed)[1]

    def _follows(self, statement: Statement) -> None:
        where = f"statement {self._count} of the signer"
        self.origin = self.origin or statement.origin
        if statement.origin != self.origin:
            self._bad(f"{where} is about another trail, {statement.origin}")
        if self._last_is_known and statement.after != self._last:
            self._bad(f"{where} does not follow the one before it")
        if isinstance(statement, Checkpoint):
            if statement.size < self._size:
                self._bad(
                    f"{where} goes back, from {many(self._size, 'event')} to {statement.size}",
                    Kind.REORDERED,
                )
            self._size = max(self._size, statement.size)
        if statement.time < self._time:
            back = self._time - statement.time
            self._report.warnings.append(f"{where}: the clock went back by {many(back, 'second')}")
        self._time = statement.time

    def _bad(self, text: str, kind: Kind = Kind.ALTERED) -> None:
        self._report.add(kind, None, text)
