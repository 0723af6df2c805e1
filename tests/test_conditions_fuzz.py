"""Ten thousand generated conditions on hostile data: only our own errors leave, and no failure counts as false.

Where a condition does come to an answer, the library's own evaluator has to come to the same one.
"""

from __future__ import annotations

import importlib
import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from jit_approval.conditions import ConditionError, ConditionFailed, check, evaluate, library

EXPRESSIONS = 10_000
CONTEXTS_EACH = 2
NOW = datetime(2026, 3, 1, 18, 30, 15, 250_000, tzinfo=UTC)
READABLE: list[Any] = [
    None, True, False, 0, 1, -1, 5, 10_000, 10_001, 2**53, 2**63 - 1, -(2**63),
    0.0, -0.0, 0.5, 10_000.0, 1e308, 5e-324,
    "", "a", "wire", "WIRE", "w\u00edre", "10001", "5e4", "true", "null", "😀", "1h",
    "2026-01-01T00:00:00Z", "x" * 300, [], ["wire"], [1, "a", None], [[1]], [{"k": 1}, {"k": "1"}],
    [{"k": 1}, {}, 3], {}, {"k": 1}, {"k": "wire"}, {"k": {"k": [1]}}, {"": 0}, list(range(200)),
]  # fmt: skip
# The library does not read these at all, or reads them as something else: text up to a NUL, for one.
UNREADABLE: list[Any] = [
    2**63, 10**30, float("nan"), float("inf"), Decimal("10000.01"), "\ud800", "wire\x00", b"wire", object(),
    list(range(201)), {"k": "y" * 20_001}, {1: 1},
]  # fmt: skip
NAMES = ["a", "b", "k", "amount", "kind"]


class Source:
    """Makes expressions at random: mostly well-typed, so that most of them get as far as being asked."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.bound: list[str] = []

    def pick(self, *options: str) -> str:
        return self.random.choice(options)

    def bool(self, depth: int) -> str:
        if depth <= 0:
            return self.pick("true", "false", "user.is_staff", f"has({self.path()}.k)", self.path())
        deeper = depth - 1
        choices = [
            lambda: f"({self.bool(deeper)}) && ({self.bool(deeper)})",
            lambda: f"({self.bool(deeper)}) || ({self.bool(deeper)})",
            lambda: f"!({self.bool(deeper)})",
            lambda: f"(({self.bool(deeper)}) ? ({self.bool(deeper)}) : ({self.bool(deeper)}))",
            lambda: f"({self.number(deeper)} {self.comparison()} {self.number(deeper)})",
            lambda: f"({self.text(deeper)} {self.comparison()} {self.text(deeper)})",
            lambda: f"({self.any(deeper)} {self.pick('==', '!=')} {self.any(deeper)})",
            lambda: f"({self.any(deeper)} in {self.list(deeper)})",
            lambda: (
                f"{self.text(deeper)}.{self.pick('contains', 'startsWith', 'endsWith')}({self.text(0)})"
            ),
            lambda: f'{self.text(0)}.matches("{self.pick("^a", "w.*e$", "(a+)+$", "[0-9]{3}")}")',
            lambda: self.macro(deeper),
            lambda: f"(now {self.comparison()} {self.time(deeper)})",
            lambda: (
                f"(type({self.path()}) == {self.pick('int', 'string', 'bool', 'list', 'null_type')})"
            ),
            lambda: f"({self.path()} {self.pick('==', '!=')} null)",
        ]
        return self.random.choice(choices)()

    def macro(self, depth: int) -> str:
        if self.bound:
            return "true"
        items = self.list(depth)
        self.bound.append("x")
        try:
            inner = self.bool(depth)
            kind = self.pick("all", "exists", "exists_one", "filter", "map")
        finally:
            self.bound.pop()
        call = f"{items}.{kind}(x, {inner})"
        return call if kind not in ("filter", "map") else f"(size({call}) > 0)"

    def comparison(self) -> str:
        return self.pick("==", "!=", "<", "<=", ">", ">=")

    def path(self) -> str:
        root = self.pick("request.data", "request.data", "object", "request.query", *self.bound)
        steps = [
            self.pick(f".{self.pick(*NAMES)}", f'["{self.pick(*NAMES)}"]', "[0]", ".a")
            for _ in range(self.random.randint(1, 2))
        ]
        # The checker knows that these are maps by text.
        if root in ("object", "request.query") and steps[0] == "[0]":
            steps[0] = ".a"
        return root + "".join(steps)

    def number(self, depth: int) -> str:
        if depth <= 0 or self.random.random() < 0.4:
            return self.pick(
                "0", "1", "-1", "10000", "9223372036854775807", self.path(), self.path()
            )
        deeper = depth - 1
        return self.pick(
            f"({self.number(deeper)} {self.pick('+', '-', '*', '/', '%')} {self.number(deeper)})",
            f"-({self.path()})",
            f"size({self.any(deeper)})",
            f"int({self.path()})",
            "now.getHours('Europe/Berlin')",
            f"({self.time(deeper)} - now).getSeconds()",
        )

    def text(self, depth: int) -> str:
        if depth <= 0 or self.random.random() < 0.6:
            return self.pick('"a"', '"wire"', '""', "action", "user.username", self.path())
        return self.pick(f"({self.text(depth - 1)} + {self.text(0)})", f"string({self.path()})")

    def time(self, depth: int) -> str:
        return self.pick(
            'timestamp("2026-01-01T00:00:00Z")',
            f"timestamp({self.path()})",
            f'(now + duration("{self.pick("1h", "-90s", "0.5s")}"))',
            f"(now - duration({self.path()}))",
        )

    def list(self, depth: int) -> str:
        items = ", ".join(self.any(depth - 1) for _ in range(self.random.randint(0, 3)))
        return self.pick("user.groups", self.path(), self.path(), f"[{items}]")

    def any(self, depth: int) -> str:
        if depth <= 0:
            return self.pick("1", '"a"', "true", "null", "1.5", "[]", "{}", self.path())
        return self.pick(
            self.number(depth),
            self.text(depth),
            self.list(depth),
            f'{{"k": {self.any(depth - 1)}}}',
        )

    def spoilt(self, source: str) -> str:
        """Now and then, no expression at all."""
        at = self.random.randrange(len(source) + 1)
        junk = self.pick(
            "(", ")", '"', "\\", "&", "??", "\x00", "é", "0x", "1u", "b''", ".", "[", "//"
        )
        return source[:at] + junk + source[at + self.random.randint(0, 2) :]


def context(random: random.Random, values: list[Any]) -> dict[str, Any]:
    def fields() -> dict[str, Any]:
        return {name: random.choice(values) for name in NAMES if random.random() < 0.8}

    def data() -> Any:
        kind = random.random()
        if kind < 0.85:
            return fields()
        return [fields(), fields()] if kind < 0.9 else random.choice(values)

    return {
        "action": "a.wire",
        "request": {"method": "POST", "data": data(), "query": fields()},
        "user": {"username": "wire", "groups": ["a", "wire"], "is_staff": random.random() < 0.5},
        "object": fields(),
        "now": NOW,
    }


def contexts(random: random.Random) -> list[tuple[dict[str, Any], bool]]:
    """Facts, and whether the library reads them as they are."""
    return [
        (context(random, READABLE if readable else READABLE + 3 * UNREADABLE), readable)
        for readable in (True, True, False) * 100
    ]


class Library:
    """The library's own evaluator, which takes the facts under their full names."""

    def __init__(self) -> None:
        self.environment = library._environment(importlib.import_module(library.MODULE))
        self.compiled: dict[str, Any] = {}

    def answer(self, source: str, facts: dict[str, Any]) -> Any:
        expression = self.environment.compile(source)
        flat = {"action": facts["action"], "now": facts["now"], "object": facts["object"]}
        for group in ("request", "user"):
            flat |= {f"{group}.{name}": value for name, value in facts[group].items()}
        return expression.eval(data=flat).value()


