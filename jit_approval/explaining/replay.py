"""A draft policy run over the calls on record: what it would have held, of whom, and on how many days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from statistics import median
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from jit_approval import clock, conditions, facts, policies, policy_changes
from jit_approval.conditions.programs import build
from jit_approval.explaining import readback, recorded
from jit_approval.explaining.recorded import Recorded
from jit_approval.models import ApprovalPolicy
from jit_approval.states import Effect

_USERS_KEPT = 10_000
_AS_TEXT = "numbers and times of the object are recorded as text"


class Answer(StrEnum):
    """What the draft says of one call."""

    YES = "yes"
    NO = "no"
    # The condition fails on what is known of the call, as it would have failed then.
    FAILED = "failed"
    # It asks for something that is not on record.
    UNCERTAIN = "uncertain"


@dataclass
class Replay:
    """What a draft would have done to the calls from `since` to `until`.

    `affected` counts the calls it would have held, denied or allowed, whichever its effect is; `failed` those of
    them where only its condition failed, by message; `uncertain` those that cannot be told, by what is missing.
    """

    draft: ApprovalPolicy
    since: datetime
    until: datetime
    recorded: int = 0
    named: int = 0
    affected: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    uncertain: Counter[str] = field(default_factory=Counter)
    by_action: Counter[str] = field(default_factory=Counter)
    by_user: Counter[str] = field(default_factory=Counter)
    by_day: Counter[date] = field(default_factory=Counter)
    # What came of the affected calls at the time: held, allowed, denied, observed.
    fates: Counter[str] = field(default_factory=Counter)

    @property
    def at_most(self) -> int:
        """The affected calls if all that cannot be told were among them."""
        return self.affected + self.uncertain.total()

    @property
    def days(self) -> list[date]:
        """The whole days of the period; where there is none, the days it touches."""
        first, last = timezone.localdate(self.since), timezone.localdate(self.until)
        touched = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        whole = [day for day in touched[:-1] if _midnight(day) >= self.since]
        return whole or touched

    @property
    def median_a_day(self) -> float:
        """Affected calls on the median day, days without any among them."""
        return float(median(self.by_day[day] for day in self.days))

    @property
    def busiest(self) -> tuple[date, int] | None:
        """The day with the most affected calls, the latest of such days; None without any."""
        return max(self.by_day.items(), key=lambda item: (item[1], item[0]), default=None)

    def add(self, record: Recorded, answer: Answer, why: str) -> None:
        """Count one call that the draft's globs name."""
        self.named += 1
        if answer == Answer.UNCERTAIN:
            self.uncertain[why] += 1
        if answer == Answer.FAILED and self.draft.effect != Effect.ALLOW:
            self.failed[why] += 1
        elif answer != Answer.YES:
            return
        self.affected += 1
        self.by_action[record.action] += 1
        self.by_user[record.user_label] += 1
        self.by_day[timezone.localdate(record.at)] += 1
        self.fates[record.fate] += 1


def replay(draft: ApprovalPolicy, period: timedelta) -> Replay:
    """Run a draft over the calls of the last `period`; a day or more reaches back to the midnight before.

    The draft stands alone: what other policies would have said first is not asked. Users and their groups are
    those of today. Nothing is written.
    """
    until = clock.now(policies.database())
    since = until - period
    if period >= timedelta(days=1):
        since = _midnight(timezone.localdate(since))
    return count(draft, recorded.calls(since, until, without=policy_changes.ACTION), since, until)


def count(
    draft: ApprovalPolicy, calls: Iterable[Recorded], since: datetime, until: datetime
) -> Replay:
    """Run a draft over these calls."""
    found = Replay(draft, since, until)
    ask = _asking(draft.condition.strip())
    named: dict[str, bool] = {}
    for record in calls:
        found.recorded += 1
        if record.action not in named:
            named[record.action] = draft.names(record.action)
        if named[record.action]:
            found.add(record, *ask(record))
    return found


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def as_data(found: Replay) -> dict[str, Any]:
    """Return a replay as JSON has it."""
    busiest = found.busiest
    return {
        "draft": found.draft.slug or None,
        "effect": str(found.draft.effect),
        "actions": found.draft.globs,
        "condition": found.draft.condition,
        "since": found.since.astimezone(UTC).isoformat(timespec="seconds"),
        "until": found.until.astimezone(UTC).isoformat(timespec="seconds"),
        "calls_recorded": found.recorded,
        "calls_named": found.named,
        "affected": found.affected,
        "affected_at_most": found.at_most,
        "users": len(found.by_user),
        "median_a_day": found.median_a_day,
        "busiest_day": {"day": busiest[0].isoformat(), "calls": busiest[1]} if busiest else None,
        "by_day": {day.isoformat(): found.by_day[day] for day in sorted(found.by_day)},
        **{
            name: dict(getattr(found, name).most_common())
            for name in ("by_action", "by_user", "fates", "failed", "uncertain")
        },
    }


# --- one call ----------------------------------------------------------------------------------------------


def _asking(condition: str) -> Callable[[Recorded], tuple[Answer, str]]:
    """Return what answers for one call, and says why where the answer is not plain."""
    if not condition:
        return lambda record: (Answer.YES, "")
    needs = _needs(condition)
    about_users = any(name.startswith("user.") for name in needs)
    user_of = lru_cache(maxsize=_USERS_KEPT)(_user)

    def ask(record: Recorded) -> tuple[Answer, str]:
        user = user_of(record.user_id) if about_users else {}
        return _answer(condition, readback.of(record, user, needs=needs), needs)

    return ask


def _needs(condition: str) -> frozenset[str]:
    """Return the variables a condition reads. One that cannot be read fails on every call, whatever is known."""
    try:
        return build(condition).needs
    except conditions.ConditionError:
        return frozenset()


def _user(key: Any) -> Mapping[str, Any] | None:
    users = get_user_model()._base_manager.using(policies.database())
    user = users.filter(pk=key).first() if key is not None else None
    return facts.of_user(user) if user is not None else None


def _answer(condition: str, known: readback.Readback, needs: frozenset[str]) -> tuple[Answer, str]:
    holds, error = _evaluated(condition, known.facts)
    if known.retyped is not None:
        otherwise, _ = _evaluated(condition, known.retyped)
        if None not in (holds, otherwise) and holds != otherwise:
            return Answer.UNCERTAIN, _AS_TEXT
        # The one reading under which the condition means something is how the view had it.
        holds = otherwise if holds is None else holds
    if holds is not None:
        return (Answer.YES if holds else Answer.NO), ""
    missing = sorted({why for name, why in known.gaps.items() if name in needs})
    if known.retyped is not None:
        missing.append(_AS_TEXT)
    return (Answer.UNCERTAIN, "; ".join(missing)) if missing else (Answer.FAILED, error)


def _evaluated(condition: str, given: Mapping[str, Any]) -> tuple[bool | None, str]:
    try:
        return conditions.evaluate(condition, given), ""
    except conditions.ConditionFailed as failed:
        return None, str(failed)
