"""The steps of policies as plain data: part of a snapshot, and put back from one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from jit_approval.calls import Terms
from jit_approval.models import ApprovalPolicy, EscalationStep
from jit_approval.policies import durations, ladder
from jit_approval.policies.persons import database

Said = dict[str, Any]

NAMES = ("users", "groups", "addresses", "channels")
"""The lists of a step, in the order they are written in."""
FLAGS = ("deciders", "may_decide")


def said_of(policies: Iterable[Any]) -> dict[Any, list[Said]]:
    """Return what the steps of these policies (keys) say, in order, by policy. Four queries at most."""
    rows = EscalationStep.objects.using(database()).filter(policy__in=list(policies))
    steps = list(rows.order_by("id"))
    if not steps:
        return {}
    named = ladder.named([step.pk for step in steps])
    found: dict[Any, list[Said]] = {}
    for step in steps:
        found.setdefault(step.policy_id, []).append(_said(step, named))
    return found


def _said(step: EscalationStep, named: Mapping[str, Mapping[Any, list[tuple[Any, str]]]]) -> Said:
    names = {
        field: sorted(name for _pk, name in of_step.get(step.pk, ()))
        for field, of_step in named.items()
    }
    return {
        "after": when(step.after, step.share),
        "deciders": step.deciders,
        "users": names["users"],
        "groups": names["groups"],
        "addresses": step.addresses.split(),
        "channels": names["channels"],
        "may_decide": step.may_decide,
    }


def nothing() -> Said:
    """Return what a step says of which nothing was written."""
    return {
        "after": "",
        "deciders": False,
        "users": [],
        "groups": [],
        "addresses": [],
        "channels": [],
        "may_decide": False,
    }


def of_terms(held: Terms) -> list[Said]:
    """Return the steps of terms, by moment, as a snapshot says them."""
    steps = sorted(held.steps, key=lambda step: step.moment(held.decide_within))
    return [
        {
            "after": when(step.after, step.share),
            "deciders": step.deciders,
            "users": [name for _key, name in step.users],
            "groups": [name for _key, name in step.groups],
            "addresses": list(step.addresses),
            "channels": list(step.channels),
            "may_decide": step.may_decide,
        }
        for step in steps
    ]


def as_text(said: Mapping[str, Any]) -> str:
    """Return a step on one line, for people: 50%: groups ["managers"], may decide."""
    parts = ["deciders again"] if said["deciders"] else []
    parts += [
        f"{name} {json.dumps(said[name], ensure_ascii=False)}" for name in NAMES if said[name]
    ]
    parts += ["may decide"] if said["may_decide"] else []
    return f"{said['after']}: {', '.join(parts)}"


def when(after: timedelta | None, share: int | None) -> str:
    """Return the moment of a step as people write it: 10m, or 50%."""
    return durations.as_text(after) if after is not None else f"{share}%"


def parse_when(text: str) -> tuple[timedelta | None, int | None]:
    """Return the time, or the share of the time to decide, that `when` would write so.

    Raises:
        ValueError: with what a moment looks like.
    """
    number = text.removesuffix("%")
    if number == text:
        return durations.parse(text), None
    if not (number.isascii() and number.isdigit() and number == str(int(number))):
        raise ValueError(f"{text!r} is no share; write 50%")
    return None, int(number)


def row_of(said: Said, policy: ApprovalPolicy | None = None) -> EscalationStep:
    """Return a step that is not saved, without the users, groups and channels it names.

    Raises:
        ValidationError: a value no step may have.
    """
    try:
        after, share = parse_when(said["after"])
    except (ValueError, OverflowError) as error:
        raise ValidationError({"after": str(error)}) from None
    row = EscalationStep(
        policy=policy,
        after=after,
        share=share,
        deciders=said["deciders"],
        addresses="\n".join(said["addresses"]),
        may_decide=said["may_decide"],
    )
    row.clean_fields(exclude=("policy",))
    row.clean()
    ensure_meaningful(said)
    return row


def ensure_meaningful(said: Mapping[str, Any]) -> None:
    """Refuse a step that tells nobody, and one that lets nobody decide and says it does.

    Raises:
        ValidationError: it is one.
    """
    if not said["deciders"] and not any(said[name] for name in NAMES):
        raise ValidationError(_("A step tells somebody: say whom."))
    if said["may_decide"] and not said["users"] and not said["groups"]:
        raise ValidationError(_("Name the users or groups who may decide from then on."))


def ensure_in_time(said: Mapping[str, Any], window: timedelta) -> None:
    """Refuse a step that comes when the time to decide is over.

    Raises:
        ValidationError: it does.
    """
    after, _ignored = parse_when(said["after"])
    if after is not None and after >= window:
        raise ValidationError(never_taken(after, window))


def never_taken(after: timedelta, window: timedelta) -> str:
    """Return what is wrong with a step that comes when the time to decide is over."""
    text = _("A step after %(after)s is never taken: the time to decide is over after %(window)s.")
    return text % {"after": durations.as_text(after), "window": durations.as_text(window)}


def put(
    policy: ApprovalPolicy,
    wanted: Sequence[Said],
    users: Mapping[str, Any],
    groups: Mapping[str, Any],
    channels: Mapping[str, Any],
) -> None:
    """Make the steps of a policy these, and no others; what they name is among the rows given, by name.

    Raises:
        ValidationError: a value no step may have.
    """
    alias = database()
    if said_of([policy.pk]).get(policy.pk, []) == list(wanted):
        return
    made = [row_of(each, policy) for each in wanted]
    for each in wanted:
        ensure_in_time(each, policy.decide_within)
    for row in EscalationStep.objects.using(alias).filter(policy=policy):
        row.delete()
    for row, said in zip(made, wanted, strict=True):
        row.save(using=alias)
        row.users.set([users[name] for name in said["users"]])
        row.groups.set([groups[name] for name in said["groups"]])
        row.channels.set([channels[name] for name in said["channels"]])
