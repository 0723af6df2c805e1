"""Conditions of policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ConditionError(ValueError):
    """The text is no condition."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line, self.column = line, column


class ConditionFailed(Exception):
    """It could not be evaluated."""


def check(source: str) -> None:
    """Refuse it."""
    raise ConditionError("no library")


def evaluate(source: str, facts: Mapping[str, Any]) -> bool:
    """Fail."""
    raise ConditionFailed("no library")
