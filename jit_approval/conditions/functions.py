"""The operators and functions of conditions: a subset of CEL's, each refusing what CEL refuses, or more."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jit_approval.conditions.errors import TooMuch, Trouble
from jit_approval.conditions.times import duration, get, timestamp
from jit_approval.conditions.values import (
    INT64,
    MAX_ENTRIES,
    MAX_TEXT,
    NUMBERS,
    Kind,
    Run,
    contains,
    ensure_ordered,
    kind,
    same,
)

Function = Callable[..., Any]
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


def _no_overload(name: str, *values: Any) -> Trouble:
    return Trouble(f"{name} of {', '.join(kind(value) for value in values)}")


# --- comparing -------------------------------------------------------------------------------------------


def _ordering(holds: Callable[[Any, Any], bool]) -> Function:
    def compare(run: Run, a: Any, b: Any) -> bool:
        ensure_ordered(run, a, b)
        return holds(a, b)

    return compare


def _differ(run: Run, a: Any, b: Any) -> bool:
    return not same(run, a, b)


# --- reckoning -------------------------------------------------------------------------------------------


def _in_range(value: Any) -> Any:
    if type(value) is int and value not in INT64:
        raise Trouble("an integer beyond 64 bits")
    if type(value) is float and not math.isfinite(value):
        raise Trouble("no finite number")
    return value


def _arithmetic(name: str, compute: Callable[[Any, Any], Any]) -> Function:
    def reckon(run: Run, a: Any, b: Any) -> Any:
        if kind(a) is kind(b) and kind(a) in (Kind.INT, Kind.DOUBLE):
            return _in_range(compute(a, b))
        raise _no_overload(name, a, b)

    return reckon


def _add(run: Run, a: Any, b: Any) -> Any:
    pair = kind(a), kind(b)
    if pair in ((Kind.STRING, Kind.STRING), (Kind.LIST, Kind.LIST)):
        return _joined(run, a, b)
    if pair in ((Kind.INT, Kind.INT), (Kind.DOUBLE, Kind.DOUBLE)):
        return _in_range(a + b)
    if Kind.DURATION in pair and set(pair) <= {Kind.TIMESTAMP, Kind.DURATION}:
        return a + b
    raise _no_overload("+", a, b)


def _joined(run: Run, a: Any, b: Any) -> Any:
    if len(a) + len(b) > (MAX_TEXT if type(a) is str else MAX_ENTRIES):
        raise TooMuch("a text or list grows too long")
    run.spend((len(a) + len(b)) >> 6)
    return a + b


def _subtract(run: Run, a: Any, b: Any) -> Any:
    pair = kind(a), kind(b)
    if pair in ((Kind.INT, Kind.INT), (Kind.DOUBLE, Kind.DOUBLE)):
        return _in_range(a - b)
    times = (Kind.TIMESTAMP, Kind.TIMESTAMP), (Kind.TIMESTAMP, Kind.DURATION)
    if pair in (*times, (Kind.DURATION, Kind.DURATION)):
        return a - b
    raise _no_overload("-", a, b)


def _divide(a: Any, b: Any) -> Any:
    if b == 0:
        raise Trouble("division by zero")
    if type(a) is float:
        return a / b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _modulo(run: Run, a: Any, b: Any) -> Any:
    if kind(a) is not Kind.INT or kind(b) is not Kind.INT:
        raise _no_overload("%", a, b)
    if b == 0:
        raise Trouble("division by zero")
    return a - b * _divide(a, b)


def _negate(run: Run, a: Any) -> Any:
    if kind(a) not in (Kind.INT, Kind.DOUBLE):
        raise _no_overload("-", a)
    return _in_range(-a)


def _not(run: Run, a: Any) -> bool:
    if type(a) is not bool:
        raise _no_overload("!", a)
    return not a


# --- parts -----------------------------------------------------------------------------------------------


def _index(run: Run, container: Any, key: Any) -> Any:
    found = kind(container)
    if found is Kind.MAP and kind(key) is Kind.STRING:
        if key not in container:
            raise Trouble("no such key")
        return container[key]
    if found is Kind.LIST and kind(key) is Kind.INT:
        if not 0 <= key < len(container):
            raise Trouble("no such index")
        return container[key]
    raise _no_overload("[]", container, key)


def _size(run: Run, value: Any) -> int:
    if kind(value) not in (Kind.STRING, Kind.LIST, Kind.MAP):
        raise _no_overload("size", value)
    return len(value)


def _on_texts(name: str, holds: Callable[[str, str], bool]) -> Function:
    def ask(run: Run, text: Any, part: Any) -> bool:
        if kind(text) is not Kind.STRING or kind(part) is not Kind.STRING:
            raise _no_overload(name, text, part)
        run.spend((len(text) + len(part)) >> 4)
        return holds(text, part)

    return ask


# --- conversions -----------------------------------------------------------------------------------------


def _int(run: Run, value: Any) -> Any:
    found = kind(value)
    if found in NUMBERS:
        return _in_range(int(value))
    if found is Kind.STRING and _INTEGER.fullmatch(value):
        return _in_range(int(value))
    if found is Kind.TIMESTAMP:
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    raise Trouble(f"int() cannot read this {found}")


def _double(run: Run, value: Any) -> Any:
    found = kind(value)
    if found in NUMBERS or (found is Kind.STRING and _NUMBER.fullmatch(value)):
        return _in_range(float(value))
    raise Trouble(f"double() cannot read this {found}")


def _string(run: Run, value: Any) -> str:
    found = kind(value)
    if found is Kind.BOOL:
        return "true" if value else "false"
    if found in (Kind.INT, Kind.STRING):
        return str(value)
    raise Trouble(f"string() of {found}")


def _timestamp(run: Run, value: Any) -> datetime:
    if kind(value) is Kind.STRING:
        return timestamp(value)
    if kind(value) is Kind.TIMESTAMP:
        return value  # type: ignore[no-any-return]
    raise _no_overload("timestamp", value)


def _duration(run: Run, value: Any) -> timedelta:
    if kind(value) is Kind.STRING:
        return duration(value)
    if kind(value) is Kind.DURATION:
        return value  # type: ignore[no-any-return]
    raise _no_overload("duration", value)


def _type(run: Run, value: Any) -> Kind:
    return kind(value)


def _getter(name: str) -> Function:
    def ask(run: Run, value: Any, zone: str = "UTC") -> int:
        if kind(value) not in (Kind.TIMESTAMP, Kind.DURATION) or kind(zone) is not Kind.STRING:
            raise _no_overload(name, value, zone)
        return get(name, value, zone)

    return ask


GETTERS = [
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
]
CONVERSIONS = {"int": _int, "double": _double, "timestamp": _timestamp, "duration": _duration}
FUNCTIONS: dict[str, Function] = {
    "_==_": same,
    "_!=_": _differ,
    "_<_": _ordering(operator.lt),
    "_<=_": _ordering(operator.le),
    "_>_": _ordering(operator.gt),
    "_>=_": _ordering(operator.ge),
    "@in": contains,
    "_+_": _add,
    "_-_": _subtract,
    "_*_": _arithmetic("*", operator.mul),
    "_/_": _arithmetic("/", _divide),
    "_%_": _modulo,
    "-_": _negate,
    "!_": _not,
    "_[_]": _index,
    "size": _size,
    "contains": _on_texts("contains", operator.contains),
    "startsWith": _on_texts("startsWith", str.startswith),
    "endsWith": _on_texts("endsWith", str.endswith),
    "string": _string,
    "type": _type,
    **CONVERSIONS,
    **{name: _getter(name) for name in GETTERS},
}
