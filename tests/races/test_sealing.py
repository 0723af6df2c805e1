"""Writers and sealers at the same time on PostgreSQL: every event gets one place, and one history is signed."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from django.db.models import F
from django.test import override_settings

from jit_approval import clock
from jit_approval.audit import chain, checking, folder, keys, live, marks, places, seal
from jit_approval.models import AuditEvent, Checkpoint, Seal, TreeHead

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
]

WRITERS, EACH, SEALERS = 32, 60, 4


def write(number: int, ready: threading.Barrier, errors: list[BaseException]) -> None:
    try:
        ready.wait()
        for each in range(EACH):
            with transaction.atomic():
                event = chain.single_event(
                    "allowed", at=clock.now("default"), label=str(uuid4()), data={}
                )
                event.save()
                if (number + each) % 7 == 0:
                    # Its key is taken: others commit theirs before it.
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_sleep(0.05)")
    except BaseException as error:
        errors.append(error)
    finally:
        connections.close_all()


def keep_sealing(stop: threading.Event, counts: Counter[str], errors: list[BaseException]) -> None:
    try:
        while not stop.is_set():
            # As if it could not be relied on: nothing is to depend on the lease.
            TreeHead.objects.update(leased_until=None)
            counts.update(seal.seal(at_once=True))
    except BaseException as error:
        errors.append(error)
    finally:
        connections.close_all()


def test_of_many_writers_and_sealers_every_event_is_sealed_once(tmp_path: Path) -> None:
    public = keys.generate("approvals.example/trail", tmp_path / "key")
    (tmp_path / "export").mkdir()
    settings = {
        "AUDIT_KEY_FILE": str(tmp_path / "key"),
        "AUDIT_EXPORT_DIR": str(tmp_path / "export"),
    }
    errors: list[BaseException] = []
    counts: Counter[str] = Counter()
    stop, ready = threading.Event(), threading.Barrier(WRITERS)
    with override_settings(JIT_APPROVAL=settings):
        places.head("default")
        writers = [threading.Thread(target=write, args=(n, ready, errors)) for n in range(WRITERS)]
        sealers = [
            threading.Thread(target=keep_sealing, args=(stop, counts, errors))
            for _ in range(SEALERS)
        ]
        for thread in [*sealers, *writers]:
            thread.start()
        for thread in writers:
            thread.join(60)
        stop.set()
        for thread in sealers:
            thread.join(60)
        TreeHead.objects.update(leased_until=None)
        seal.seal(at_once=True)
        assert errors == []
        total = WRITERS * EACH
        assert AuditEvent.objects.count() == Seal.objects.count() == total
        assert TreeHead.objects.get().size == total
        order = list(Seal.objects.order_by("index").values_list("event_id", flat=True))
        assert order != sorted(order), "no event committed late: the test shows nothing"
        report = live.verify([public])
        assert (report.status(), report.verified) == (0, total)
    export = folder.Folder(tmp_path / "export")
    report = checking.verify(export.events(), export.statements(), [public])
    assert (report.status(), report.verified) == (0, total)


def write_slowly(taken: threading.Event, go_on: threading.Event, keys_: list[int]) -> None:
    try:
        with transaction.atomic():
            event = chain.single_event("allowed", at=clock.now("default"), label="slow", data={})
            event.save()
            keys_.append(event.pk)
            taken.set()
            go_on.wait(60)
    finally:
        connections.close_all()


def test_an_event_whose_transaction_lasted_for_hours_is_sealed(tmp_path: Path) -> None:
    public = keys.generate("approvals.example/trail", tmp_path / "key")
    taken, go_on, slow = threading.Event(), threading.Event(), list[int]()
    writer = threading.Thread(target=write_slowly, args=(taken, go_on, slow))
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "key")}):
        writer.start()
        assert taken.wait(60)
        chain.single_event("allowed", at=clock.now("default"), label="quick", data={}).save()
        seal.seal_all()
        for model in (AuditEvent, Checkpoint):
            model.objects.update(at=F("at") - timedelta(minutes=61))
        seal.seal_all()
        assert TreeHead.objects.get().settled > slow[0]
        go_on.set()
        writer.join(60)
        assert seal.seal()["sealed"] == 0
        marks.forget()  # as some minutes later
        assert seal.seal()["sealed"] == 1
        assert live.verify([public]).events == 2
    assert list(Seal.objects.order_by("index").values_list("event_id", flat=True))[1] == slow[0]
