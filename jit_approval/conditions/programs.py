"""A condition from its text to its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jit_approval.conditions import library, rules, syntax
from jit_approval.conditions.errors import ConditionError, ConditionFailed
from jit_approval.conditions.steps import Builder, Step
from jit_approval.conditions.values import Kind, Run, kind, plain


@dataclass(frozen=True)
class Program:
    """A condition ready to be asked, by any number of threads at once."""

    run: Step
    needs: frozenset[str]

    def __call__(self, facts: Mapping[str, Any]) -> bool:
        """Return what it comes to. Raises ConditionFailed."""
        run = Run({name: plain(_fact(facts, name)) for name in self.needs})
        result = self.run(run)
        if type(result) is not bool:
            raise ConditionFailed("the condition came to neither true nor false")
        return result


def build(source: str) -> Program:
    """Compile a condition.

    Raises:
        ConditionError: it is refused; see `rules`.
    """
    rules.ensure_text(source)
    serialised, result_type = library.compile_checked(source)
    if result_type not in ("BOOL", "DYN"):
        raise ConditionError(f"a condition is true or false, this is {result_type.lower()}")
    tree = syntax.read(serialised)
    try:
        rules.ensure_allowed(tree, source)
    except rules.Refused as refused:
        raise ConditionError(str(refused), *rules.place(source, refused.offset)) from None
    return Program(Builder(source).step(tree), rules.variables(tree))


def _fact(facts: Mapping[str, Any], name: str) -> Any:
    value: Any = facts
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConditionFailed(f"{name} is missing")
        value = value[part]
    if not _FITS[library.VARIABLES[name]](value):
        raise ConditionFailed(f"{name} is not what it should be")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FITS: dict[str, Callable[[Any], bool]] = {
    "string": _is_text,
    "bool": lambda value: type(value) is bool,
    "timestamp": lambda value: kind(plain(value)) is Kind.TIMESTAMP,
    "dyn": lambda value: True,
    "map(string, dyn)": lambda value: isinstance(value, Mapping),
    "map(string, string)": lambda value: (
        isinstance(value, Mapping) and all(map(_is_text, value.values()))
    ),
    "list(string)": lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
}
