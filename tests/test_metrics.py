"""What Prometheus is told is what the database says, whichever process is asked, however often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import F
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jit_approval import clock, metrics, policies, services, tasks
from jit_approval.metrics import tallies, views
from jit_approval.models import ApprovalRequest, AuditEvent, Notification
from jit_approval.states import Outcome
from tests import factories

pytestmark = pytest.mark.django_db
TOKEN = "sixteen characters and more"


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def collector() -> metrics.Collector:
    return metrics.Collector()


def scrape(collector: metrics.Collector) -> dict[str, float]:
    """Every sample, as `name{label="value"}`."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    return dict(_samples(text))


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            name = sample.name.removeprefix("jit_approval_")
            yield f"{name}{{{labels}}}" if labels else name, sample.value


def make_due(row: ApprovalRequest, seconds: float = 1) -> None:
    """Its time is over since so long."""
    moment = clock.now("default") - timedelta(seconds=seconds)
    due = {"due_at": moment, "decide_by": moment, "usable_until": moment}
    ApprovalRequest.objects.filter(pk=row.pk).update(**due)


def run(row: ApprovalRequest, outcome: Outcome, by: Any) -> None:
    services.approve(row, by=by)
    services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(factories.fresh(row), outcome=outcome)


def settle_everything() -> None:
    """All that happened is old."""
    AuditEvent.objects.update(at=F("at") - timedelta(hours=1))
    Notification.objects.update(created_at=F("created_at") - timedelta(hours=1))


# --- what is counted -----------------------------------------------------------------------------------------


def test_each_way_of_a_call_is_counted(collector: metrics.Collector, bob: Any) -> None:
    rows = [factories.held() for _ in range(9)]
    run(rows[0], Outcome.SUCCEEDED, bob)
    run(rows[1], Outcome.FAILED, bob)
    run(rows[2], Outcome.UNKNOWN, bob)
    services.reject(rows[3], by=bob)
    services.cancel(rows[4], by=None)
    services.approve(rows[5], by=bob)
    services.revoke(rows[5], by=bob)
    services.approve(rows[6], by=bob)
    for row in (rows[6], rows[7]):
        make_due(row)
    tasks.sweep()
    found = scrape(collector)
    expected = {
        "held_total": 9,
        'decided_total{verdict="approve"}': 5,
        'decided_total{verdict="reject"}': 1,
        'expired_total{was="pending"}': 1,
        'expired_total{was="approved"}': 1,
        "consumed_total": 3,
        'outcomes_total{outcome="succeeded"}': 1,
        'outcomes_total{outcome="failed"}': 1,
        'outcomes_total{outcome="unknown"}': 1,
        "cancelled_total": 1,
        "revoked_total": 1,
        "denied_total": 0,
        'open{status="pending"}': 1,
        'open{status="approved"}': 0,
        "overdue": 0,
        "unknown_outcomes": 1,
        "time_to_decision_seconds_count": 6,
        "expiry_lateness_seconds_count": 2,
    }
    assert {name: found[name] for name in expected} == expected
    assert 'last_sweep_timestamp_seconds{kind="schedule"}' in found


def test_steps_on_silence_are_counted(collector: metrics.Collector, bob: Any) -> None:
    row = factories.held(terms=vars(policies.terms(None)))
    passed = 0.6 * (row.decide_by - row.created_at)
    back = {name: F(name) - passed for name in ("created_at", "decide_by", "due_at", "wake_at")}
    ApprovalRequest.objects.filter(pk=row.pk).update(**back)
    tasks.sweep()
    assert scrape(collector)["escalated_total"] == 1


def test_nothing_happened_is_zero_and_not_absent(collector: metrics.Collector) -> None:
    found = scrape(collector)
    assert found["held_total"] == 0
    assert found['expired_total{was="approved"}'] == 0
    assert found['time_to_told_seconds_bucket{le="0.5"}'] == 0
    assert not any(name.startswith("last_sweep") for name in found)


def test_what_is_settled_is_counted_once_and_what_is_new_is_added(
    collector: metrics.Collector, bob: Any
) -> None:
    rows = [factories.held() for _ in range(3)]
    for _ in range(2):
        assert scrape(collector)["held_total"] == 3
    settle_everything()
    for _ in range(2):
        assert scrape(collector)["held_total"] == 3
    factories.held()
    services.reject(rows[0], by=bob)
    for _ in range(2):
        found = scrape(collector)
        assert (found["held_total"], found['decided_total{verdict="reject"}']) == (4, 1)
    assert scrape(metrics.Collector()) == found  # as another process says


