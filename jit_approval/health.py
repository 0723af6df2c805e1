"""Whether deadlines are recorded and people are told: for monitors, for `check --deploy`, for the admin.

Nobody's permission depends on any of it. Each question is answered from an index, and counting stops at `MOST`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from jit_approval import clock, heartbeats, keeping, policies, queue
from jit_approval.audit import findings, leases, marks, places, seal
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.states import Outcome
from jit_approval.streaming import standing

MOST = 10_000
"""Rows that are counted; more are "more than"."""

# The schedule sweeps every minute, and django-q2 looks at schedules every 30 seconds.
_SWEPT_WITHIN = timedelta(minutes=2)
# Where nothing is due, a restart or a deployment may take its time.
_SWEPT_AT_LEAST = timedelta(minutes=5)
_TOLD_WITHIN = timedelta(minutes=1)
# What is late by so much is not being looked after at all.
_MUCH_TOO_LATE = timedelta(minutes=10)
# Dead letters are a reason to look for a day; the admin keeps them.
_RECENT = timedelta(days=1)

State = Notification.State


class Level(IntEnum):
    """How bad: also the exit status of `approval_health`."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True)
class Finding:
    """The answer to one question. `count` is of what is wrong, `MOST` at most; `oldest` in seconds."""

    name: str
    level: Level
    message: str
    count: int = 0
    oldest: float | None = None
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**vars(self), "level": self.level.name.lower()}


