"""What happens on silence: the steps of a policy, pinned on a request when it opens, and when the next is due.

Pinned are the moments, whom a step names and whether they may decide then; who is in a group it names is read live.
The last rung has no moment: it is the fallback of last resort, taken only where nobody is left who could decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jit_approval import conf
from jit_approval.calls import Step, Terms
from jit_approval.models import ApprovalPolicy, ApprovalRequest, EscalationStep
from jit_approval.policies.persons import database
from jit_approval.states import Execution, Status

_MILLISECOND = timedelta(milliseconds=1)
# A notice that leaves less time than this helps nobody.
_LEAST_NOTICE = timedelta(seconds=10)


@dataclass(frozen=True)
class Rung:
    """One pinned step. `number` counts from 1; `at` is None for the last resort."""

    number: int
    at: datetime | None
    deciders: bool = False
    # Keys, as text. The names of people stand in the trail alone, where they can be erased.
    users: tuple[str, ...] = ()
    groups: tuple[tuple[int, str], ...] = ()
    addresses: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    may_decide: bool = False

    @property
    def is_last_resort(self) -> bool:
        """Whether it is taken only where nobody is left who could decide."""
        return self.at is None

    @property
    def names_others(self) -> bool:
        """Whether it tells anybody but the deciders there were."""
        return bool(self.users or self.groups or self.addresses or self.channels)

    def as_data(self) -> dict[str, Any]:
        """Return whom it tells, by name, as audit events carry it. One query, where it names users."""
        return {
            "step": self.number,
            "last_resort": self.is_last_resort,
            "deciders": self.deciders,
            "users": sorted(names_of(self.users).values()),
            "groups": [name for _key, name in self.groups],
            "addresses": list(self.addresses),
            "channels": list(self.channels),
            "may_decide": self.may_decide,
        }


# --- terms -------------------------------------------------------------------------------------------------


def default() -> tuple[Step, ...]:
    """Return the steps where a policy has none of its own: deciders are reminded, once (`REMIND_AT`)."""
    share = conf.get().REMIND_AT
    return (Step(share=share, deciders=True),) if share else ()


def of_policy(policy: ApprovalPolicy) -> tuple[Step, ...]:
    """Return the steps of a policy, in the order they were written. No query where it is known to have none."""
    # Read with the policy by `matching`: most have none, and then there is nothing more to ask.
    if not getattr(policy, "has_steps", True) or policy.pk is None:
        return default()
    rows = list(EscalationStep.objects.using(database()).filter(policy=policy.pk).order_by("id"))
    if not rows:
        return default()
    of = named([row.pk for row in rows])
    users, groups, channels = of["users"], of["groups"], of["channels"]
    return tuple(
        Step(
            after=row.after,
            share=row.share,
            deciders=row.deciders,
            users=tuple((str(key), name) for key, name in users.get(row.pk, ())),
            groups=tuple(groups.get(row.pk, ())),
            addresses=tuple(row.addresses.split()),
            channels=tuple(slug for _key, slug in channels.get(row.pk, ())),
            may_decide=row.may_decide,
        )
        for row in rows
    )


def named(steps: list[Any]) -> dict[str, dict[Any, list[tuple[Any, str]]]]:
    """Return, by field and step, key and name of the users, groups and channels that steps name. Three queries."""
    users: Any = EscalationStep._meta.get_field("users").related_model
    names = {"users": users.USERNAME_FIELD, "groups": "name", "channels": "slug"}
    return {field: _named(field, steps, name) for field, name in names.items()}


def _named(field: str, steps: list[Any], name: str) -> dict[Any, list[tuple[Any, str]]]:
    """Return, by step, key and name of what it names in a field, by name. One query."""
    through: Any = getattr(EscalationStep, field).through
    target = getattr(EscalationStep, field).field.m2m_reverse_field_name()
    rows = through._default_manager.using(database()).filter(escalationstep__in=steps)
    found: dict[Any, list[tuple[Any, str]]] = {}
    values = rows.values_list("escalationstep", f"{target}_id", f"{target}__{name}")
    for step, key, text in values.order_by(f"{target}__{name}"):
        found.setdefault(step, []).append((key, str(text)))
    return found


def lets_others_decide(steps: Iterable[Step], window: timedelta, now_terms: Terms) -> bool:
    """Tell whether these steps let anybody decide whom the terms of now would not, or would only later.

    Both are taken of the same `window`: a longer time to decide makes no step later.
    """
    allowed = _let_decide(now_terms.steps, window)
    given = _let_decide(steps, window)
    return any(allowed.get(who, moment + 1) > moment for who, moment in given.items())


def _let_decide(steps: Iterable[Step], window: timedelta) -> dict[tuple[str, str], int]:
    """Return who may decide for a step is taken, and the first moment they may, as it is pinned."""
    found: dict[tuple[str, str], int] = {}
    for step in steps:
        moment = step.moment(window) // _MILLISECOND
        for who in _who(step.users, step.groups) if step.may_decide else ():
            found[who] = min(moment, found.get(who, moment))
    return found


def _who(
    users: Iterable[tuple[Any, str]], groups: Iterable[tuple[Any, str]]
) -> Iterator[tuple[str, str]]:
    yield from (("user", str(key)) for key, _name in users)
    yield from (("group", str(key)) for key, _name in groups)


# --- pinned ------------------------------------------------------------------------------------------------


def pin(held: Terms, *, with_names: bool = False) -> list[dict[str, Any]]:
    """Return the ladder as a request keeps it: by moment, in milliseconds since it opened, last resort included.

    `with_names`: of users too, for the trail.
    """
    window = held.decide_within
    steps = sorted(held.steps, key=lambda step: step.moment(window))
    return [*(_as_data(step, window, with_names) for step in steps), {}]


def _as_data(step: Step, window: timedelta, with_names: bool) -> dict[str, Any]:
    said = {
        "deciders": step.deciders,
        "users": [[key, name] if with_names else key for key, name in step.users],
        "groups": [list(each) for each in step.groups],
        "addresses": list(step.addresses),
        "channels": list(step.channels),
        "may_decide": step.may_decide,
    }
    # What is not said is as a rung has it by default: most rows have one short step.
    return {"after": step.moment(window) // _MILLISECOND, **{k: v for k, v in said.items() if v}}


def names_of(users: Iterable[str]) -> dict[str, str]:
    """Return the names of users by their keys, those of accounts that are gone left out. One query, if any."""
    keys = list(users)
    if not keys:
        return {}
    model: Any = EscalationStep._meta.get_field("users").related_model
    rows = model._base_manager.using(database()).filter(pk__in=keys)
    return {str(key): str(name) for key, name in rows.values_list("pk", model.USERNAME_FIELD)}


def rungs(row: ApprovalRequest) -> list[Rung]:
    """Return the ladder of a request, in order."""
    return [_rung(number, said, row) for number, said in enumerate(row.ladder, 1)]


def _rung(number: int, said: dict[str, Any], row: ApprovalRequest) -> Rung:
    after = said.get("after")
    return Rung(
        number=number,
        at=None if after is None else row.created_at + after * _MILLISECOND,
        deciders=bool(said.get("deciders")),
        users=tuple(map(str, said.get("users", ()))),
        groups=tuple((int(key), str(name)) for key, name in said.get("groups", ())),
        addresses=tuple(said.get("addresses", ())),
        channels=tuple(said.get("channels", ())),
        may_decide=bool(said.get("may_decide")),
    )


def next_rung(row: ApprovalRequest) -> Rung | None:
    """Return the first step that has not been taken."""
    ahead = row.ladder[row.steps_taken :]
    return _rung(row.steps_taken + 1, ahead[0], row) if ahead else None


def steps_of(row: ApprovalRequest) -> list[Step]:
    """Return the steps that were taken, as terms have them."""
    return [
        Step(
            after=rung.at - row.created_at,
            users=tuple((key, "") for key in rung.users),
            groups=rung.groups,
            may_decide=rung.may_decide,
        )
        for rung in rungs(row)[: row.steps_taken]
        if rung.at is not None
    ]


# --- when --------------------------------------------------------------------------------------------------


def wake_at(row: ApprovalRequest) -> datetime | None:
    """Return when people are to be told next, before the deadline in force; None: not any more."""
    moments = [notice_at(row)]
    if row.status == Status.PENDING:
        rung = next_rung(row)
        if rung is not None and rung.at is not None and rung.at < row.decide_by:
            moments.append(rung.at)
    return min((moment for moment in moments if moment is not None), default=None)


def notice_at(row: ApprovalRequest) -> datetime | None:
    """Return when the end of the window in force is announced; None: it was, or there is none."""
    if row.warned:
        return None
    if row.status == Status.PENDING:
        return end_notice(row.created_at, row.decide_by)
    if row.status == Status.APPROVED and row.decided_at and row.usable_until:
        return use_notice(row, row.decided_at, row.usable_until)
    return None


def use_notice(row: ApprovalRequest, start: datetime, end: datetime) -> datetime | None:
    """Return when its requester is told that the approval ends; None: there is nothing they could do."""
    return None if row.execution == Execution.SERVER else end_notice(start, end)


def end_notice(start: datetime, end: datetime) -> datetime | None:
    """Return when the end of a window is announced; None: it is too short for that to help."""
    before = min((end - start) / 5, conf.get().EXPIRING_BEFORE)
    return end - before if before >= _LEAST_NOTICE else None
