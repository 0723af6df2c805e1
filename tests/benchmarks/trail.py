"""What the trail costs: an event per transition, sealing and verifying, and many writers at once.

The floor of the first rows is the same work with no event made and none written; that of the last, the same inserts
without a chain, in the same run.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest import mock

from django.db import connection, connections, transaction
from django.test import override_settings

from jit_approval import clock, prepared, services
from jit_approval.audit import chain, keys, live, seal, shown
from jit_approval.models import ApprovalRequest, AuditEvent
from tests import factories
from tests.benchmarks import scenes
from tests.benchmarks.timers import Timer

OVERHEAD, THROUGHPUT = 1.25, 0.7
ROUNDS, EVENTS, WRITERS, EACH = 150, 20_000, 32, 30
_WARM_UP = 20


def all_rows() -> list[Timer]:
    """Measure on the database at hand."""
    scenes.forget()
    found = [_life(), *_sealing()]
    return [*found, _writers()] if connection.vendor == "postgresql" else found


def _life() -> Timer:
    """Opening, deciding and consuming, with the trail and without, in turn."""
    bob, erin = factories.decider(), factories.user()
    # Who comes first after tables were emptied pays for their first pages: nobody who is timed.
    for _ in range(_WARM_UP):
        _lived(erin, bob)
    kinds: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "with": nullcontext,
        "without": _no_trail,
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(ROUNDS):
        for name in sorted(kinds, reverse=number % 2 == 1):
            with kinds[name]():
                taken[name].append(_timed(lambda: _lived(erin, bob)))
    took, floor = median(taken["with"]), median(taken["without"])
    each = (took - floor) * 1000 / 3
    name = "open, decide, consume; each: an event"
    return Timer(name, 0, took, each, floor * OVERHEAD, floor)


def _lived(erin: Any, bob: Any) -> None:
    row = services.open_request(factories.call(erin), factories.terms())
    row = services.approve(row, by=bob)
    row.now = clock.now("default")
    services.consume(row, state_digest=factories.STATE, by=erin)


@contextmanager
def _no_trail() -> Iterator[None]:
    insert = prepared.insert

    def but_events(row: Any, **options: Any) -> None:
        if not isinstance(row, AuditEvent):
            insert(row, **options)

    def nothing(approval_request: ApprovalRequest, kind: str, **_: Any) -> AuditEvent:
        return AuditEvent(sequence=approval_request.audit_seq + 1)

    with (
        mock.patch.object(prepared, "insert", but_events),
        mock.patch.object(chain, "next_event", nothing),
        # There is no event to compare the request with; that it is done counts as the trail's.
        mock.patch.object(shown, "ensure_as_held", lambda row, body: None),
    ):
        yield


def _sealing() -> Iterator[Timer]:
    scenes.forget()
    now = clock.now("default")
    made = [
        chain.single_event("allowed", at=now, label="erin", data={"action": "a.b", "number": n})
        for n in range(EVENTS)
    ]
    AuditEvent.objects.bulk_create(made, batch_size=500)
    with tempfile.TemporaryDirectory() as folder:
        public = keys.generate("approvals.example/trail", Path(folder) / "key")
        with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(Path(folder) / "key")}):
            took = _timed(lambda: seal.seal(at_once=True))
            yield Timer("sealed and signed", EVENTS, took, took * 1000 / EVENTS)
        took = _timed(lambda: live.verify([public]))
        yield Timer("verified in the database", EVENTS, took, took * 1000 / EVENTS)


def _writers() -> Timer:
    """Chained events of `WRITERS` requests at once, against the same rows without hash and head."""
    scenes.forget()
    factories.decider()
    rows = [factories.held() for _ in range(WRITERS)]
    now = clock.now("default")

    def chained(row: ApprovalRequest) -> None:
        services.note(row, "noted", by=None, data={"action": "a.b"})

    def plain(row: ApprovalRequest) -> None:
        with services.transitions.durable() as alias:
            found = services.transitions.locked(row.pk, alias)
            prepared.update(
                ApprovalRequest,
                {"steps_taken": 0},
                using=alias,
                where={"id": row.pk, "status": found.status},
            )
            event = AuditEvent(sequence=1, kind="noted", at=now, body='{"action":"a.b"}' * 15)
            prepared.insert(event, using=alias)

    found: dict[str, list[float]] = {"chained": [], "plain": []}
    for _ in range(5):
        found["chained"].append(_together(rows, chained))
        found["plain"].append(_together(rows, plain))
    floor, took = median(found["plain"]), median(found["chained"])
    count = WRITERS * EACH
    name = f"{WRITERS} writers, chained"
    return Timer(name, count, took, took * 1000 / count, floor / THROUGHPUT, floor)


def _together(rows: list[ApprovalRequest], write: Callable[[ApprovalRequest], None]) -> float:
    ready = threading.Barrier(len(rows) + 1)
    errors: list[BaseException] = []

    def work(row: ApprovalRequest) -> None:
        try:
            transaction.get_connection().ensure_connection()
            ready.wait()
            for _ in range(EACH):
                write(row)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    ready.wait()
    began = perf_counter()
    for thread in threads:
        thread.join()
    took = perf_counter() - began
    assert not errors, errors[0]
    return took


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began