@dataclass(frozen=True)
class Report:
    """All answers, at one moment of the database's clock."""

    at: datetime
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The worst there is."""
        return max((finding.level for finding in self.findings), default=Level.OK)

    @property
    def troubles(self) -> list[Finding]:
        """What is not as it should be, the worst first."""
        return sorted(
            (finding for finding in self.findings if finding.level),
            key=lambda finding: -finding.level,
        )


def report() -> Report:
    """Ask all questions.

    Raises:
        django.db.Error: the database cannot be asked, or has no tables yet.
    """
    now = clock.now(policies.database())
    return Report(now, tuple(_findings(now)))


def _findings(now: datetime) -> Iterator[Finding]:
    late = _late(now)
    yield _sweeper(now, something_is_late=late.count > 0)
    yield late
    yield _late_steps(now)
    yield _undelivered(now)
    yield _dead_letters(now)
    yield _unknown_outcomes()
    yield _queue()
    yield from _trail(now)


def _sweeper(now: datetime, *, something_is_late: bool) -> Finding:
    """Whether anybody looks after deadlines."""
    hint = _("Run `manage.py qcluster`, `manage.py approval_clock`, or both; see docs/deploy.md.")
    beat = heartbeats.newest()
    if beat is None:
        level = Level.CRITICAL if something_is_late else Level.WARNING
        return Finding("sweeper", level, _("Nothing has ever swept."), hint=hint)
    age = now - beat.at
    stale = age > (_SWEPT_WITHIN if something_is_late else _SWEPT_AT_LEAST)
    level = Level.OK
    if stale:
        level = Level.CRITICAL if something_is_late else Level.WARNING
    said = _("Last swept %(age)s ago, by %(who)s.") % {"age": _words(age), "who": beat}
    return Finding("sweeper", level, said, oldest=_seconds(age), hint=hint if stale else "")


def _late(now: datetime) -> Finding:
    """Deadlines that nobody recorded. The calls cannot run any more; people have not been told."""
    return _unswept(
        "overdue",
        "due_at",
        now,
        none=_("No deadline is unrecorded."),
        some=_("Deadlines not recorded: %(count)s, the oldest for %(age)s."),
    )


def _late_steps(now: datetime) -> Finding:
    """Steps of ladders, and notices, whose time came and that nobody took."""
    return _unswept(
        "steps",
        "wake_at",
        now,
        none=_("No step on silence is late."),
        some=_("Steps on silence not taken: %(count)s, the oldest for %(age)s."),
    )


def _unswept(name: str, moment: str, now: datetime, *, none: str, some: str) -> Finding:
    """Return a finding about requests of which this moment passed, and that no sweep has moved on."""
    rows = ApprovalRequest.objects.using(policies.database())
    late = rows.filter(**{f"{moment}__lte": now - _SWEPT_WITHIN}).order_by(moment)
    age = now - (late.values_list(moment, flat=True).first() or now)
    hint = _("No sweep runs, or these rows cannot be moved: its log says why.")
    return _of_waiting(name, _count(late), age, none=none, some=some, hint=hint)


def _undelivered(now: datetime) -> Finding:
    """Messages that wait, or are tried again, for too long."""
    rows = _messages().filter(state=State.WAITING, created_at__lte=now - _TOLD_WITHIN)
    oldest = rows.order_by("created_at").values_list("created_at", flat=True).first() or now
    return _of_waiting(
        "undelivered",
        _count(rows),
        now - oldest,
        none=_("No message waits for more than a minute."),
        some=_("Messages not delivered: %(count)s, the oldest for %(age)s."),
        hint=_("No worker runs, or a channel refuses: the notification says why, in the admin."),
    )


def _dead_letters(now: datetime) -> Finding:
    """Messages that were given up, of the last day."""
    dead = _count(_messages().filter(state=State.FAILED, next_attempt_at__gte=now - _RECENT))
    return _of_dead(
        "dead_letters",
        dead,
        none=_("No message was given up in the last day."),
        some=_("Messages given up in the last day: %(count)s."),
        hint=_("The notification says why, in the admin."),
    )


def _unknown_outcomes() -> Finding:
    """Runs of which nobody knows how they ended."""
    rows = ApprovalRequest.objects.using(policies.database()).filter(outcome=Outcome.UNKNOWN)
    return _of_dead(
        "unknown_outcomes",
        _count(rows),
        none=_("Every run has a known end."),
        some=_("Runs of which nobody knows how they ended: %(count)s."),
        hint=_("A decider looks what became of the call, and settles it on its page."),
    )


def _queue() -> Finding:
    """Tasks that nobody takes out of django-q2's queue, where it is a table that can be asked."""
    tasks, now = queue.table(), timezone.now()  # the time these rows are stamped with
    if tasks is None:
        return Finding("queue", Level.OK, _("The queue is no table: it cannot be asked."))
    orphans = tasks.filter(lock__lte=now - _TOLD_WITHIN)
    oldest = orphans.order_by("lock").values_list("lock", flat=True).first() or now
    return _of_waiting(
        "queue",
        _count(orphans),
        now - oldest,
        none=_("No task waits for more than a minute."),
        some=_("Tasks waiting in django-q2's queue: %(count)s, the oldest for %(age)s."),
        hint=_("`manage.py qcluster` does not run, hangs, or cannot keep up."),
    )


def _trail(now: datetime) -> Iterator[Finding]:
    """Whether the audit trail is sealed, leaves the box, and was as it was signed when somebody looked."""
    if not seal.is_configured():
        yield Finding("trail", Level.OK, _("The audit trail is not sealed: there is no key."))
    else:
        yield _sealing()
    yield _export(now)
    yield _verification()


