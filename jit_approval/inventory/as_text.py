"""The inventory as text for people, at most 120 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from jit_approval.explaining.as_text import many
from jit_approval.inventory.around import WayAround
from jit_approval.inventory.gates import Gate, Status, Why
from jit_approval.inventory.lines import Line, Listed
from jit_approval.inventory.listing import Inventory
from jit_approval.inventory.rules import Applied, Deciders, Idle, Naming
from jit_approval.redaction import visible

WIDTH = 120
_MOST_OF_ACTION = 40
_LONGEST_CONDITION = 60
_MOST_PLACES = 3
_STATUS = {
    Status.GATED: "held",
    Status.UNGATED: "NO GATE",
    Status.CANNOT_TELL: "CANNOT TELL",
    Status.EXEMPT: "exempt",
}
_WHY = {
    Why.NO_GATE: "no gate among its permission classes",
    Why.LEFT_OUT: "left out by approval_methods",
    Why.NO_POLICY: "not gated: no policy names it",
    Why.NOT_DRF: "not a view of Django REST framework: no gate can stand on it",
}
_LEFT_OUT = {"django": "other Django views", "admin": "of the admin", "own": "of jit_approval"}


def as_text(inventory: Inventory) -> Iterator[str]:
    """Yield the lines to print: the routes, what is amiss, and the sums."""
    yield from _table(inventory.routes)
    yield from _ways_around(inventory)
    yield from _too_few(inventory)
    yield from _idle(inventory.idle)
    yield from _allow_list(inventory)
    yield from _sums(inventory)


def place(one: Listed, line: Line) -> str:
    """Return a method of a route as one would say it."""
    return visible(f"{line.method} {one.path}" + (f" ({line.action})" if line.action else ""))


# --- the table -------------------------------------------------------------------------------------------


def _table(routes: tuple[Listed, ...]) -> Iterator[str]:
    longest = max((len(line.action) for one in routes for line in one.lines), default=0)
    column = min(longest, _MOST_OF_ACTION)
    yield f"  {'METHOD':<8}{'ACTION':<{column}}  {'GATE':<13}POLICIES AND DECIDERS"
    for one in routes:
        yield ""
        yield from _route(one)
        for line in one.lines:
            yield from _line(line, column)


def _route(one: Listed) -> Iterator[str]:
    heading, view = visible(one.path), visible(one.view)
    heading += " and .<format>" if one.also else ""
    models = f" · {', '.join(sorted(one.models))}" if one.models else ""
    behind = f"{view}{models}"
    if len(heading) + len(behind) + 2 <= WIDTH:
        yield f"{heading}{' ' * (WIDTH - len(heading) - len(behind))}{behind}"
    else:
        yield from _wrapped(heading, "", "  ")
        yield from _wrapped(behind, "    ", "    ")


def _line(line: Line, column: int) -> Iterator[str]:
    action = visible(line.action)
    status = "allowed" if line.allowed is not None else _STATUS[line.status]
    start = f"  {line.method:<8}{action:<{column}}  {status:<13}"
    indent = " " * (column + 25)
    if len(action) > column:
        yield start.rstrip()
        start = indent
    yield from _wrapped(_detail(line), start, indent)


def _detail(line: Line) -> str:
    if line.status == Status.EXEMPT:
        return "approvals are given here"
    parts = [_what_happens(line)]
    if line.naming.observed:
        parts.append(f"observed by {', '.join(line.naming.observed)}")
    if told := _DECIDERS.get(line.deciders):
        parts.append(told)
    if line.allowed is not None:
        parts.append(f"line {line.allowed} of the allow-list")
    return visible("; ".join(parts))


_DECIDERS: dict[str, str] = {
    Deciders.ENOUGH: "deciders suffice",
    Deciders.TOO_FEW: "TOO FEW DECIDERS",
    Deciders.BY_OBJECT: "deciders depend on the object",
}


def _what_happens(line: Line) -> str:
    if line.status == Status.GATED:
        steps = [_applied(applied) for applied in line.naming.chain]
        if line.otherwise == "settings":
            steps.append("required by the settings")
        if line.otherwise == "passes":
            steps.append("runs at once")
        return ", else ".join(steps)
    why = _WHY.get(Why(line.why), "") if line.why in set(Why) else line.why
    return why + _named_in_vain(line.gate, line.naming)


def _named_in_vain(gate: Gate, naming: Naming) -> str:
    if gate == Gate.BY_POLICY or not naming.chain:
        return ""
    return f"; named by {', '.join(applied.slug for applied in naming.chain)}"


def _applied(applied: Applied) -> str:
    count = applied.required_approvals
    effect = {
        "require": f"requires {many(count, 'approval')}",
        "allow": "lets it run at once",
    }
    said = f"{applied.slug} {effect.get(applied.effect, 'denies')}"
    return f"{said} if {_short(applied.condition)}" if applied.condition else said


def _short(condition: str) -> str:
    text = " ".join(condition.split())
    return text if len(text) <= _LONGEST_CONDITION else f"{text[: _LONGEST_CONDITION - 1]}…"


# --- what is amiss ---------------------------------------------------------------------------------------


def _ways_around(inventory: Inventory) -> Iterator[str]:
    ways = [way for way in inventory.ways_around if not way.allowed]
    yield from _section("Ways around a gate", map(_way, ways))


def _way(way: WayAround) -> str:
    beside = f" while {way.held} is held" if way.held else ""
    if way.how == "approval_methods":
        return f"{way.free} is left out by approval_methods{beside}"
    return f"{way.free} writes {way.model} without a gate{beside}"


def _too_few(inventory: Inventory) -> Iterator[str]:
    refused: dict[str, list[str]] = {}
    for one in inventory.routes:
        for line in one.lines:
            for name in _short_of_deciders(line):
                refused.setdefault(name, []).append(place(one, line))
    lines = [
        f"{name}: calls are refused, for too few could approve them: {_some(places)}"
        for name, places in refused.items()
    ]
    yield from _section("Too few deciders", lines)


def _short_of_deciders(line: Line) -> Iterator[str]:
    """Yield the names of the terms under which nobody is left to approve."""
    if line.status != Status.GATED:
        return
    short = [one.slug for one in line.naming.chain if one.deciders == Deciders.TOO_FEW]
    yield from short
    if line.deciders == Deciders.TOO_FEW and not short:
        yield "the settings, where no policy applies"


def _some(places: list[str]) -> str:
    more = len(places) - _MOST_PLACES
    return ", ".join(places[:_MOST_PLACES]) + (f" and {more} more" if more > 0 else "")


def _idle(policies: tuple[Idle, ...]) -> Iterator[str]:
    yield from _section("Policies that name no route", map(_idle_policy, policies))


def _idle_policy(one: Idle) -> str:
    globs = ", ".join(one.globs)
    if one.why == "no_gate":
        return f"{one.slug}: no gate stands on what it names ({globs}), so it is never asked"
    what = "names no action there is" if one.whole else "has globs for no action there is"
    hint = f"; named by no policy, and similar: {', '.join(one.similar)}" if one.similar else ""
    return f"{one.slug} {what}: {globs}{hint}"


def _allow_list(inventory: Inventory) -> Iterator[str]:
    lines = [f"line {one.line}, {one}: names no route" for one in inventory.unknown]
    lines += [f"line {one.line}, {one}: not needed any more" for one in inventory.stale]
    yield from _section("Entries of the allow-list out of use", lines)


def _section(title: str, lines: Iterator[str] | list[str] | map[str]) -> Iterator[str]:
    found = [visible(line) for line in lines]
    if found:
        yield from ("", title)
        for line in found:
            yield from _wrapped(line, "  ", "    ")


def _sums(inventory: Inventory) -> Iterator[str]:
    lines = [line for one in inventory.routes for line in one.lines]
    counts = {status: sum(line.status == status for line in lines) for status in Status}
    allowed = sum(line.allowed is not None for line in lines)
    yield ""
    yield (
        f"{many(len(lines), 'method')} of {many(len(inventory.routes), 'route')}: {counts[Status.GATED]} held, "
        f"{counts[Status.UNGATED]} without a gate, {counts[Status.CANNOT_TELL]} cannot be told; "
        f"{allowed} allowed by the list."
    )
    reading = many(inventory.reading, "route")
    reads = f"{reading} only read{'s' if inventory.reading == 1 else ''}."
    yield from _wrapped(f"{_left_out(inventory)}{reads}", "", "  ")


def _left_out(inventory: Inventory) -> str:
    left = ", ".join(f"{n} {_LEFT_OUT[kind]}" for kind, n in sorted(inventory.left_out.items()))
    if not left:
        return ""
    around = inventory.left_out_around
    beside = f", {around} of them for models that a gated route writes" if around else ""
    return f"Left out: {left}{beside} (--all lists them). "


def _wrapped(text: str, start: str, indent: str) -> list[str]:
    return wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False
    ) or [start.rstrip()]
