"""Conditions of policies: true or false of one call, in CEL, and nothing in between.

The text is parsed and its types are checked by a CEL library, when it is saved and when it is first asked. It is
evaluated here, more strictly than CEL: what a caller sends must not choose a weaker policy by its type, its size or
its cost, so values of different kinds are never compared, and whatever goes wrong is ConditionFailed, never False.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jit_approval.conditions import library
from jit_approval.conditions.errors import ConditionError, ConditionFailed
from jit_approval.conditions.programs import Program, build

__all__ = ["ConditionError", "ConditionFailed", "available", "check", "evaluate"]

_PROGRAMS = 1024


def available() -> bool:
    """Whether the library of conditions is installed, and loads."""
    try:
        library.load()
    except library.LibraryMissing:
        return False
    return True


def check(source: str) -> None:
    """Refuse a text that is no condition to rely on.

    Raises:
        ConditionError: bad syntax, unknown names, wrong types, too much to compute, or no library to tell.
    """
    try:
        build(source)
    except ConditionError:
        raise
    except Exception as error:
        # Whatever reading it came to: it is not saved.
        raise ConditionError(f"it could not be read ({type(error).__name__})") from None


def evaluate(source: str, facts: Mapping[str, Any]) -> bool:
    """Return whether a condition holds.

    `facts`: action, request, user, object and now, as plain values. Only what the condition names is looked at.

    Raises:
        ConditionFailed: it cannot be said. Nothing else is ever raised.
    """
    try:
        found = _program(source)
        if isinstance(found, ConditionError):
            raise ConditionFailed(str(found))
        return found(facts)
    except (ConditionFailed, library.LibraryMissing) as failed:
        # Without its causes: what they hold may come from the caller, and would be logged.
        raise ConditionFailed(str(failed)) from None
    except Exception as error:
        # RecursionError near the end of the caller's stack, a fact that breaks when it is read: closed.
        raise ConditionFailed(f"it could not be evaluated ({type(error).__name__})") from None


def _program(source: str) -> Program | ConditionError:
    library.load()
    return _compiled(source)


@lru_cache(maxsize=_PROGRAMS)
def _compiled(source: str) -> Program | ConditionError:
    """A bad text in the database is remembered as such: it is not compiled again for every call."""
    try:
        return build(source)
    except ConditionError as error:
        return error
