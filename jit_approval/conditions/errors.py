"""What can be wrong with a condition: its text, when it is saved; its facts, when it is asked."""

from __future__ import annotations


class ConditionError(ValueError):
    """The text is no condition that can be relied on. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line, self.column = line, column


class ConditionFailed(Exception):
    """A condition came to neither true nor false. The message holds nothing a caller wrote."""


class Trouble(ConditionFailed):
    """One part of an expression failed; `||`, `&&` and the macros may do without it, as CEL says."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.placed = False

    def at(self, place: str) -> Trouble:
        """Say where it happened; the innermost place stays."""
        if not self.placed:
            self.args, self.placed = (f"{self} ({place})",), True
        return self


class TooMuch(ConditionFailed):
    """The whole evaluation is over: nothing absorbs it."""
