"""The newest checkpoint in the database, believed only where a key vouches for it: rows alone, anybody could write."""

from __future__ import annotations

from jit_approval.audit import checkpoints, notes
from jit_approval.audit.notes import Verifier
from jit_approval.models import Checkpoint


class NotVouchedFor(Exception):
    """The last statements in the database are not what the key signed, or named as its successor's beginning."""


def checkpoint(alias: str, last: Checkpoint, key: Verifier) -> tuple[checkpoints.Checkpoint, bytes]:
    """Return the newest checkpoint up to the statement `last`, and the digest of `last`.

    `key` signed it; or it stands before the rotation to `key`, which names it by its digest.

    Raises:
        NotVouchedFor: it is somebody else's, or was changed.
    """
    row: Checkpoint | None = last
    vouched = newest = None
    while row is not None:
        statement = _read(row, key if vouched is None else None)
        text = checkpoints.digest(statement.text())
        newest = newest or text
        if vouched not in (None, text):
            break
        if isinstance(statement, checkpoints.Checkpoint):
            return statement, newest
        if vouched is None and statement.key != key:
            raise NotVouchedFor(
                f"The key in use has named its successor, {statement.key}. "
                "Put that one's file into the settings, and restart this process."
            )
        vouched = statement.after
        row = Checkpoint.objects.using(alias).filter(number=row.number - 1).first()
    raise NotVouchedFor("The statements in the database do not follow one another.")


def _read(row: Checkpoint, key: Verifier | None) -> checkpoints.Statement:
    """Return what a row states; where `key` is given, it must have signed that."""
    try:
        if key is None:
            return checkpoints.parse(notes.split(row.note)[0])
        return checkpoints.opened(row.note, [key])[0]
    except notes.NoteError as error:
        raise NotVouchedFor(
            f"The last statement in the database is not of the key in use: {error}."
        ) from None
