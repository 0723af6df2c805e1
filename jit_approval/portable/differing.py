"""What a file changes, for people: a line for each value, under the names of the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jit_approval.policies.versions import Snapshot
from jit_approval.portable.changing import Made
from jit_approval.portable.keys import KEYS, Kind, defaults, flat
from jit_approval.portable.spelling import escaped

_SHORT = 60


def lines(made: Made) -> list[str]:
    """Return the difference: + is new, - is gone, ~ is another; then how many of each."""
    found: list[str] = []
    for slug in made.slugs:
        before, after = made.before.get(slug), made.after.get(slug)
        found.append(_title(slug, before, after))
        if after is not None:
            found += [f"    {line}" for line in _policy(before or _nothing(slug), after)]
    return [*found, *([_sum(made)] if found else [])]


def _title(slug: str, before: Snapshot | None, after: Snapshot | None) -> str:
    if after is None:
        return f"- {slug}: deleted, for it has no requests"
    if before is None:
        return f"+ {slug}: new"
    archived = after["archived"] and not before["archived"]
    return f"- {slug}: archived, for it has requests" if archived else f"~ {slug}"


def _nothing(slug: str) -> Snapshot:
    return {**defaults(slug), "name": None, "actions": []}


def _sum(made: Made) -> str:
    new = sum(slug not in made.before for slug in made.slugs)
    gone = sum(
        slug not in made.after or made.after[slug]["archived"] > made.before[slug]["archived"]
        for slug in made.slugs
        if slug in made.before
    )
    return f"{new} new, {len(made.slugs) - new - gone} changed, {gone} removed"


def _policy(before: Snapshot, after: Snapshot) -> Iterator[str]:
    old, new = flat(before), flat(after)
    for key in _in_order({*old, *new}):
        had, has = old.get(key), new.get(key)
        kind = KEYS[key.split(".")[0]]
        if had == has:
            continue
        had, has = (None if each in ([], "") else each for each in (had, has))
        if isinstance(had or has, list):
            yield from _items(key, had or [], has or [], kind)
        elif had is None:
            yield f"+ {_name(key)}: {_shown(has, kind)}"
        elif has is None:
            yield f"- {_name(key)}: {_shown(had, kind)}"
        else:
            yield f"~ {_name(key)}: {_shown(had, kind)} → {_shown(has, kind)}"


def _in_order(keys: set[str]) -> list[str]:
    order = list(KEYS)
    return sorted(keys, key=lambda key: (order.index(key.split(".")[0]), key))


def _items(key: str, had: list[str], has: list[str], kind: Kind) -> Iterator[str]:
    """Show short lists whole; of long ones, what came and went."""
    short = len(_shown(had, kind)) <= _SHORT and len(_shown(has, kind)) <= _SHORT
    if had and has and (short or sorted(had) == sorted(has)):
        yield f"~ {_name(key)}: {_shown(had, kind)} → {_shown(has, kind)}"
        return
    yield from (f"- {_name(key)}: {_shown(each, kind)}" for each in had if each not in has)
    yield from (f"+ {_name(key)}: {_shown(each, kind)}" for each in has if each not in had)


def _name(key: str) -> str:
    return escaped(key.replace("\\", "\\\\"), Kind.COUNTS)


def _shown(value: Any, kind: Kind) -> str:
    """Return a value on one line, what could be mistaken for something else as its escape."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(_shown(each, kind) for each in value)}]"
    is_quoted = isinstance(value, str) and kind is not Kind.STEPS
    text = json.dumps(value, ensure_ascii=False) if is_quoted else str(value)
    return escaped(text, kind).replace("\n", "\\n").replace("\t", "\\t")
