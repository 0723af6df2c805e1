"""The trail off the box: all of it arrives, whatever fails on the way, and what fails is seen."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from standardwebhooks import Webhook

from jit_approval import clock, clockwork, conf, health, keeping, services, tasks
from jit_approval.audit import chain, keys, seal
from jit_approval.audit.selection import Selection
from jit_approval.health import Level
from jit_approval.models import AuditEvent, Checkpoint, Seal, TrailTask, Verification
from jit_approval.notifications.channels import webhook
from jit_approval.stopping import Stop
from jit_approval.streaming import cursor, early, pump, targets
from tests import factories
from tests.receivers import Receiver, receiver

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"
SECRET, OLDER = webhook.make_secret(), webhook.make_secret()
LOGGER = "tests.trail"


class Collector(logging.Handler):
    """Keeps what it is given, until it is told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.room: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.room is not None and len(self.lines) >= self.room:
                raise OSError("No space left on device")
            self.lines.append(record.getMessage())
        except OSError:
            self.handleError(record)


@pytest.fixture
def collector() -> Iterator[Collector]:
    handler, logger = Collector(), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def key(tmp_path: Path) -> Any:
    return keys.generate(NAME, tmp_path / "trail.key")


def settings(tmp_path: Path, **others: Any) -> Any:
    made = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key"), **others}
    return override_settings(JIT_APPROVAL=made)


@pytest.fixture
def logged(tmp_path: Path, key: Any, collector: Collector) -> Iterator[Collector]:
    with settings(tmp_path, AUDIT_LOGGER=LOGGER):
        yield collector


def events(count: int) -> list[AuditEvent]:
    at = clock.now("default")
    made = [chain.single_event("allowed", at=at, label="erin", data={"n": n}) for n in range(count)]
    for event in made:
        event.save()
    return made


def sent() -> int:
    return sum(pump.run(10).values())


def try_again() -> None:
    TrailTask.objects.update(retry_at=None)


def checked(tmp_path: Path, lines: list[str], key: Any) -> Any:
    file = tmp_path / "received.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Selection(file).verify([key])


def finding(name: str) -> health.Finding:
    return next(each for each in health.report().findings if each.name == name)


# --- what arrives ------------------------------------------------------------------------------------------------


def test_every_sealed_event_is_logged_once_with_its_proof(
    logged: Collector, tmp_path: Path, key: Any
) -> None:
    events(7)
    seal.seal(at_once=True)
    assert sent() == 9  # and two statements: there was nothing, and these
    events(5)
    seal.seal(at_once=True)
    sent()
    assert sent() == 0
    report = checked(tmp_path, logged.lines, key)
    assert (report.status(), report.verified, report.events) == (0, 12, 12)
    hashes = [json.loads(line)["hash"] for line in logged.lines if "hash" in json.loads(line)]
    assert hashes == list(AuditEvent.objects.order_by("pk").values_list("hash", flat=True))


def test_statements_arrive_after_the_events_that_they_sign(logged: Collector) -> None:
    events(3)
    seal.seal(at_once=True)
    sent()
    assert ["note" in json.loads(line) for line in logged.lines] == [True] + [False] * 3 + [True]


def test_nothing_leaves_before_it_is_sealed_unless_that_is_set(logged: Collector) -> None:
    events(3)
    assert (sent(), logged.lines) == (0, [])


def test_more_than_fits_into_one_batch_arrives(
    logged: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: Any
) -> None:
    monkeypatch.setattr(pump, "_MAX_BYTES", 3000)
    events(40)
    seal.seal(at_once=True)
    assert sent() == 42
    assert checked(tmp_path, logged.lines, key).verified == 40


def test_ocsf_arrives_where_it_is_asked_for(tmp_path: Path, key: Any, collector: Collector) -> None:
    with settings(tmp_path, AUDIT_LOGGER=LOGGER, AUDIT_FORMAT="ocsf"):
        events(2)
        seal.seal(at_once=True)
        sent()
    found = [json.loads(line) for line in collector.lines]
    assert [each["class_uid"] for each in found] == [6003] * 4
    assert found[1]["unmapped"]["proof"]
    assert found[3]["unmapped"]["note"].startswith(NAME)


def test_the_webhook_gets_signed_lines_that_verify(tmp_path: Path, key: Any) -> None:
    with receiver(tmp_path) as endpoint, endpoint_settings(tmp_path, endpoint):
        events(3)
        seal.seal(at_once=True)
        assert sent() == 5
    _path, headers, body = endpoint.got[0]
    for secret in (SECRET, OLDER):
        content = Webhook(secret).verify(body, headers)
    assert (content["type"], content["data"]["format"]) == ("audit.trail", "jsonl")
    assert checked(tmp_path, content["data"]["lines"], key).verified == 3


