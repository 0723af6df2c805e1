"""A checked expression as something to run: one closure per node, nothing shared between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jit_approval.conditions import library, rules
from jit_approval.conditions.errors import ConditionError, Trouble
from jit_approval.conditions.functions import FUNCTIONS
from jit_approval.conditions.syntax import Call, Constant, Fold, ListOf, MapOf, Name, Node, Select
from jit_approval.conditions.values import Kind, Run, kind

Step = Callable[[Run], Any]


class Builder:
    """Makes the step of a node out of the steps of its parts. `source` is for the places in messages."""

    def __init__(self, source: str) -> None:
        self.source = source

    def place(self, node: Node) -> str:
        """Where a node stands, for people."""
        return "line {}, column {}".format(*rules.place(self.source, node.offset))

    def step(self, node: Node) -> Step:
        """Return what computes a node."""
        match node:
            case Constant():
                return _constant(node.value)
            case Name():
                return _name(node.name)
            case Select():
                return _select(self.step(node.operand), node, self.place(node))
            case ListOf():
                return _list([self.step(item) for item in node.items])
            case MapOf():
                pairs = [(self.step(key), self.step(item)) for key, item in node.pairs if key]
                return _map(pairs, self.place(node))
            case Fold():
                return self._of_fold(node)
            case Call():
                return self._of_call(node)
        raise ConditionError("this is no expression conditions know")

    def _of_call(self, node: Call) -> Step:
        place = self.place(node)
        if node.function in ("_==_", "_!=_"):
            # null may be asked about; it is no value of another kind then.
            others = [side for side in node.arguments if not _is_null(side)]
            if len(others) < 2:
                asked = self.step((*others, node.arguments[0])[0])
                return _null_test(asked, node.function == "_==_", place)
        if node.function == "matches":
            text, pattern = node.arguments
            return _matches(self.step(text), getattr(pattern, "value", ""), place)
        steps = [self.step(argument) for argument in node.arguments]
        if node.function == "_&&_":
            return _logic(steps, False, place)
        if node.function == "_||_":
            return _logic(steps, True, place)
        if node.function == "_?_:_":
            return _choice(steps, place)
        if node.function == "@not_strictly_false":
            return _not_strictly_false(steps[0])
        return _call(FUNCTIONS[node.function], steps, place)

    def _of_fold(self, node: Fold) -> Step:
        items, start = self.step(node.items), self.step(node.start)
        proceed, step, result = (self.step(part) for part in (node.proceed, node.step, node.result))
        variable, accumulator, place = node.variable, node.accumulator, self.place(node)

        def fold(run: Run) -> Any:
            found = items(run)
            if kind(found) not in (Kind.LIST, Kind.MAP):
                raise Trouble(f"a macro over {kind(found)}").at(place)
            names = run.names
            names[accumulator] = start(run)
            for item in found:
                run.spend(1)
                names[variable] = item
                if proceed(run) is not True:
                    break
                try:
                    names[accumulator] = step(run)
                except Trouble as trouble:
                    # Kept like a value: a later element may settle the question without it.
                    names[accumulator] = trouble.with_traceback(None)
            return result(run)

        return fold


def _is_null(node: Node) -> bool:
    return isinstance(node, Constant) and node.kind == "null"


def _constant(value: Any) -> Step:
    return lambda run: value


def _name(name: str) -> Step:
    if name in rules.TYPES:
        found = Kind(name)
        return lambda run: found

    def read(run: Run) -> Any:
        run.left -= 1
        # What a macro binds hides a fact of that name.
        value = run.names[name] if name in run.names else run.facts[name]
        if isinstance(value, Trouble):
            raise value
        return value

    return read


def _select(operand: Step, node: Select, place: str) -> Step:
    field, only_test = node.field, node.only_test

    def select(run: Run) -> Any:
        run.spend(1)
        found = operand(run)
        if type(found) is not dict:
            raise Trouble(f"'{field}' asked of a value that has no fields").at(place)
        if only_test:
            return field in found
        if field not in found:
            raise Trouble(f"'{field}' is missing").at(place)
        return found[field]

    return select


def _list(items: list[Step]) -> Step:
    def build(run: Run) -> Any:
        run.spend(len(items))
        return [item(run) for item in items]

    return build


def _map(pairs: list[tuple[Step, Step]], place: str) -> Step:
    def build(run: Run) -> Any:
        run.spend(len(pairs))
        found: dict[str, Any] = {}
        for key_step, item in pairs:
            key = key_step(run)
            if kind(key) is not Kind.STRING or key in found:
                raise Trouble("a map's keys are text, each given once").at(place)
            found[key] = item(run)
        return found

    return build


def _call(function: Callable[..., Any], arguments: list[Step], place: str) -> Step:
    def call(run: Run) -> Any:
        run.spend(1)
        values = [argument(run) for argument in arguments]
        try:
            return function(run, *values)
        except Trouble as trouble:
            raise trouble.at(place) from None
        except (ArithmeticError, ValueError):
            raise Trouble("out of range").at(place) from None

    return call


def _null_test(asked: Step, wanted: bool, place: str) -> Step:
    def test(run: Run) -> bool:
        run.spend(1)
        try:
            return (kind(asked(run)) is Kind.NULL) is wanted
        except Trouble as trouble:
            raise trouble.at(place) from None

    return test


def _matches(text: Step, pattern: str, place: str) -> Step:
    search = library.matcher(pattern)

    def matches(run: Run) -> bool:
        found = text(run)
        if kind(found) is not Kind.STRING:
            raise Trouble(f"matches of {kind(found)}").at(place)
        # The library compiles the pattern anew each time: up to 0.4 ms, and as much again for the text.
        run.spend(200 + (len(found) >> 2))
        try:
            return search(found)
        except Trouble as trouble:
            raise trouble.at(place) from None

    return matches


def _bool(step: Step, run: Run, place: str) -> bool:
    found = step(run)
    if type(found) is not bool:
        raise Trouble(f"{kind(found)} where true or false is due").at(place)
    return found


def _logic(steps: list[Step], settles: bool, place: str) -> Step:
    left, right = steps

    def logic(run: Run) -> bool:
        run.spend(1)
        try:
            if _bool(left, run, place) is settles:
                return settles
        except Trouble:
            # CEL: `error || true` is true, whichever side comes first; else the error stands.
            if _bool(right, run, place) is settles:
                return settles
            raise
        return _bool(right, run, place)

    return logic


def _choice(steps: list[Step], place: str) -> Step:
    condition, then, otherwise = steps

    def choice(run: Run) -> Any:
        run.spend(1)
        return then(run) if _bool(condition, run, place) else otherwise(run)

    return choice


def _not_strictly_false(asked: Step) -> Step:
    def test(run: Run) -> bool:
        try:
            return asked(run) is not False
        except Trouble:
            return True

    return test
