"""The values conditions compute with: their kinds, their limits, and when two are the same.

Values of different kinds are never compared: `"50000"` is neither above nor below 10000, nor different from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from jit_approval.conditions.errors import TooMuch, Trouble

MAX_ENTRIES = 200
"""Entries of one list or map."""
MAX_TEXT = 20_000
"""Characters of one string."""
MAX_DEPTH = 32
"""Lists and maps inside one another."""
MAX_VALUES = 10_000
"""Values of one variable in all."""
MAX_STEPS = 50_000
"""Steps of one evaluation."""
INT64 = range(-(2**63), 2**63)


class Kind(StrEnum):
    """CEL's names of its types. A decimal is a number that came from the view, compared exactly."""

    NULL = "null_type"
    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    DECIMAL = "decimal"
    STRING = "string"
    LIST = "list"
    MAP = "map"
    TIMESTAMP = "google.protobuf.Timestamp"
    DURATION = "google.protobuf.Duration"
    TYPE = "type"


_KINDS: dict[type, Kind] = {
    type(None): Kind.NULL,
    bool: Kind.BOOL,
    int: Kind.INT,
    float: Kind.DOUBLE,
    Decimal: Kind.DECIMAL,
    str: Kind.STRING,
    list: Kind.LIST,
    dict: Kind.MAP,
    datetime: Kind.TIMESTAMP,
    timedelta: Kind.DURATION,
    Kind: Kind.TYPE,
}
NUMBERS = frozenset({Kind.INT, Kind.DOUBLE, Kind.DECIMAL})
_ORDERED = NUMBERS | {Kind.BOOL, Kind.STRING, Kind.TIMESTAMP, Kind.DURATION}
# Stands for NaN, numbers beyond 64 bits and objects of other classes: they do no harm until they are used.
_UNUSABLE = object()


def kind(value: Any) -> Kind:
    """Return the kind of a value. Raises Trouble on one that conditions cannot read."""
    found = _KINDS.get(type(value))
    if found is None:
        raise Trouble("a value that conditions cannot read")
    return found


class Run:
    """One evaluation: its facts, what macros have bound, and how many steps are left."""

    __slots__ = ("facts", "left", "names")

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.names: dict[str, Any] = {}
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Raise TooMuch when no steps are left."""
        self.left -= steps
        if self.left < 0:
            raise TooMuch("the condition takes too many steps on this data")


# --- facts in --------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a fact as a value of ours, copied. Raises TooMuch above any of the limits."""
    return _Copier().copy(value, 1)


class _Copier:
    def __init__(self) -> None:
        self.left = MAX_VALUES

    def copy(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise TooMuch("more data than conditions read")
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, Mapping):
            _ensure_small(value, depth)
            return {self._key(key): self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            _ensure_small(value, depth)
            return [self.copy(item, depth + 1) for item in value]
        return _scalar(value)

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise TooMuch("a map whose keys are not text")
        return _text(key)


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise TooMuch(f"a text of more than {MAX_TEXT} characters")
    # A subclass, such as a member of TextChoices, becomes the text it is.
    return value if type(value) is str else str.__str__(value)


def _ensure_small(value: Any, depth: int) -> None:
    if len(value) > MAX_ENTRIES:
        raise TooMuch(f"a list or map of more than {MAX_ENTRIES} entries")
    if depth > MAX_DEPTH:
        raise TooMuch(f"lists or maps nested more than {MAX_DEPTH} deep")


def _scalar(value: Any) -> Any:
    if value is None or type(value) is bool or type(value) is timedelta:
        return value
    if type(value) is int:
        return value if value in INT64 else _UNUSABLE
    if type(value) is float:
        return value if math.isfinite(value) else _UNUSABLE
    if type(value) is Decimal:
        return value if value.is_finite() and abs(value.adjusted()) < 64 else _UNUSABLE
    if type(value) is datetime and value.tzinfo is not None:
        return _utc(value)
    return _UNUSABLE


def _utc(value: datetime) -> Any:
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        return _UNUSABLE


# --- comparing -------------------------------------------------------------------------------------------


def _family(found: Kind) -> str:
    return "number" if found in NUMBERS else found


def _ensure_comparable(a: Any, b: Any) -> Kind:
    one, other = kind(a), kind(b)
    if one is not other and _family(one) != _family(other):
        raise Trouble(f"{one} compared with {other}")
    return one


def same(run: Run, a: Any, b: Any) -> bool:
    """Whether two values are equal; numbers by value. Raises Trouble where kinds differ, inside too."""
    run.spend(1)
    found = _ensure_comparable(a, b)
    if found is Kind.LIST:
        # Every pair is looked at: one that differs must not hide one that cannot be compared.
        return len(a) == len(b) and all([same(run, x, y) for x, y in zip(a, b, strict=True)])
    if found is Kind.MAP:
        return a.keys() == b.keys() and all([same(run, a[key], b[key]) for key in a])
    if found is Kind.STRING:
        run.spend(len(a) >> 8)
    return bool(a == b)


def ensure_ordered(run: Run, a: Any, b: Any) -> None:
    """Raise Trouble unless one of the two values is less than the other, or they are equal."""
    found = _ensure_comparable(a, b)
    if found not in _ORDERED:
        raise Trouble(f"{found} has no order")
    if found is Kind.STRING:
        run.spend(len(a) >> 8)


def contains(run: Run, item: Any, container: Any) -> bool:
    """`item in container`. An element of another kind than `item` is trouble, unless another one is equal."""
    found = kind(container)
    if found is Kind.MAP:
        if kind(item) is not Kind.STRING:
            raise Trouble(f"{kind(item)} looked for among the keys of a map")
        return item in container
    if found is not Kind.LIST:
        raise Trouble(f"'in' asked of {found}")
    trouble = None
    for element in container:
        try:
            if same(run, item, element):
                return True
        except Trouble as error:
            trouble = error
    if trouble is not None:
        raise trouble
    # Nothing was compared with an empty list; what cannot be read still is no answer.
    kind(item)
    return False