def test_what_is_settled_is_not_read_again(collector: metrics.Collector, bob: Any) -> None:
    for _ in range(3):
        run(factories.held(), Outcome.SUCCEEDED, bob)
    settle_everything()
    scrape(collector)
    AuditEvent.objects.update(kind="changed")  # Nobody does; it would be seen.
    assert scrape(collector)["held_total"] == 3


def test_large_tables_are_read_in_steps(
    collector: metrics.Collector, bob: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "_STEP", 2)
    for _ in range(5):
        factories.held()
    settle_everything()
    assert scrape(collector)["held_total"] == 5


def test_gap_between_keys_costs_no_steps(
    collector: metrics.Collector,
    bob: Any,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: Any,
) -> None:
    """A key given by hand, a sequence set high after a restore: the first scrape must still end."""
    monkeypatch.setattr(tallies, "_STEP", 2)
    before = factories.held()
    factories.held()
    AuditEvent.objects.exclude(approval_request=before).update(id=F("id") + 1000)
    settle_everything()
    with django_assert_max_num_queries(100):
        assert scrape(collector)["held_total"] == 2


def test_message_that_still_waits_holds_back_what_is_settled(
    collector: metrics.Collector, bob: Any
) -> None:
    first, second = factories.held(), factories.held()
    for row in (second, first):
        tasks.deliver(Notification.objects.get(approval_request=row, recipient="").pk)
    told = Notification.objects.filter(approval_request=first, recipient=bob.pk)
    told.update(state=Notification.State.WAITING)
    settle_everything()
    assert scrape(collector)["time_to_told_seconds_count"] == 1
    assert scrape(collector)["undelivered"] == 1
    told.update(state=Notification.State.SENT)
    found = scrape(collector)
    assert found["time_to_told_seconds_count"] == 2
    assert found['messages_total{state="sent"}'] == 2


# --- histograms ----------------------------------------------------------------------------------------------


def test_time_to_decision(collector: metrics.Collector, bob: Any) -> None:
    for seconds in (10, 100, 1000):
        row = factories.held()
        services.approve(row, by=bob)
        ApprovalRequest.objects.filter(pk=row.pk).update(
            created_at=F("decided_at") - timedelta(seconds=seconds)
        )
    found = scrape(collector)
    bounds = ("5.0", "15.0", "120.0", "900.0", "3600.0", "+Inf")
    name = "time_to_decision_seconds"
    assert [found[f'{name}_bucket{{le="{bound}"}}'] for bound in bounds] == [0, 1, 2, 2, 3, 3]
    assert found[f"{name}_sum"] == pytest.approx(1110, abs=0.01)


def test_lateness_of_expiry_is_from_the_deadline_that_was_in_force(
    collector: metrics.Collector, bob: Any
) -> None:
    pending, approved = factories.held(), factories.held()
    services.approve(approved, by=bob)
    make_due(pending, 20)
    make_due(approved, 2000)
    old = clock.now("default") - timedelta(days=9)
    ApprovalRequest.objects.filter(pk=approved.pk).update(decide_by=old)
    tasks.sweep()
    found = scrape(collector)
    name = "expiry_lateness_seconds"
    counts = [found[f'{name}_bucket{{le="{bound}"}}'] for bound in ("10.0", "30.0", "3600.0")]
    assert counts == [0, 1, 2]
    assert found[f"{name}_sum"] == pytest.approx(2020, abs=15)


def test_time_to_told_is_from_the_hold_to_the_person(
    collector: metrics.Collector, bob: Any
) -> None:
    row = factories.held()
    tasks.deliver(Notification.objects.get().pk)
    Notification.objects.filter(recipient=bob.pk).update(
        sent_at=row.created_at + timedelta(milliseconds=700)
    )
    found = scrape(collector)
    name = "time_to_told_seconds"
    counts = [found[f'{name}_bucket{{le="{bound}"}}'] for bound in ("0.5", "1.0", "+Inf")]
    assert counts == [0, 1, 1]
    assert found[f"{name}_sum"] == pytest.approx(0.7, abs=0.001)