def endpoint_settings(tmp_path: Path, endpoint: Receiver, **others: Any) -> Any:
    values = {
        "AUDIT_WEBHOOK_URL": endpoint.url,
        "AUDIT_WEBHOOK_SECRETS": [SECRET, OLDER],
        "WEBHOOK_PORTS": [endpoint.port],
        **others,
    }
    return settings(tmp_path, **values)


# --- what fails --------------------------------------------------------------------------------------------------


def test_a_webhook_that_fails_loses_nothing_and_is_seen(tmp_path: Path, key: Any) -> None:
    with receiver(tmp_path) as endpoint, endpoint_settings(tmp_path, endpoint):
        events(3)
        seal.seal(at_once=True)
        endpoint.status = 503
        endpoint.headers = {"Retry-After": "120"}
        assert sent() == 0
        task = TrailTask.objects.get(pk__startswith="webhook:")
        assert task.retry_at is not None
        assert task.retry_at - clock.now("default") > timedelta(seconds=110)
        assert "503" in task.error
        assert endpoint.url not in task.name
        found = finding("export")
        assert (found.level, found.count) == (Level.WARNING, 3)
        assert sent() == 0  # It asked to be left alone.
        assert len(endpoint.got) == 1
        TrailTask.objects.update(failing_since=clock.now("default") - timedelta(minutes=11))
        assert finding("export").level == Level.CRITICAL
        endpoint.status = 204
        try_again()
        assert sent() == 5
        assert finding("export").level == Level.OK
        assert endpoint.got[0][1]["webhook-id"] == endpoint.got[1][1]["webhook-id"]


@pytest.mark.parametrize("status", [301, 400, 404, 410, 500])
def test_whatever_a_webhook_answers_it_is_tried_again(
    tmp_path: Path, key: Any, status: int
) -> None:
    with receiver(tmp_path) as endpoint, endpoint_settings(tmp_path, endpoint):
        events(1)
        seal.seal(at_once=True)
        endpoint.status = status
        assert sent() == 0
        endpoint.status = 200
        try_again()
        assert sent() == 3


def test_nothing_is_sent_unsigned_or_into_the_own_network(tmp_path: Path, key: Any) -> None:
    seal_settings = {"AUDIT_WEBHOOK_URL": "https://hooks.example.com/", "AUDIT_WEBHOOK_SECRETS": []}
    with settings(tmp_path, **seal_settings):
        events(1)
        seal.seal(at_once=True)
        assert sent() == 0
        assert "unsigned" in TrailTask.objects.get().error
    with settings(tmp_path, AUDIT_WEBHOOK_URL="https://127.0.0.1/", AUDIT_WEBHOOK_SECRETS=[SECRET]):
        assert sent() == 0
        assert TrailTask.objects.filter(error__contains="address").exists()


def test_a_disk_that_is_full_in_the_middle_loses_nothing(
    logged: Collector, tmp_path: Path, key: Any
) -> None:
    events(9)
    seal.seal(at_once=True)
    logged.room = 4
    assert sent() == 0
    task = TrailTask.objects.get()
    assert (task.statement, task.index, task.failures) == (1, 3, 1)
    assert "No space left" in task.error
    logged.room = None
    try_again()
    sent()
    assert checked(tmp_path, logged.lines, key).verified == 9
    assert len(logged.lines) == 11


