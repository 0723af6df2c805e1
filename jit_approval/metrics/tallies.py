"""Running totals of tables that only grow: what is settled is counted once per process, the rest at each scrape.

Rows are settled when no transaction can add one before them, and none of them changes any more. A scrape costs what
happened in the last minutes, not the size of the table; only the first of a process reads all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from django.db.models import (
    Case,
    Count,
    DurationField,
    Expression,
    ExpressionWrapper,
    F,
    Min,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.db.models import CharField as Text

from jit_approval import clock, policies
from jit_approval.models import AuditEvent, Notification
from jit_approval.states import Outcome, Status

# Transactions take milliseconds: what was written so long ago is complete.
_SETTLED = timedelta(minutes=5)
# Rows aggregated by one statement.
_STEP = 200_000


@dataclass
class Histogram:
    """Durations: how many were within each bound (in seconds), how many in all, and their sum in seconds."""

    within: Counter[float]
    count: int = 0
    sum: float = 0.0

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.within + other.within, self.count + other.count, self.sum + other.sum)


class _Addable(Protocol):
    def __add__(self, other: Any) -> Any: ...


Total = TypeVar("Total", bound=_Addable)


class Tally(Generic[Total]):
    """A total over all rows of a table, kept up to date by its primary key. Safe to ask from several threads."""

    def __init__(
        self,
        rows: Callable[[], QuerySet[Any]],
        count: Callable[[Q], Total],
        settled: Callable[[], int],
        nothing: Total,
    ) -> None:
        self._rows = rows
        self._count = count
        self._settled = settled
        self._total = nothing
        self._upto = 0
        self._lock = Lock()

    def now(self) -> Total:
        """Return the total of this moment."""
        with self._lock:
            until = self._settled()
            while (first := self._first(until)) is not None:
                step = min(first - 1 + _STEP, until)
                self._total = self._total + self._count(Q(pk__gt=self._upto, pk__lte=step))
                self._upto = step
            total: Total = self._total + self._count(Q(pk__gt=self._upto))
            return total

    def _first(self, until: int) -> int | None:
        # Keys may begin high and have wide gaps: a step begins at a row, or it would be one of billions.
        left = self._rows().filter(pk__gt=self._upto, pk__lte=until)
        first: int | None = left.aggregate(first=Min("pk"))["first"]
        return first


def events() -> Tally[Counter[tuple[str, str]]]:
    """Return what happened, by kind and detail: of `outcome` the outcome, of `expired` the status it ended."""
    return Tally(_events, _count_events, _settled_events, Counter())


def decisions(bounds: tuple[float, ...]) -> Tally[Histogram]:
    """Return seconds from a call being held to its being approved or rejected."""

    def count(among: Q) -> Histogram:
        rows = _events().filter(among, target__in=[Status.APPROVED, Status.REJECTED])
        return _histogram(rows, F("at") - F("approval_request__created_at"), bounds)

    return Tally(_events, count, _settled_events, Histogram(Counter()))


def expiries(bounds: tuple[float, ...]) -> Tally[Histogram]:
    """Return seconds from a deadline to its being recorded."""
    deadline = Case(
        When(source=Status.APPROVED, then=F("approval_request__usable_until")),
        default=F("approval_request__decide_by"),
    )

    def count(among: Q) -> Histogram:
        rows = _events().filter(among, target=Status.EXPIRED)
        return _histogram(rows, F("at") - deadline, bounds)

    return Tally(_events, count, _settled_events, Histogram(Counter()))


def tellings(bounds: tuple[float, ...]) -> Tally[Histogram]:
    """Return seconds from a call being held to each person, or channel, being told of it."""
    held = {"event": Notification.Event.HELD, "state": Notification.State.SENT}

    def count(among: Q) -> Histogram:
        rows = _messages().filter(among, **held).exclude(recipient="")
        return _histogram(rows, F("sent_at") - F("approval_request__created_at"), bounds)

    return Tally(_messages, count, _settled_messages, Histogram(Counter()))


def messages() -> Tally[Counter[str]]:
    """Return messages to people or channels that have come to an end, by state."""

    def count(among: Q) -> Counter[str]:
        rows = _messages().filter(among).exclude(recipient="").exclude(state=_WAITING)
        return Counter(dict(rows.values_list("state").annotate(Count("pk")).order_by()))

    return Tally(_messages, count, _settled_messages, Counter())


# --- the pieces ------------------------------------------------------------------------------------------

_WAITING = Notification.State.WAITING


def _events() -> QuerySet[AuditEvent]:
    return AuditEvent.objects.using(policies.database()).order_by()


def _messages() -> QuerySet[Notification]:
    return Notification.objects.using(policies.database()).order_by()


def _settled_events() -> int:
    """Return the last event that is old enough: found from the end, past those of the last minutes."""
    old = clock.now(policies.database()) - _SETTLED
    return _events().filter(at__lte=old).order_by("-pk").values_list("pk", flat=True).first() or 0


def _settled_messages() -> int:
    """Return the last message that is old enough, and before any that still waits."""
    old = clock.now(policies.database()) - _SETTLED
    last = _messages().filter(created_at__lte=old).order_by("-pk").values_list("pk", flat=True)
    waiting = _messages().filter(state=_WAITING).aggregate(first=Min("pk"))["first"]
    settled = last.first() or 0
    return settled if waiting is None else min(settled, waiting - 1)


def _count_events(among: Q) -> Counter[tuple[str, str]]:
    rows = _events().filter(among).annotate(detail=_detail())
    counted = rows.values_list("kind", "detail").annotate(Count("pk"))
    return Counter({(kind, detail): count for kind, detail, count in counted})


def _detail() -> Case:
    # The body is canonical JSON: no spaces, and quotes in a value would be escaped.
    outcomes = [
        When(
            kind="outcome", body__contains=f'"outcome":"{outcome.value}"', then=Value(outcome.value)
        )
        for outcome in Outcome
    ]
    ended = When(kind=Status.EXPIRED.value, then=F("source"))
    return Case(*outcomes, ended, default=Value(""), output_field=Text())


def _histogram(rows: QuerySet[Any], took: Any, bounds: tuple[float, ...]) -> Histogram:
    timed = rows.annotate(took=ExpressionWrapper(took, output_field=DurationField()))
    asked: dict[str, Expression] = {
        f"within_{number}": Count("pk", filter=Q(took__lte=timedelta(seconds=bound)))
        for number, bound in enumerate(bounds)
    }
    found: Mapping[str, Any] = timed.aggregate(count=Count("pk"), sum=Sum("took"), **asked)
    within = Counter({bound: found[f"within_{number}"] for number, bound in enumerate(bounds)})
    return Histogram(within, found["count"], found["sum"].total_seconds() if found["sum"] else 0.0)
