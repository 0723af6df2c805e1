"""Which statements of a receipt or a selection to believe: those that a key given signed, or one that it led to.

Other than a whole trail, these need not hold every statement: of what they hold, each must be signed.
"""

from __future__ import annotations

from collections.abc import Sequence

from jit_approval.audit import checkpoints, notes
from jit_approval.audit.checkpoints import Checkpoint, Rotation, Statement
from jit_approval.audit.findings import Kind, Report, many
from jit_approval.audit.notes import NoteError, Verifier


class Trust:
    """The keys that are believed, as one statement after the other is read."""

    def __init__(self, report: Report, keys: Sequence[Verifier]) -> None:
        self.keys = list(keys)
        self._report = report
        self._retired: set[Verifier] = set()
        self._is_judged = False
        # Who signed what no key that is known signed, each as name and id.
        self._strangers: list[set[tuple[str, bytes]]] = []
        self._earlier: set[tuple[str, bytes]] = set()

    def read(self, note: str) -> Statement | None:
        """Return what a note states, if a trusted key vouches for it; else say what is wrong with it."""
        believed = [key for key in self.keys if key not in self._retired]
        if self._is_of_strangers(note):
            return None
        self._is_judged = True
        try:
            statement = checkpoints.parse(notes.split(note)[0])
            signed, by = checkpoints.opened(note, believed)
        except NoteError as error:
            self._report.add(Kind.UNSIGNED, None, f"a statement of the signer: {error}")
            return None
        if statement.origin not in {key.name for key in by}:
            what = "a statement of the signer is signed by the key of another trail"
            self._report.add(Kind.UNSIGNED, None, what)
            return None
        if isinstance(signed, Rotation):
            self._retired.update(set(by) - {signed.key})
            self._earlier.update(_signers(note))
            if signed.key not in self.keys:
                self.keys.append(signed.key)
        self._note(signed)
        return signed

    def finish(self) -> bool:
        """Say what no key that is known has signed; tell whether there is such a thing.

        It cannot be judged where none signed anything, or where it is by a key before those given. Else it does not
        belong there: the keys given, and those that they named, sign all.
        """
        earlier = [each for each in self._strangers if each & self._earlier]
        unjudged = earlier if self._is_judged else self._strangers
        for _ in range(len(self._strangers) - len(unjudged)):
            what = "a statement of the signer: no trusted key signed it"
            self._report.add(Kind.UNSIGNED, None, what)
        if unjudged:
            what = f"no key given signed {many(len(unjudged), 'statement')} of the signer"
            self._report.unjudged.append(what)
        return bool(self._strangers)

    def _is_of_strangers(self, note: str) -> bool:
        """Tell whether no key that is known has anything to do with a statement; keep it for `finish`.

        Whoever has the newest key alone can go without changes of keys before it: nothing is believed for their sake.
        """
        try:
            statement = checkpoints.parse(notes.split(note)[0])
            if notes.is_signed_by_one_of(note, self.keys):
                return False
        except NoteError:
            return False
        if isinstance(statement, Rotation):
            what = "a change of keys before that of the keys given was not checked"
            self._report.warnings.append(what)
        else:
            self._strangers.append(_signers(note))
        return True

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


def _signers(note: str) -> set[tuple[str, bytes]]:
    return {(name, key_id) for name, key_id, _ in notes.split(note)[1]}