# --- what it costs, and whom -----------------------------------------------------------------------------------


def test_registering_asks_the_database_nothing(collector: metrics.Collector) -> None:
    with CaptureQueriesContext(connection) as captured:
        CollectorRegistry().register(collector)
    assert len(captured) == 0


@pytest.mark.postgres
def test_scrape_reads_what_is_new_by_its_key(collector: metrics.Collector, bob: Any) -> None:
    factories.held()
    settle_everything()
    scrape(collector)
    with CaptureQueriesContext(connection) as captured:
        scrape(collector)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for query in captured:
            if "auditevent" not in query["sql"]:
                continue
            cursor.execute(f"EXPLAIN {query['sql']}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "auditevent_pkey" in plan, plan


@pytest.mark.django_db(transaction=True)
def test_another_process_says_the_same_and_shares_no_file(bob: Any) -> None:
    run(factories.held(), Outcome.SUCCEEDED, bob)
    name = json.dumps(str(connection.settings_dict["NAME"]))
    script = (
        "import django; django.setup()\n"
        "from django.db import connection\n"
        f"connection.settings_dict['NAME'] = {name}\n"
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from jit_approval.metrics import Collector\n"
        "registry = CollectorRegistry(); registry.register(Collector())\n"
        "print(generate_latest(registry).decode())"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(_samples(said.stdout)) == scrape(metrics.Collector())


# --- the page --------------------------------------------------------------------------------------------------


def get(user: Any = None, method: str = "get", **headers: str) -> Any:
    request = getattr(RequestFactory(), method)("/metrics/", headers=headers)
    request.user = user or AnonymousUser()
    return metrics.view(request)


def refused(user: Any = None, **headers: str) -> bool:
    with CaptureQueriesContext(connection) as captured, pytest.raises(PermissionDenied):
        get(user, **headers)
    return not any("auditevent" in query["sql"] for query in captured)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic " + TOKEN, TOKEN, "Bearer \xff"],
)
def test_without_the_token_there_is_nothing_to_see(authorization: str) -> None:
    assert refused(Authorization=authorization)  # No token is set: none opens it.
    with override_settings(JIT_APPROVAL={"METRICS_TOKEN": TOKEN}):
        assert refused(Authorization=authorization)


def test_token_opens_the_page() -> None:
    with override_settings(JIT_APPROVAL={"METRICS_TOKEN": TOKEN}):
        response = get(Authorization=f"Bearer {TOKEN}")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert "no-store" in response["Cache-Control"]
    assert b"jit_approval_held_total 0.0" in response.content


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    with override_settings(JIT_APPROVAL={"METRICS_TOKEN": TOKEN}):
        response = get(
            Authorization=f"Bearer {TOKEN}", Accept="application/openmetrics-text; version=1.0.0"
        )
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")


def test_permission_opens_the_page() -> None:
    user = factories.user()
    assert refused(user)
    assert refused(factories.user(is_staff=True))
    user.user_permissions.add(Permission.objects.get(codename="view_approvalrequest"))
    user = type(user).objects.get(pk=user.pk)
    assert get(user).status_code == 200
    user.is_active = False
    assert refused(user)


def test_page_is_read_and_nothing_else() -> None:
    with override_settings(JIT_APPROVAL={"METRICS_TOKEN": TOKEN}):
        answers = {
            method: get(method=method, Authorization=f"Bearer {TOKEN}").status_code
            for method in ("get", "head", "post", "delete")
        }
    assert answers == {"get": 200, "head": 200, "post": 405, "delete": 405}


def test_token_stays_out_of_what_is_printed() -> None:
    from jit_approval import conf

    with override_settings(JIT_APPROVAL={"METRICS_TOKEN": TOKEN}):
        assert TOKEN not in repr(conf.get())


def test_short_token_is_a_mistake() -> None:
    from django.core.checks import run_checks

    def said(token: str) -> list[str]:
        with override_settings(JIT_APPROVAL={"METRICS_TOKEN": token}):
            found = run_checks(tags=["jit_approval"])
            return [each.msg for each in found if each.id == "jit_approval.E010"]

    assert said("secret") == ["JIT_APPROVAL['METRICS_TOKEN'] is short enough to be guessed."]
    assert said(TOKEN) == []


def test_one_collector_serves_the_page() -> None:
    assert views._registry() is views._registry()
