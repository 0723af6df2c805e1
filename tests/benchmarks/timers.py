"""What deadlines cost: 100 and 10,000 due, among few calls and among very many."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from jit_approval import clock, overdue, sweeping
from jit_approval.models import ApprovalRequest, Notification
from tests import factories
from tests.benchmarks import scenes, shapes
from tests.benchmarks.models import Pair

MANY = {"postgresql": 1_000_000, "sqlite": 100_000}
# Rows of one transaction of a sweep.
_BATCH = 25
_SERIES = {
    "postgresql": "SELECT generate_series(1, {}) AS i",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n",
}
_RANDOM_KEY = {
    "postgresql": "md5(random()::text || numbers.i::text)",
    "sqlite": "lower(hex(randomblob(16)))",
}
_NEW_ID = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}


@dataclass(frozen=True)
class Timer:
    """One row: seconds, what that is per call that was due in milliseconds, and the floor in the same run."""

    name: str
    among: int
    seconds: float
    each: float | None = None
    limit: float | None = None
    floor: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        return None if self.limit is None else self.seconds <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return the row for `--json`."""
        return {**asdict(self), "reached": self.reached}


def all_rows() -> list[Timer]:
    """Measure; also write the plans of the two statements that look for what is due to standard error."""
    scenes.forget()
    factories.decider()
    template = factories.held()
    Notification.objects.update(state=Notification.State.SENT)
    found = [*_sweeps(template, 1000)]
    many = MANY[connection.vendor]
    _add(template, many, closed=True)
    _add(template, 1000, due="later")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    found += _sweeps(template, many)
    _show_plans(template)
    return found


def _sweeps(template: ApprovalRequest, among: int) -> Iterator[Timer]:
    sweeper = sweeping.Sweeper()
    sweeper.record_due()
    pair = Pair.objects.create(value=0).pk
    one = _seconds(shapes.replay("R", pair))
    yield Timer("look: what is due next", among, _seconds(sweeper.look), floor=one)
    yield Timer("sweep: nothing due", among, _seconds(sweeper.record_due))
    for due in (100, 10_000):
        _add(template, due, due="now")
        began = time.perf_counter()
        done = sweeper.record_due(seconds=3600)["expired"]
        took = time.perf_counter() - began
        assert done == due, f"{done} of {due} were recorded"
        floor = _floor(pair) * due / _BATCH
        yield Timer(f"sweep: {due:,} due", among, took, each=took / due * 1000, floor=floor)


def _floor(pk: int) -> float:
    """Return the seconds of one batch that does nothing but lock, and make each row's four statements."""
    return _seconds(shapes.replay(f"[L{'UIII' * _BATCH}]", pk))


def _seconds(thing: Callable[[], object], rounds: int = 20) -> float:
    """Return the median of some rounds."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        thing()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[rounds // 2]


def _add(template: ApprovalRequest, count: int, *, closed: bool = False, due: str = "") -> None:
    """Copy a call so many times, as one made long ago: rejected, or open and due."""
    vendor, meta = connection.vendor, ApprovalRequest._meta
    now = clock.now("default")
    values = {"id": _NEW_ID[vendor], "open_key": "NULL" if closed else _RANDOM_KEY[vendor]}
    moments = {"created_at": now - timedelta(days=40)}
    if due:
        moments["due_at"] = now + {"now": -timedelta(seconds=1), "later": timedelta(hours=1)}[due]
        moments["decide_by"] = moments["due_at"]
    if closed:
        values |= {"due_at": "NULL", "status": "'rejected'"}
    values |= dict.fromkeys(moments, "%s")
    columns = [field.column for field in meta.concrete_fields]
    chosen = ", ".join(values.get(name, f"template.{name}") for name in columns)
    params = [_plain(moments[name]) for name in columns if name in moments]
    key = template.pk if vendor == "postgresql" else template.pk.hex
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {meta.db_table} ({', '.join(columns)}) SELECT {chosen} "
            f"FROM {meta.db_table} template, ({_series(count)}) AS numbers WHERE template.id = %s",
            [*params, key],
        )


def _plain(moment: datetime) -> Any:
    if connection.vendor == "postgresql":
        return moment
    return connection.ops.adapt_datetimefield_value(moment)


def _series(count: int) -> str:
    return _SERIES[connection.vendor].format(count)


def _show_plans(template: ApprovalRequest) -> None:
    explain = (
        "EXPLAIN (ANALYZE, COSTS OFF)"
        if connection.vendor == "postgresql"
        else "EXPLAIN QUERY PLAN"
    )
    _add(template, 10, due="now")
    batch = str(overdue.due("default").only("pk")[:25].query)
    look, params = sweeping.next_due_sql("default")
    for name, sql, values in (("a batch", batch, None), ("a look", look, params)):
        print(f"\n{connection.vendor}, {name}:", file=sys.stderr)
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {sql.replace('%%', '%') if values is None else sql}", values)
            for line in cursor.fetchall():
                print("   ", line[-1], file=sys.stderr)
    sweeping.Sweeper().record_due()
