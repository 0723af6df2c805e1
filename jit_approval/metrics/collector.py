"""The metrics themselves, by their names in Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from django.db.models import Count, Max
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector as Base

from jit_approval import policies, queue
from jit_approval.clock import DatabaseNow
from jit_approval.metrics import tallies
from jit_approval.models import ApprovalRequest, Heartbeat, Notification
from jit_approval.states import Outcome, Status

# Seconds. People take minutes; messages and deadlines, seconds.
_OF_PEOPLE = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_OF_MACHINES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 65.0, 300.0, 3600.0)

_OUTCOMES = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNKNOWN)
_ENDED = (Notification.State.SENT, Notification.State.FAILED, Notification.State.DROPPED)


class Collector(Base):
    """Counts from the database at each scrape. Register one per process, in any registry."""

    def __init__(self) -> None:
        self._events = tallies.events()
        self._messages = tallies.messages()
        self._decisions = tallies.decisions(_OF_PEOPLE)
        self._tellings = tallies.tellings(_OF_MACHINES)
        self._expiries = tallies.expiries(_OF_MACHINES)

    def describe(self) -> list[Metric]:
        """Return nothing: to be registered must not query."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics as of now.

        Raises:
            django.db.Error: the database cannot be asked; the scrape fails, and Prometheus says `up == 0`.
        """
        yield from _of_events(self._events.now())
        yield _counter(
            "messages", "Messages that came to an end.", "state", self._messages.now(), _ENDED
        )
        yield _histogram(
            "time_to_decision_seconds",
            "From a call being held to its being approved or rejected.",
            self._decisions.now(),
            _OF_PEOPLE,
        )
        yield _histogram(
            "time_to_told_seconds",
            "From a call being held to a decider, or a channel, being told.",
            self._tellings.now(),
            _OF_MACHINES,
        )
        yield _histogram(
            "expiry_lateness_seconds",
            "From a deadline to its being recorded. Access ended at the deadline.",
            self._expiries.now(),
            _OF_MACHINES,
        )
        yield from _of_this_moment()


def _of_events(happened: Counter[tuple[str, str]]) -> Iterator[Metric]:
    """Return the counters of what happened to calls."""
    kinds = Counter[str]()
    for (kind, _), count in happened.items():
        kinds[kind] += count
    plain = {
        "held": "Calls that were held.",
        "escalated": "Steps on silence that were taken.",
        "consumed": "Approvals that were spent: calls that ran.",
        "cancelled": "Held calls that were withdrawn.",
        "revoked": "Approvals that were taken back.",
        "allowed": "Calls that a policy allowed at once.",
        "denied": "Calls that a policy denied.",
        "unavailable": "Alerts that nobody could decide a call.",
    }
    for kind, text in plain.items():
        yield CounterMetricFamily(f"jit_approval_{kind}", text, kinds[kind])
    verdicts = Counter(approve=kinds[Status.APPROVED], reject=kinds[Status.REJECTED])
    yield _counter(
        "decided", "Calls that were decided.", "verdict", verdicts, ("approve", "reject")
    )
    ended = Counter({source.value: happened[Status.EXPIRED, source] for source in Status})
    waiting = (Status.PENDING, Status.APPROVED)
    yield _counter(
        "expired", "Calls whose time ran out, by where they stood.", "was", ended, waiting
    )
    outcomes = Counter({outcome.value: happened["outcome", outcome] for outcome in _OUTCOMES})
    yield _counter("outcomes", "How runs ended.", "outcome", outcomes, _OUTCOMES)


def _of_this_moment() -> Iterator[Metric]:
    """Return the gauges."""
    alias = policies.database()
    requests = ApprovalRequest.objects.using(alias).order_by()
    open_now = requests.filter(due_at__gt=DatabaseNow(), open_key__isnull=False)
    standing = Counter(dict(open_now.values_list("status").annotate(Count("pk"))))
    waiting = GaugeMetricFamily("jit_approval_open", "Calls that may still run.", labels=["status"])
    for status in (Status.PENDING, Status.APPROVED):
        waiting.add_metric([status.value], standing[status])
    yield waiting
    gauges = {
        "overdue": ("Deadlines that nobody recorded yet.", requests.due().count()),
        "unknown_outcomes": (
            "Runs of which nobody knows how they ended.",
            requests.filter(outcome=Outcome.UNKNOWN).count(),
        ),
        "undelivered": (
            "Messages that wait, or are tried again.",
            Notification.objects.using(alias).filter(state=Notification.State.WAITING).count(),
        ),
        "queue_depth": ("Tasks in django-q2's queue.", queue.depth()),
    }
    for name, (text, value) in gauges.items():
        if value is not None:
            yield GaugeMetricFamily(f"jit_approval_{name}", text, value)
    yield _heartbeats(alias)


def _heartbeats(alias: str) -> Metric:
    text = "When a process of this kind last swept, by the database's clock."
    family = GaugeMetricFamily("jit_approval_last_sweep_timestamp_seconds", text, labels=["kind"])
    rows = Heartbeat.objects.using(alias).order_by().values_list("kind")
    for kind, at in rows.annotate(Max("at")):
        family.add_metric([kind], at.timestamp())
    return family


def _counter(
    name: str, text: str, label: str, counts: Counter[str], values: tuple[str, ...]
) -> Metric:
    """Return a counter with every value of its label, those that never happened too."""
    family = CounterMetricFamily(f"jit_approval_{name}", text, labels=[label])
    for value in values:
        family.add_metric([str(value)], counts[value])
    return family


def _histogram(name: str, text: str, found: tallies.Histogram, bounds: tuple[float, ...]) -> Metric:
    buckets = [(str(bound), float(found.within[bound])) for bound in bounds]
    family = HistogramMetricFamily(f"jit_approval_{name}", text)
    family.add_metric([], [*buckets, ("+Inf", float(found.count))], found.sum)
    return family