def test_a_logger_that_nobody_listens_to_is_a_failure(
    logged: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    logged.setLevel(logging.ERROR)
    logging.getLogger(LOGGER).handlers[:] = [logged, logging.NullHandler()]
    events(1)
    seal.seal(at_once=True)
    assert sent() == 0
    assert "no handler" in TrailTask.objects.get().error
    try_again()
    sent()
    told = [each for each in caplog.records if "does not reach" in each.getMessage()]
    assert len(told) == 1, "the same trouble is said once"


def test_of_two_that_send_the_same_one_moves_the_cursor(logged: Collector) -> None:
    events(3)
    seal.seal(at_once=True)
    name = f"log:{LOGGER}"
    lease = timedelta(minutes=1)
    with cursor.claimed(name, lasting=lease, start={}) as first:
        assert first is not None
        with cursor.claimed(name, lasting=lease, start={}) as second:
            assert second is None
        assert sent() == 0
        late = TrailTask.objects.get(pk=name)
        assert cursor.advance(first, lasting=lease, statement=1, index=3)
        # Its claim ran out while it was sending: what another has moved on stays there.
        assert not cursor.advance(late, lasting=lease, statement=0, index=1)
    assert TrailTask.objects.get(pk=name).index == 3


def test_a_new_place_is_sent_all_from_the_beginning(logged: Collector, tmp_path: Path) -> None:
    events(4)
    seal.seal(at_once=True)
    sent()
    other = targets.Webhook("https://other.example/", "jsonl")
    assert other.name != targets.Webhook("https://one.example/", "jsonl").name
    logging.getLogger("tests.other").addHandler(logged)
    with settings(tmp_path, AUDIT_LOGGER="tests.other"):
        before = len(logged.lines)
        logging.getLogger("tests.other").setLevel(logging.INFO)
        sent()
    logging.getLogger("tests.other").removeHandler(logged)
    assert len(logged.lines) == 2 * before


def test_an_event_made_unreadable_does_not_keep_the_others(
    tmp_path: Path, key: Any, collector: Collector
) -> None:
    with settings(tmp_path, AUDIT_LOGGER=LOGGER, AUDIT_FORMAT="ocsf"):
        made = events(3)
        seal.seal(at_once=True)
        AuditEvent.objects.filter(pk=made[1].pk).update(body="{not json")
        assert sent() == 5
    assert json.loads(collector.lines[2])["raw_data"] == "{not json"


def test_a_seal_that_is_gone_stops_that_target_and_is_seen(logged: Collector) -> None:
    events(3)
    seal.seal(at_once=True)
    Seal.objects.filter(pk=1).delete()
    assert sent() == 0
    assert "seal of event 1 is missing" in finding("export").message


# --- before it is sealed -------------------------------------------------------------------------------------------


@pytest.fixture
def unsealed(tmp_path: Path, key: Any, collector: Collector) -> Iterator[Collector]:
    with settings(tmp_path, AUDIT_LOGGER=LOGGER, AUDIT_STREAM_UNSEALED=True):
        sent()
        yield collector


def test_events_leave_as_soon_as_they_are_committed_and_again_when_sealed(
    unsealed: Collector, tmp_path: Path, key: Any
) -> None:
    events(3)
    assert sent() == 3
    assert sent() == 0
    assert [sorted(json.loads(line)) for line in unsealed.lines] == [
        ["body", "hash", "previous"]
    ] * 3
    report = checked(tmp_path, unsealed.lines, key)
    assert (report.status(), report.unsealed) == (3, 3)
    seal.seal(at_once=True)
    assert sent() == 5
    assert checked(tmp_path, unsealed.lines, key).status() == 0


def test_what_was_changed_before_it_was_sealed_shows_in_what_had_left(
    unsealed: Collector, tmp_path: Path, key: Any
) -> None:
    made = events(3)
    sent()
    forged = chain.single_event("allowed", at=made[1].at, label="erin", data={"n": 99})
    AuditEvent.objects.filter(pk=made[1].pk).update(body=forged.body, hash=forged.hash)
    seal.seal(at_once=True)
    sent()
    report = checked(tmp_path, unsealed.lines, key)
    assert (report.status(), report.unsealed) == (3, 1)


def test_an_event_that_is_committed_late_with_a_lower_key_leaves_too(unsealed: Collector) -> None:
    made = events(5)
    late = made[1]
    AuditEvent.objects.filter(pk=late.pk).delete()
    assert sent() == 4
    late.save(force_insert=True)
    assert sent() == 1
    assert json.loads(unsealed.lines[-1])["hash"] == late.hash
    assert sent() == 0


def test_gaps_are_looked_for_for_an_hour_and_are_not_too_many(unsealed: Collector) -> None:
    now = clock.now("default")
    task = TrailTask(name="x", early=5, gaps=[[3, 0], [4, int(now.timestamp())]])
    after = early.after(task, [AuditEvent(pk=100_000)], now)
    gaps: Any = after["gaps"]
    assert (after["early"], len(gaps), gaps[-1][0]) == (100_000, 1000, 99_999)
    after = early.after(task, [AuditEvent(pk=6)], now)
    assert after["gaps"] == [[4, int(now.timestamp())]]


# --- again and again -----------------------------------------------------------------------------------------------


def test_keeping_seals_exports_and_sends(logged: Collector, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with settings(tmp_path, AUDIT_LOGGER=LOGGER, AUDIT_EXPORT_DIR=str(tmp_path / "export")):
        events(2)
        Checkpoint.objects.all().delete()
        assert keeping.keep(10)["signed"] >= 1
        last = Checkpoint.objects.order_by("-number")[0]
        Checkpoint.objects.update(at=last.at - timedelta(minutes=2))
        counts = keeping.keep(10)
        assert (counts["sealed"], counts["sent"]) == (2, 3)
        assert (tmp_path / "export" / "checkpoints.jsonl").exists()
        assert {"sealer", "directory"} <= set(TrailTask.objects.values_list("pk", flat=True))


def test_the_sweep_and_the_clock_keep_the_trail(logged: Collector) -> None:
    events(1)
    counts = tasks.sweep()
    assert (counts["signed"] >= 1, counts["sent"]) == (True, 1)
    stop = Stop()
    Checkpoint.objects.update(at=clock.now("default") - timedelta(minutes=2))
    assert clockwork.Clockwork(stop).once()["sealed"] >= 1
    stop.close()


def test_a_verification_that_fails_is_told_and_not_tried_at_every_beat(
    logged: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("x")

    monkeypatch.setattr(keeping.live, "verify", broken)
    with pytest.raises(RuntimeError):
        keeping.verify_if_due()
    assert keeping.verify_if_due() is None
    assert finding("verification").level == Level.WARNING
    TrailTask.objects.update(retry_at=None)
    monkeypatch.undo()
    assert keeping.verify_if_due() is not None
    assert finding("verification").level == Level.OK


def test_without_a_key_and_a_target_nothing_is_asked(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert keeping.keep(10) == {}
        assert keeping.verify_if_due() is None


def test_a_sealer_that_refuses_is_told_and_calls_go_on(logged: Collector) -> None:
    events(2)
    seal.seal(at_once=True)
    AuditEvent.objects.update(hash="0" * 64)
    Seal.objects.update(nodes=b"\0" * 32)
    keeping.keep(10)
    found = finding("trail")
    assert found.level == Level.CRITICAL
    assert "not sealed" in found.message
    factories.decider()
    assert services.open_request(factories.call(factories.user()), factories.terms())


def test_a_key_that_named_its_successor_says_what_to_restart_until_the_new_one_has_sealed(
    logged: Collector, tmp_path: Path
) -> None:
    events(1)
    seal.seal(at_once=True)
    keys.generate("approvals.example/trail", tmp_path / "next.key")
    seal.rotate(keys.load(tmp_path / "next.key", {}))
    keeping.keep(10)
    found = finding("trail")
    assert found.level == Level.CRITICAL
    assert "has named its successor" in found.message
    assert "restart this process" in found.message
    assert "Restart all that seals" in found.hint
    events(1)
    with settings(tmp_path, AUDIT_KEY_FILE=str(tmp_path / "next.key")):
        assert keeping.keep(10) == {}  # it was tried just now
        TrailTask.objects.update(retry_at=None)
        keeping.keep(10)
        assert finding("trail").level == Level.OK


def test_a_directory_that_is_gone_is_told(tmp_path: Path, key: Any) -> None:
    with settings(tmp_path, AUDIT_EXPORT_DIR=str(tmp_path / "not there")):
        events(1)
        keeping.keep(10)
        assert "Is it mounted?" in finding("trail").message


def test_events_that_wait_too_long_are_told(logged: Collector) -> None:
    events(1)
    AuditEvent.objects.update(at=clock.now("default") - timedelta(minutes=6))
    assert finding("trail").level == Level.WARNING


# --- verified again and again ----------------------------------------------------------------------------------------


def test_what_was_never_verified_is_not_said_to_be(logged: Collector) -> None:
    assert "never verified" in finding("verification").message


def test_the_clock_verifies_once_a_day_and_writes_down_what_it_found(logged: Collector) -> None:
    events(3)
    seal.seal(at_once=True)
    report = keeping.verify_if_due()
    assert report is not None
    found = Verification.objects.get()
    assert (found.status, found.verified, found.source) == (0, 3, "schedule")
    assert (found.key_given, found.truncation_checked) == (False, False)
    assert found.checkpoint_at == Checkpoint.objects.order_by("-number")[0].at.replace(
        microsecond=0
    )
    assert keeping.verify_if_due() is None
    made = AuditEvent.objects.all()[1]
    AuditEvent.objects.filter(pk=made.pk).update(body=made.body.replace("erin", "mary"))
    Verification.objects.update(at=clock.now("default") - timedelta(hours=25))
    assert keeping.verify_if_due() is not None
    found = Verification.objects.first()
    assert found is not None
    assert (found.status, "event 1" in found.first) == (1, True)
    assert finding("verification").level == Level.CRITICAL


def test_it_can_be_told_never_to_verify(tmp_path: Path, key: Any) -> None:
    with settings(tmp_path, AUDIT_VERIFY_EVERY=0):
        assert keeping.verify_if_due() is None


def test_a_format_that_is_unknown_is_refused() -> None:
    with (
        override_settings(JIT_APPROVAL={"AUDIT_FORMAT": "xml"}),
        pytest.raises(Exception, match="AUDIT_FORMAT"),
    ):
        conf.get()


def test_targets_do_not_open_a_connection_of_their_own(logged: Collector) -> None:
    events(1)
    seal.seal(at_once=True)
    sent()
    assert connection.connection is not None
