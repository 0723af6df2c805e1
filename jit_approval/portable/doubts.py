"""What a policy file may say and hardly means: warnings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations, groupby

from jit_approval.models import ApprovalPolicy
from jit_approval.policies import audience, reachability
from jit_approval.policies.persons import database

_WILD = re.compile(r"[*?\[]")
# A class, or one character.
_SIGN = re.compile(r"\[!?.[^\]]*\]|.", re.DOTALL)


def about(slugs: Iterable[str]) -> list[str]:
    """Return what is doubtful about these policies, those that are in force. A fixed number of queries."""
    named = set(slugs)
    rows = [row for row in _in_turn() if row.slug in named]
    return [*_out_of_reach(rows), *_too_many(rows), *about_order(named)]


def about_order(slugs: Iterable[str]) -> list[str]:
    """Return which of these come before or after another by their age alone. One query."""
    return _older_first(_in_turn(), set(slugs))


def _in_turn() -> list[ApprovalPolicy]:
    rows = ApprovalPolicy.objects.using(database()).filter(enabled=True)
    return list(rows.order_by("priority", "pk"))


def _out_of_reach(rows: list[ApprovalPolicy]) -> list[str]:
    # Who holds a permission on the object depends on the call.
    asked = [row for row in rows if not row.object_permission]
    beyond = reachability.out_of_reach(asked)
    return [
        f"{row.slug}: its deciders cannot meet its quorum: every call it holds would be refused"
        for row in asked
        if row.pk in beyond
    ]


def _too_many(rows: list[ApprovalPolicy]) -> list[str]:
    found = audience.too_many(rows)
    return [f"{row.slug}: {text}" for row in rows for text in found.get(row.pk, ())]


def _older_first(rows: list[ApprovalPolicy], named: set[str]) -> list[str]:
    """Return where age decides between two policies, and would decide otherwise where a file made both.

    A file has no ages: what it makes is made in the order it is written in, by (priority, slug).
    """
    globs = {row.pk: row.globs for row in rows}
    return [
        f"{older.slug}, {younger.slug}: both have priority {older.priority} and may name the same "
        f"action; here {older.slug} is asked first, for it is older, elsewhere {younger.slug} "
        "would be. Give them different priorities"
        for _priority, some in groupby(rows, key=lambda row: row.priority)
        for older, younger in combinations(some, 2)
        if older.slug > younger.slug
        and (older.slug in named or younger.slug in named)
        and any(overlap(one, other) for one in globs[older.pk] for other in globs[younger.pk])
    ]


def overlap(one: str, other: str) -> bool:
    """Tell whether one label could match both globs. A [class] is taken for any character."""
    heads = _WILD.split(one, maxsplit=1)[0], _WILD.split(other, maxsplit=1)[0]
    if not heads[0].startswith(heads[1]) and not heads[1].startswith(heads[0]):
        return False
    left, right = _SIGN.findall(one), _SIGN.findall(other)
    # Which beginnings of `right` fit what was looked at of `left`.
    fits = [True]
    for sign in right:
        fits.append(fits[-1] and sign == "*")
    for mine in left:
        now = [fits[0] and mine == "*"]
        for number, sign in enumerate(right):
            if "*" in (mine, sign):
                now.append(now[number] or fits[number + 1])
            else:
                alike = mine == sign or len(mine + sign) > 2 or "?" in (mine, sign)
                now.append(fits[number] and alike)
        fits = now
    return fits[-1]
