"""No event, no transition, no run; and a critical call waits for the seal where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from jit_approval import appendonly, services
from jit_approval.audit import keys
from jit_approval.checks import config
from jit_approval.models import ApprovalRequest, AuditEvent, Seal
from jit_approval.states import Status
from tests import factories
from tests.testapp.models import Customer

pytestmark = pytest.mark.django_db(transaction=True)

_REFUSE = {
    "sqlite": ["CREATE TRIGGER full BEFORE INSERT ON {} BEGIN SELECT RAISE(ABORT, 'full'); END"],
    "mysql": [
        "CREATE TRIGGER full BEFORE INSERT ON {} FOR EACH ROW "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'full'"
    ],
    "postgresql": [
        "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'full'; END $$",
        'CREATE TRIGGER "full" BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION full_()',
    ],
}


@contextmanager
def refusing_store() -> Iterator[None]:
    """The database takes no more events."""
    with connection.cursor() as cursor:
        for statement in _REFUSE[connection.vendor]:
            cursor.execute(statement.format(appendonly.EVENTS))
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("DROP FUNCTION full_() CASCADE")
            else:
                cursor.execute("DROP TRIGGER full")


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def erin(bob: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(factories.user("erin"))
    return client


def test_where_events_cannot_be_written_no_call_is_held_decided_or_run(
    erin: APIClient, bob: Any
) -> None:
    url = f"/api/customers/{Customer.objects.create(name='Ada').pk}/"
    with refusing_store():
        answer = erin.delete(url)
        assert (answer.status_code, answer.json()["executed"]) == (503, False)
    assert not ApprovalRequest.objects.exists()
    erin.delete(url)
    row = ApprovalRequest.objects.get()
    with refusing_store(), pytest.raises(Exception, match="full"):
        services.approve(row, by=bob)
    assert ApprovalRequest.objects.get().status == Status.PENDING
    services.approve(row, by=bob)
    with refusing_store():
        for _ in range(3):
            answer = erin.delete(url)
            assert (answer.status_code, answer.json()["code"]) == (503, "gate_unavailable")
    assert Customer.objects.count() == 1
    assert ApprovalRequest.objects.get().status == Status.APPROVED
    assert erin.delete(url).status_code == 204


@pytest.mark.parametrize("severity", ["critical", "high"])
def test_a_critical_call_waits_for_the_seal_and_others_do_not(
    erin: APIClient, bob: Any, settings: Any, tmp_path: Path, severity: str
) -> None:
    path = tmp_path / "trail.key"
    settings.JIT_APPROVAL = {"SEAL_BEFORE_EXECUTE": True, "AUDIT_KEY_FILE": str(path)}
    factories.policy(severity=severity)
    url = f"/api/customers/{Customer.objects.create(name='Ada').pk}/"
    erin.delete(url)
    services.approve(ApprovalRequest.objects.get(), by=bob)
    answer = erin.delete(url)
    if severity == "high":
        assert answer.status_code == 204
        return
    assert (answer.status_code, answer.json()["code"]) == (503, "gate_unavailable")
    assert "not sealed" in answer.json()["detail"]
    assert ApprovalRequest.objects.get().status == Status.APPROVED
    assert Customer.objects.exists()
    keys.generate("approvals.example/trail", path)
    assert erin.delete(url).status_code == 204
    led_to_it = AuditEvent.objects.filter(approval_request=ApprovalRequest.objects.get())
    sealed = Seal.objects.values("event")
    assert led_to_it.filter(kind__in=["held", "approved"], pk__in=sealed).count() == 2


def test_critical_calls_that_nobody_can_seal_are_warned_of(settings: Any) -> None:
    settings.JIT_APPROVAL = {"SEAL_BEFORE_EXECUTE": True}
    assert [found.id for found in config.check()] == ["jit_approval.W019"]
