"""The CEL library, imported when a condition is first met: it parses, checks types, and matches patterns.

It never sees what a caller sent, but for the text a literal pattern is matched against.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jit_approval.conditions.errors import ConditionError, Trouble

MODULE = "cel_expr_python.cel"
# The fields of `request` and `user` are names of their own: a field that is none is an unknown name,
# and each has its type.
VARIABLES = {
    "action": "string",
    "agent": "string",
    "now": "timestamp",
    "object": "map(string, dyn)",
    "request.method": "string",
    "request.path": "string",
    "request.query": "map(string, dyn)",
    "request.data": "dyn",
    "request.ip": "string",
    "request.headers": "map(string, string)",
    "request.agent": "string",
    "user.id": "string",
    "user.username": "string",
    "user.groups": "list(string)",
    "user.is_staff": "bool",
    "user.is_superuser": "bool",
}
_LOCK = threading.Lock()
_FIRST_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_TIDY = (
    (re.compile(r"^Syntax error: "), ""),
    (re.compile(r" expecting .*"), ""),
    (re.compile(r"'<EOF>'"), "the end"),
    (re.compile(r"undeclared reference to ('.*') \(in container ''\)"), r"unknown name \1"),
    (
        re.compile(r"found no matching overload for '[_@]?(.+?)_?' applied to"),
        r"'\1' does not take",
    ),
)


class LibraryMissing(ConditionError):
    """The extra `cel` is not installed."""


def load() -> Any:
    """Return the library's module.

    Raises:
        LibraryMissing: it is not installed, or does not load here.
    """
    try:
        return importlib.import_module(MODULE)
    except ImportError:
        raise LibraryMissing(
            "Conditions need a library that is not installed: pip install django-jit-approval[cel]"
        ) from None


def compile_checked(source: str) -> tuple[bytes, str]:
    """Return the checked expression, serialised, and the name of the type it results in.

    Raises:
        ConditionError: bad syntax, an unknown name, types that do not go together.
    """
    environment = _environment(load())
    try:
        with _LOCK:
            expression = environment.compile(source)
            return expression.serialize(), expression.return_type().name()
    except RuntimeError as error:
        raise _translated(str(error)) from None


@lru_cache(maxsize=1)
def _environment(cel: Any) -> Any:
    # Not cel.Type("list(string)"): that makes an opaque type of this name.
    types = {
        "string": cel.Type.STRING,
        "bool": cel.Type.BOOL,
        "timestamp": cel.Type.TIMESTAMP,
        "dyn": cel.Type.DYN,
        "list(string)": cel.Type.List(cel.Type.STRING),
        "map(string, string)": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
        "map(string, dyn)": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    }
    return cel.NewEnv(variables={name: types[sort] for name, sort in VARIABLES.items()})


def _translated(report: str) -> ConditionError:
    found = _FIRST_ERROR.search(report)
    if "recursion" in report or found is None:
        nested = "recursion" in report
        return ConditionError("nested too deeply" if nested else "this is no CEL expression")
    line, column, message = found.groups()
    for pattern, replacement in _TIDY:
        message = pattern.sub(replacement, message)
    return ConditionError(message, max(1, int(line)), max(1, int(column)))


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what searches a text for an RE2 pattern, in time linear in the text.

    Raises:
        Trouble: it is no RE2 pattern.
    """
    if "\0" in pattern:
        raise Trouble("a pattern with a NUL character")
    cel = load()
    environment = cel.NewEnv(
        variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING},
    )
    with _LOCK:
        expression = environment.compile("text.matches(pattern)")

    def search(text: str) -> bool:
        # The library reads a text up to its first NUL: "abc\0;" would match ^[a-z]+$.
        if "\0" in text:
            raise Trouble("a pattern asked about text with a NUL character")
        try:
            found = expression.eval(data={"text": text, "pattern": pattern}).value()
        except (RuntimeError, UnicodeError):
            found = None
        if type(found) is not bool:
            raise Trouble("the pattern could not be applied")
        return found

    search("")
    return search
