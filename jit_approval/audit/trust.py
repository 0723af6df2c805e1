"""Which statements of a receipt or a selection to believe: those that a key given signed, or one that it led to.

Other than a whole trail, these need not hold every statement: of what they hold, each must be signed.
"""

from __future__ import annotations

from collections.abc import Sequence

from jit_approval.audit import checkpoints, notes
from jit_approval.audit.checkpoints import Checkpoint, Rotation, Statement
from jit_approval.audit.findings import Kind, Report
from jit_approval.audit.notes import NoteError, Verifier


class Trust:
    """The keys that are believed, as one statement after the other is read."""

    def __init__(self, report: Report, keys: Sequence[Verifier]) -> None:
        self.keys = list(keys)
        self._report = report
        self._retired: set[Verifier] = set()

    def read(self, note: str) -> Statement | None:
        """Return what a note states, if a trusted key vouches for it; else say what is wrong with it."""
        believed = [key for key in self.keys if key not in self._retired]
        try:
            statement = checkpoints.parse(notes.split(note)[0])
            signed, by = checkpoints.opened(note, believed)
        except NoteError as error:
            if self._is_by_strangers(note, believed):
                what = "a change of keys before that of the keys given was not checked"
                self._report.warnings.append(what)
            else:
                self._report.add(Kind.UNSIGNED, None, f"a statement of the signer: {error}")
            return None
        if statement.origin not in {key.name for key in by}:
            what = "a statement of the signer is signed by the key of another trail"
            self._report.add(Kind.UNSIGNED, None, what)
            return None
        if isinstance(signed, Rotation):
            self._retired.update(set(by) - {signed.key})
            if signed.key not in self.keys:
                self.keys.append(signed.key)
        self._note(signed)
        return signed

    def _is_by_strangers(self, note: str, believed: Sequence[Verifier]) -> bool:
        """Tell whether this is a change of keys with which no key that is believed has anything to do.

        Whoever has the newest key alone can go without those before it: nothing is believed for their sake.
        """
        known = {(key.name, key.key_id) for key in believed}
        try:
            text, signatures = notes.split(note)
            statement = checkpoints.parse(text)
        except NoteError:
            return False
        by_known = any((name, key_id) in known for name, key_id, _ in signatures)
        return isinstance(statement, Rotation) and not by_known

    def _note(self, statement: Statement) -> None:
        report = self._report
        if report.origin and statement.origin != report.origin:
            what = f"a statement of the signer is about another trail, {statement.origin}"
            report.add(Kind.ALTERED, None, what)
        report.origin = report.origin or statement.origin
        report.keys = [str(key) for key in self.keys]
        if isinstance(statement, Checkpoint):
            report.checkpoints += 1
            if report.time is None or statement.time >= report.time:
                report.time, report.root = statement.time, statement.root.hex()
