"""A checked expression as a tree, read from the form CEL publishes: the protobuf message `cel.expr.CheckedExpr`.

https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto; numbers below are its fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """`offset` is where it stands in the source, in characters from 0."""

    offset: int


@dataclass(frozen=True)
class Constant(Node):
    """`kind` is null, bool, int, uint, double, string, bytes or other."""

    kind: str
    value: Any


@dataclass(frozen=True)
class Name(Node):
    """A variable, one of its fixed fields, what a macro binds, or a type."""

    name: str


@dataclass(frozen=True)
class Select(Node):
    """`operand.field`, or `has(operand.field)`."""

    operand: Node
    field: str
    only_test: bool


@dataclass(frozen=True)
class Call(Node):
    """A function or operator; what it is called on comes first."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class ListOf(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class MapOf(Node):
    """`{"a": b}`; a message, which conditions do not have, has a name and no keys."""

    message: str
    pairs: tuple[tuple[Node | None, Node], ...]


@dataclass(frozen=True)
class Fold(Node):
    """What every macro over a list comes to."""

    variable: str
    items: Node
    accumulator: str
    start: Node
    proceed: Node
    step: Node
    result: Node


def read(serialised: bytes) -> Node:
    """Return the tree of a serialised CheckedExpr. Raises ValueError on what it does not know."""
    checked = _Message(_Message(serialised).bytes(2))
    source_info = _Message(checked.bytes(5))
    positions = {}
    for entry in map(_Message, source_info.all(4)):
        positions[entry.number(1)] = entry.number(2)
    return _expression(_Message(checked.bytes(4)), positions)


def _expression(message: _Message, positions: dict[int, int]) -> Node:
    offset = positions.get(message.number(2), 0)

    def sub(part: bytes) -> Node:
        return _expression(_Message(part), positions)

    def subs(parts: list[bytes]) -> tuple[Node, ...]:
        return tuple(sub(part) for part in parts)

    if message.has(3):
        return _constant(offset, _Message(message.bytes(3)))
    if message.has(4):
        return Name(offset, _Message(message.bytes(4)).text(1).removeprefix("."))
    if message.has(5):
        select = _Message(message.bytes(5))
        return Select(offset, sub(select.bytes(1)), select.text(2), bool(select.number(3)))
    if message.has(6):
        call = _Message(message.bytes(6))
        return Call(offset, call.text(2), subs(call.all(1) + call.all(3)))
    if message.has(7):
        return ListOf(offset, subs(_Message(message.bytes(7)).all(1)))
    if message.has(8):
        return _map(offset, _Message(message.bytes(8)), sub)
    if message.has(9):
        fold = _Message(message.bytes(9))
        parts = (sub(fold.bytes(number)) for number in (4, 5, 6, 7))
        return Fold(offset, fold.text(1), sub(fold.bytes(2)), fold.text(3), *parts)
    raise ValueError("an expression of a kind that is not known")


def _map(offset: int, message: _Message, sub: Any) -> MapOf:
    pairs = []
    for entry in map(_Message, message.all(2)):
        key = sub(entry.bytes(3)) if entry.has(3) else None
        pairs.append((key, sub(entry.bytes(4))))
    return MapOf(offset, message.text(1), tuple(pairs))


def _constant(offset: int, message: _Message) -> Constant:
    if message.has(1):
        return Constant(offset, "null", None)
    if message.has(2):
        return Constant(offset, "bool", bool(message.number(2)))
    if message.has(3):
        number = message.number(3)
        return Constant(offset, "int", number - (1 << 64) if number >> 63 else number)
    if message.has(5):
        return Constant(offset, "double", struct.unpack("<d", message.bytes(5))[0])
    if message.has(6):
        return Constant(offset, "string", message.text(6))
    return Constant(offset, "other", None)


class _Message:
    """The fields of one protobuf message, by number. https://protobuf.dev/programming-guides/encoding/."""

    def __init__(self, encoded: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in _fields(encoded):
            self._fields.setdefault(number, []).append(value)

    def has(self, number: int) -> bool:
        return number in self._fields

    def all(self, number: int) -> list[bytes]:
        return [value for value in self._fields.get(number, []) if isinstance(value, bytes)]

    def bytes(self, number: int) -> bytes:
        value = self._fields.get(number, [b""])[-1]
        if not isinstance(value, bytes):
            raise ValueError("a number where a message was expected")
        return value

    def number(self, number: int) -> int:
        value = self._fields.get(number, [0])[-1]
        if not isinstance(value, int):
            raise ValueError("a message where a number was expected")
        return value

    def text(self, number: int) -> str:
        return self.bytes(number).decode()


def _fields(encoded: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(encoded):
        tag, at = _varint(encoded, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(encoded, at)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(wire_type)
        if wire_type == 2:
            length, at = _varint(encoded, at)
        if length is None or at + length > len(encoded):
            raise ValueError("a broken message")
        yield number, encoded[at : at + length]
        at += length


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(encoded) or shift > 63:
            raise ValueError("a broken message")
        byte = encoded[at]
        at += 1
        result |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return result, at
