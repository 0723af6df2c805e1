"""The inventory itself: every route that can write, what stands before it, and what is amiss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.views import View

from jit_approval import gated, routes
from jit_approval.inventory import rules
from jit_approval.inventory.allowed import Entry
from jit_approval.inventory.around import WayAround, ways_around
from jit_approval.inventory.gates import EVERY_METHOD, Gate, Guarded, Status, Why, guarded
from jit_approval.inventory.kinds import Kind, kind_of, models_of
from jit_approval.inventory.lines import Line, Listed


@dataclass(frozen=True)
class Inventory:
    """What `take` found."""

    routes: tuple[Listed, ...]
    ways_around: tuple[WayAround, ...]
    idle: tuple[rules.Idle, ...]
    left_out: dict[str, int]  # routes, by kind
    left_out_around: int  # how many of them write a model that a gated route writes
    reading: int  # how many routes only read
    unknown: tuple[Entry, ...] = ()
    stale: tuple[Entry, ...] = ()

    @property
    def failing(self) -> list[tuple[Listed, Line]]:
        """What `--fail-ungated` minds."""
        return [(one, line) for one in self.routes for line in one.lines if line.fails]


def take(*, everything: bool = False, allow: Sequence[Entry] = ()) -> Inventory:
    """Walk ROOT_URLCONF and read the policies. Changes nothing.

    `everything` also lists Django views, the admin and the package's own; else they are only counted.
    """
    known = rules.Rules()
    endpoints = routes.all_endpoints()
    found = [_listed(endpoint, known) for endpoint in endpoints]
    writing = [_allowed(one, allow) for one in _folded(endpoints, found) if one.lines]
    shown = tuple(one for one in writing if everything or one.kind == Kind.DRF)
    left_out = [one for one in writing if one not in shown]
    held = frozenset().union(*(one.models for one in writing if _holds(one)))
    unknown, stale = _out_of_use(allow, writing, found)
    return Inventory(
        routes=shown,
        ways_around=tuple(ways_around(shown)),
        idle=tuple(rules.idle(_actions(found))),
        left_out=dict(Counter(str(one.kind) for one in left_out)),
        left_out_around=sum(bool(one.models & held) for one in left_out),
        reading=sum(not one.lines for one in found),
        unknown=unknown,
        stale=stale,
    )


def _holds(one: Listed) -> bool:
    return any(line.status == Status.GATED for line in one.lines)


def _listed(endpoint: routes.Endpoint, known: rules.Rules) -> Listed:
    route, kind = routes.as_route(endpoint), kind_of(endpoint)
    methods = guarded(route) if route else _of_django(endpoint.callback)
    if kind == Kind.OWN:
        methods = [_exempt(one) for one in methods]
    return Listed(
        path=endpoint.path,
        view=str(route) if route else _name(endpoint.callback),
        kind=kind,
        lines=tuple(_line(one, known) for one in methods if one.status != Status.READS),
        models=models_of(endpoint),
        reads=tuple(one.action for one in methods if one.status == Status.READS),
    )


def _of_django(callback: Any) -> list[Guarded]:
    """Return one line for a view without DRF, unless it is a class that answers safe methods only."""
    view = getattr(callback, "view_class", None)
    if isinstance(view, type) and issubclass(view, View) and view.dispatch is View.dispatch:
        names = {name.upper() for name in view.http_method_names if hasattr(view, name)}
        if names <= gated.SAFE_METHODS and not _is_catch_all(view):
            return []
    return [Guarded(EVERY_METHOD, "", Gate.NONE, Status.UNGATED, Why.NOT_DRF)]


def _is_catch_all(view: type[View]) -> bool:
    return view.http_method_not_allowed is not View.http_method_not_allowed


def _exempt(one: Guarded) -> Guarded:
    return one if one.status == Status.READS else replace(one, status=Status.EXEMPT, why="")


def _name(callback: Any) -> str:
    view = getattr(callback, "view_class", callback)
    name = getattr(view, "__qualname__", None) or type(view).__qualname__
    return f"{getattr(view, '__module__', '')}.{name}"


def _line(one: Guarded, known: rules.Rules) -> Line:
    naming = known.of(one.action)
    status, why = one.status, one.why
    if one.gate == Gate.BY_POLICY and status == Status.GATED and not naming.chain:
        status, why = Status.UNGATED, Why.NO_POLICY
    otherwise = ""
    if status == Status.GATED and not naming.is_complete:
        otherwise = "settings" if one.gate == Gate.ALWAYS else "passes"
    line = Line(one.method, one.action, one.gate, status, why, naming, otherwise)
    return replace(line, deciders=_deciders(line, known))


def _deciders(line: Line, known: rules.Rules) -> str:
    """Return the worst of what a held call may meet; nothing where no call is held."""
    if line.status != Status.GATED:
        return ""
    met = {applied.deciders for applied in line.naming.chain}
    if line.otherwise == "settings":
        met.add(known.default_deciders())
    order = (rules.Deciders.TOO_FEW, rules.Deciders.BY_OBJECT, rules.Deciders.ENOUGH)
    return str(next((one for one in order if one in met), rules.Deciders.NOT_ASKED))


def _folded(endpoints: Iterable[routes.Endpoint], found: Iterable[Listed]) -> list[Listed]:
    """Fold `/customers.<format>` into `/customers/`: the same callback, with one more name from the URL."""
    folded: list[Listed] = []
    plain: dict[tuple[int, frozenset[str]], int] = {}
    for endpoint, one in zip(endpoints, found, strict=True):
        key = (id(endpoint.callback), endpoint.kwargs - {"format"})
        if "format" not in endpoint.kwargs:
            plain.setdefault(key, len(folded))
        elif key in plain:
            first = folded[plain[key]]
            folded[plain[key]] = replace(first, also=(*first.also, one.path))
            continue
        folded.append(one)
    return folded


def _allowed(one: Listed, allow: Sequence[Entry]) -> Listed:
    lines = (replace(line, allowed=_entry_for(one, line, allow)) for line in one.lines)
    return replace(one, lines=tuple(lines))


def _entry_for(one: Listed, line: Line, allow: Sequence[Entry]) -> int | None:
    if not line.fails:
        return None
    return next(
        (entry.line for entry in allow if entry.names(line.method, one.path, line.action)), None
    )


def _out_of_use(
    allow: Sequence[Entry], writing: Iterable[Listed], found: Iterable[Listed]
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Return the entries that name nothing, and those that name nothing that needs them."""
    doubtful = {Status.UNGATED, Status.CANNOT_TELL}
    lines = [(line, one.path) for one in writing for line in one.lines]
    needed = [(line.method, path, line.action) for line, path in lines if line.status in doubtful]
    unused = [entry for entry in allow if not any(entry.names(*one) for one in needed)]
    every = [(line.method, one.path, line.action) for one in found for line in one.lines]
    known = {entry for entry in unused if any(entry.names(*one) for one in every)}
    stale = tuple(entry for entry in unused if entry in known)
    return tuple(entry for entry in unused if entry not in known), stale


def _actions(found: Iterable[Listed]) -> dict[str, bool]:
    """Return every action label of the URLconf, and whether a gate asks for it anywhere."""
    actions: dict[str, bool] = {}
    for one in found:
        for name in one.reads:
            actions.setdefault(name, False)
        for line in one.lines:
            asked = line.status != Status.EXEMPT and line.gate != Gate.NONE
            held = asked and line.why != Why.LEFT_OUT
            actions[line.action] = actions.get(line.action, False) or held
    actions.pop("", None)
    return actions
