"""Routes that get around a gate: what writes the same model, or belongs to the same view, without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from jit_approval.inventory.gates import Status, Why
from jit_approval.inventory.kinds import Kind
from jit_approval.inventory.lines import Line, Listed


@dataclass(frozen=True)
class Place:
    """A method of a route."""

    method: str
    path: str
    action: str

    def __str__(self) -> str:
        """Return it as one would say it: `DELETE /customers/<pk>/ (customers.destroy)`."""
        return f"{self.method} {self.path}" + (f" ({self.action})" if self.action else "")


@dataclass(frozen=True)
class WayAround:
    """A method that runs without a gate, and one of the same view or model that does not, if there is one.

    `how` is `approval_methods` where the view leaves the method out, `same_model` where another view writes
    the model.
    """

    how: str
    free: Place
    held: Place | None
    model: str = ""
    allowed: bool = False


def ways_around(routes: Iterable[Listed]) -> Iterator[WayAround]:
    """Yield each ungated writing method that gets around a gate elsewhere. Hints: intent is not known.

    Of the admin's pages for a model only the first.
    """
    routes = list(routes)
    held = [(one, line) for one in routes for line in one.lines if line.status == Status.GATED]
    for one in _admin_once(routes):
        for line in one.lines:
            if line.status != Status.UNGATED:
                continue
            if line.why == Why.LEFT_OUT:
                yield _left_out(one, line, held)
            elif way := _by_model(one, line, held):
                yield way


def _admin_once(routes: Iterable[Listed]) -> Iterator[Listed]:
    seen: set[frozenset[str]] = set()
    for one in routes:
        if one.kind != Kind.ADMIN or one.models not in seen:
            yield one
        if one.kind == Kind.ADMIN:
            seen.add(one.models)


def _left_out(one: Listed, line: Line, held: list[tuple[Listed, Line]]) -> WayAround:
    of_view = [(other, its) for other, its in held if other.view == one.view]
    beside = _closest(line, of_view) if of_view else None
    allowed = line.allowed is not None
    return WayAround("approval_methods", _place(one, line), beside, allowed=allowed)


def _by_model(one: Listed, line: Line, held: list[tuple[Listed, Line]]) -> WayAround | None:
    shared = [(other, its) for other, its in held if one.models & other.models]
    if not shared:
        return None
    model = min(one.models & frozenset().union(*(other.models for other, _ in shared)))
    beside = _closest(line, [(other, its) for other, its in shared if model in other.models])
    allowed = line.allowed is not None
    return WayAround("same_model", _place(one, line), beside, model, allowed)


def _closest(line: Line, held: list[tuple[Listed, Line]]) -> Place:
    """Return the first with the same method, else the first."""
    same = (pair for pair in held if pair[1].method == line.method)
    return _place(*next(same, held[0]))


def _place(one: Listed, line: Line) -> Place:
    return Place(line.method, one.path, line.action)
