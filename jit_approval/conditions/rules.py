"""What CEL allows and conditions do not: whatever could cost more than it is worth, or mean less than it says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from jit_approval.conditions import library, times
from jit_approval.conditions.errors import ConditionError, Trouble
from jit_approval.conditions.functions import CONVERSIONS, FUNCTIONS, GETTERS
from jit_approval.conditions.syntax import Call, Constant, Fold, ListOf, MapOf, Name, Node, Select
from jit_approval.conditions.values import Kind, Run

MAX_SOURCE = 2000
"""Characters of a condition."""
MAX_PATTERN = 200
"""Characters of a pattern."""
MAX_REPEAT = 50
"""A pattern's counted repetitions, multiplied."""
LOGIC = frozenset({"_&&_", "_||_", "_?_:_", "@not_strictly_false"})
RESERVED = frozenset({"action", "now", "object", "request", "user"})
TYPES = frozenset(Kind) - {Kind.DECIMAL}
_REPEAT = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")


class Refused(Exception):
    """A rule is broken at a place in the source."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def place(source: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of an offset."""
    before = source[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def ensure_text(source: str) -> None:
    """Refuse what the library should not be given at all.

    Raises:
        ConditionError: too long, empty, or not to be printed.
    """
    if not source.strip():
        raise ConditionError("a condition says something")
    if len(source) > MAX_SOURCE:
        raise ConditionError(
            f"a condition has {MAX_SOURCE} characters at most", *place(source, MAX_SOURCE)
        )
    for offset, character in enumerate(source):
        if not (character.isprintable() or character in "\t\r\n"):
            raise ConditionError(
                "characters that cannot be seen are written as escapes, as in \\u200b",
                *place(source, offset),
            )


def ensure_allowed(tree: Node, source: str) -> None:
    """Refuse what conditions leave out of CEL. Raises Refused."""
    folds = [node for node, _ in _walk(tree, False) if isinstance(node, Fold)]
    known = {name for fold in folds for name in (fold.variable, fold.accumulator)}
    known |= library.VARIABLES.keys() | TYPES
    for node, inside in _walk(tree, False):
        match node:
            case Constant():
                _ensure_constant(node)
            case Name():
                _ensure_name(node, source, known)
            case MapOf():
                _ensure_map(node)
            case Call():
                _ensure_call(node)
            case Fold():
                _ensure_fold(node, inside)


def variables(tree: Node) -> frozenset[str]:
    """Return the facts an expression asks for, as in `request.data`."""
    names = {node.name for node, _ in _walk(tree, False) if isinstance(node, Name)}
    return frozenset(names & library.VARIABLES.keys())


def _walk(node: Node, inside: bool) -> Iterator[tuple[Node, bool]]:
    # `inside` a macro is its body, and what it runs over.
    yield node, inside
    for child in _children(node):
        yield from _walk(child, inside or isinstance(node, Fold))


def _children(node: Node) -> Iterator[Node]:
    match node:
        case Select():
            yield node.operand
        case Call():
            yield from node.arguments
        case ListOf():
            yield from node.items
        case MapOf():
            for key, value in node.pairs:
                yield from (part for part in (key, value) if part)
        case Fold():
            yield from (node.items, node.start, node.proceed, node.step, node.result)


def _ensure_constant(node: Constant) -> None:
    if node.kind == "other":
        raise Refused("bytes and unsigned integers are not available in conditions", node.offset)
    if node.kind == "double" and not math.isfinite(node.value):
        raise Refused("no finite number", node.offset)


def _ensure_name(node: Name, source: str, known: AbstractSet[str]) -> None:
    if node.name not in known:
        raise Refused(f"{node.name!r} is not available in conditions", node.offset)
    # The library reads has(request.data) as request.data: the field is always there, and a map is no bool.
    if "." in node.name and source[node.offset : node.offset + 1] == "(":
        raise Refused(
            "has() takes a field of request.data or object; this is always there", node.offset
        )


def _ensure_map(node: MapOf) -> None:
    if node.message:
        raise Refused("messages are not available in conditions", node.offset)
    for key, _ in node.pairs:
        if key is None or (isinstance(key, Constant) and key.kind != "string"):
            raise Refused("the keys of a map are text", node.offset)


def _ensure_fold(node: Fold, inside: bool) -> None:
    if inside:
        raise Refused(
            "all, exists, exists_one, map and filter do not go inside one another", node.offset
        )
    if node.variable in RESERVED or node.variable in TYPES:
        raise Refused(f"{node.variable!r} already means something", node.offset)


def _ensure_call(node: Call) -> None:
    name = node.function
    if name not in FUNCTIONS and name not in LOGIC and name != "matches":
        raise Refused(f"'{name.strip('_@')}' is not available in conditions", node.offset)
    literals = [argument for argument in node.arguments if isinstance(argument, Constant)]
    try:
        if name == "matches":
            _ensure_pattern(node)
        elif name in GETTERS and len(node.arguments) > 1:
            _ensure_zone(node.arguments[1])
        elif name in CONVERSIONS and literals:
            CONVERSIONS[name](Run({}), literals[0].value)
    except Trouble as trouble:
        raise Refused(str(trouble), node.offset) from None


def _ensure_zone(node: Node) -> None:
    if not isinstance(node, Constant):
        raise Refused("a time zone is written out", node.offset)
    times.zone(node.value)


def _ensure_pattern(node: Call) -> None:
    pattern = node.arguments[1]
    if not isinstance(pattern, Constant):
        raise Refused("a pattern is written out: data must not become one", pattern.offset)
    if len(pattern.value) > MAX_PATTERN:
        raise Refused(f"a pattern has {MAX_PATTERN} characters at most", pattern.offset)
    if re.search(r"\\[pP]", pattern.value):
        # The library compiles a pattern each time it is asked: 1 ms for each class of Unicode.
        raise Refused("classes such as \\pL are not available in patterns", pattern.offset)
    product = 1
    for low, high in _REPEAT.findall(pattern.value):
        product *= max(1, int((high or low)[:9]), int(low[:9]))
    if product > MAX_REPEAT:
        raise Refused(
            f"a pattern's repetitions come to {MAX_REPEAT} at most, multiplied", pattern.offset
        )
    library.matcher(pattern.value)