def generated(seed: int, count: int) -> tuple[list[str], list[tuple[dict[str, Any], bool]]]:
    chance = random.Random(seed)
    source = Source(chance)
    texts = [source.bool(chance.randint(1, 3)) for _ in range(count)]
    spoilt = [source.spoilt(text) if chance.random() < 0.1 else text for text in texts]
    return spoilt, contexts(chance)


def run(seed: int, count: int) -> dict[str, int]:
    texts, situations = generated(seed, count)
    chance, reference = random.Random(seed + 1), Library()
    counts = {"refused": 0, "failed": 0, "true": 0, "false": 0, "compared": 0}
    for text in texts:
        asked = chance.sample(situations, CONTEXTS_EACH)
        try:
            check(text)
        except ConditionError as error:
            assert error.line >= 1 and error.column >= 1
            counts["refused"] += 1
            with pytest.raises(ConditionFailed):
                evaluate(text, asked[0][0])
            continue
        for facts, readable in asked:
            try:
                answer = evaluate(text, facts)
            except ConditionFailed:
                counts["failed"] += 1
                continue
            assert answer is True or answer is False, text
            counts[str(answer).lower()] += 1
            if readable:
                assert reference.answer(text, facts) is answer, (text, facts)
                counts["compared"] += 1
    return counts


def ensure_worth_something(counts: dict[str, int], expressions: int) -> None:
    """A generator that only ever makes refused text would prove nothing."""
    assert counts["refused"] < expressions * 0.6
    for outcome in ("failed", "true", "false", "compared"):
        assert counts[outcome] > expressions * 0.1, counts


@pytest.mark.slow
def test_only_our_errors_leave_and_answers_are_those_of_cel() -> None:
    ensure_worth_something(run(20260301, EXPRESSIONS), EXPRESSIONS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_more_of_the_same(seed: int) -> None:
    ensure_worth_something(run(seed, EXPRESSIONS), EXPRESSIONS)


def test_random_characters_are_refused_or_answered() -> None:
    chance = random.Random(7)
    alphabet = "()[]{}.,?:&|!=<>+-*/%\"'`\\ \n\t\x00aé😀\u202e10uxe\ud800" + "truein"
    facts, _ = contexts(chance)[0]
    for _ in range(3000):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randint(0, 40)))
        try:
            check(text)
            evaluate(text, facts)
        except (ConditionError, ConditionFailed):
            pass


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_does_not_change_by_sending_a_number_as_text(seed: int) -> None:
    """What DRF would coerce: either the answer is the same, or the call is held."""
    texts, situations = generated(100 + seed, 1000)
    changed = 0
    for text in texts:
        for facts, _ in situations[:3]:
            data = facts["request"]["data"]
            if not isinstance(data, dict) or "type(" in text or "string(" in text:
                continue
            data = {**data, "amount": 10_001, "a": 5}
            try:
                honest = evaluate(text, {**facts, "request": {**facts["request"], "data": data}})
            except ConditionFailed:
                continue
            coerced = {**data, "amount": "10001", "a": "5"}
            try:
                sly = evaluate(text, {**facts, "request": {**facts["request"], "data": coerced}})
            except ConditionFailed:
                continue
            changed += sly is not honest
    assert changed == 0