def _sealing() -> Finding:
    alias = places.database()
    late = marks.late(alias, MOST)
    trouble = standing.trouble(keeping.SEALER)
    error = trouble.error if trouble is not None else marks.disagree(alias)
    if error:
        said = _("The audit trail is not sealed: %(error)s") % {"error": error}
        hint = _(
            "Nothing is signed until this is mended; then it is sealed within five minutes. Was the key changed? "
            "Restart all that seals (clock, workers) with the new one. If not, see docs/audit.md."
        )
        return Finding("trail", Level.CRITICAL, said, late, hint=hint)
    minutes = int(marks.LATE.total_seconds() // 60)
    if not late:
        said = _("No event waits for more than %(minutes)s minutes to be sealed.")
        return Finding("trail", Level.OK, said % {"minutes": minutes})
    said = _("Events that wait for more than %(minutes)s minutes to be sealed: %(count)s.")
    said = said % {"minutes": minutes, "count": _number(late)}
    return Finding("trail", Level.WARNING, said, late, hint=_nobody_seals(alias))


def _nobody_seals(alias: str) -> str:
    """Return why that may be."""
    if held := leases.held(alias):
        hint = _("It is the turn of %(process)s to seal; if that died, others go on then.")
        return hint % {"process": held}
    return _("Neither a sweep nor `approval_clock` runs, or no key is configured where they do.")


def _export(now: datetime) -> Finding:
    """Targets that do not take the trail: it waits in the database, and nothing is lost."""
    failing = [each for each in standing.targets() if each.failing_since is not None]
    if not failing:
        return Finding("export", Level.OK, _("The audit trail reaches where it is exported to."))
    worst = min(failing, key=lambda each: each.failing_since or now)
    age = now - (worst.failing_since or now)
    said = _(
        "The audit trail has not reached %(target)s for %(age)s, events behind: %(count)s. %(error)s"
    )
    count = worst.behind
    values = {
        "target": worst.name,
        "age": _words(age),
        "count": f"{count:,}" if count is not None else "?",
        "error": worst.error,
    }
    level = Level.CRITICAL if age > _MUCH_TOO_LATE else Level.WARNING
    hint = _("Nothing is lost: it is sent as soon as it is taken again.")
    return Finding("export", level, said % values, count or 0, _seconds(age), hint)


def _verification() -> Finding:
    last, trouble = standing.last_verification(), standing.trouble(keeping.VERIFIER)
    at = f"{last.at:%Y-%m-%d %H:%M:%S} UTC" if last is not None else ""
    if last is not None and last.status in (findings.WRONG, findings.NOT_JUDGED):
        said = _("The audit trail was NOT as it was signed on %(at)s: %(first)s")
        if last.status == findings.NOT_JUDGED:
            said = _("The audit trail is NOT signed by the key in use, on %(at)s: %(first)s")
        hint = _("Verify an export offline, with a key and a checkpoint that were kept elsewhere.")
        values = {"at": at, "first": last.first}
        return Finding("verification", Level.CRITICAL, said % values, hint=hint)
    if trouble is not None:
        return Finding("verification", Level.WARNING, trouble.error)
    if last is None or last.checkpoint_at is None:
        return Finding("verification", Level.OK, _("The audit trail was never verified here."))
    said = _("The audit trail was as it was signed on %(at)s.") % {"at": at}
    return Finding("verification", Level.OK, said)


def _messages() -> QuerySet[Notification]:
    return Notification.objects.using(policies.database())


def _count(rows: QuerySet[Any]) -> int:
    return len(rows.values_list("pk", flat=True)[:MOST])


def _of_waiting(
    name: str, count: int, age: timedelta, *, none: str, some: str, hint: str
) -> Finding:
    """Return a finding about what waits: critical when that lasts."""
    if not count:
        return Finding(name, Level.OK, none)
    level = Level.CRITICAL if age > _MUCH_TOO_LATE else Level.WARNING
    said = some % {"count": _number(count), "age": _words(age)}
    return Finding(name, level, said, count, _seconds(age), hint)


def _of_dead(name: str, count: int, *, none: str, some: str, hint: str) -> Finding:
    """Return a finding about what somebody should look at, sooner or later."""
    if not count:
        return Finding(name, Level.OK, none)
    return Finding(name, Level.WARNING, some % {"count": _number(count)}, count, None, hint)


def _number(count: int) -> str:
    return _("%(most)s or more") % {"most": f"{MOST:,}"} if count >= MOST else f"{count:,}"


def _seconds(age: timedelta) -> float:
    return round(age.total_seconds(), 3)


def _words(age: timedelta) -> str:
    """Return a duration by its largest unit, as a monitor has room for."""
    seconds = max(0, int(age.total_seconds()))
    units: Sequence[tuple[str, int]] = (("d", 86400), ("h", 3600), ("min", 60))
    return next(
        (f"{seconds // size} {unit}" for unit, size in units if seconds >= size), f"{seconds} s"
    )
