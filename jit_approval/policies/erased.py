"""A person's name taken out of what policies said, once it says so of no policy in force. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

GONE = "(erased)"
"""What stands where a name or an address stood. `versions.restore` makes nobody of this name a decider."""


def names(said: Mapping[str, Any], words: Iterable[str]) -> bool:
    """Tell whether what a policy says names the person, by one of these words."""
    return without(said, words) != said


def without(said: Mapping[str, Any], words: Iterable[str]) -> dict[str, Any]:
    """Return what a policy said, with `GONE` where it said one of these words."""
    wanted = frozenset(words)
    made = dict(said)
    if "users" in said:
        held = said["users"].items()
        made["users"] = {codename: _without(users, wanted) for codename, users in held}
    if "fallback" in said:
        made["fallback"] = _without(said["fallback"], wanted)
    if "steps" in said:
        made["steps"] = [_step_without(step, wanted) for step in said["steps"]]
    return made


def _step_without(step: Mapping[str, Any], wanted: Set[str]) -> dict[str, Any]:
    fields = ("users", "addresses")
    return {**step, **{name: _without(step[name], wanted) for name in fields if name in step}}


def _without(found: Iterable[str], wanted: Set[str]) -> list[str]:
    # In place: what stands in the same order in two versions is no difference between them.
    return [GONE if each in wanted else each for each in found]
