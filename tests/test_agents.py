"""Programs that act for somebody: who they say they are is bound, shown as a claim, and asked about by policies."""

from __future__ import annotations

from typing import Any

import pytest

from jit_approval.models import ApprovalRequest
from jit_approval.states import Effect
from tests import factories
from tests.callers import Caller
from tests.testapp.views import RUNS

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/transfers/"


@pytest.fixture
def caller() -> Caller:
    RUNS.clear()
    return Caller()


def of_credential(request: Any) -> str:
    """What the credential proves, for these tests."""
    return str(request.META.get("HTTP_X_PROVEN", ""))


def test_an_agent_is_shown_as_a_claim(caller: Caller) -> None:
    row = caller.row(caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="invoice-bot\u202e"))
    assert (row.agent, row.agent_proven) == ("invoice-bot\\u202e", False)
    shown = caller.client.get(f"/approvals/{row.pk}/").json()
    assert (shown["agent"], shown["agent_proven"]) == ("invoice-bot\\u202e", False)


@pytest.mark.parametrize("other", [None, "another-bot", "", "invoice-bot "])
def test_an_approval_is_bound_to_the_agent_that_asked(caller: Caller, other: str | None) -> None:
    row = caller.approve(caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="invoice-bot"))
    extra = {} if other is None else {"HTTP_APPROVAL_AGENT": other}
    response = caller.send(URL, b"{}", HTTP_APPROVAL_ID=str(row.pk), **extra)
    assert (response.status_code, response.json()["differs"]) == (422, ["headers"])
    assert RUNS == []
    assert caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="invoice-bot").status_code == 201


def test_a_call_without_an_agent_has_the_fingerprint_it_always_had(caller: Caller) -> None:
    plain = caller.row(caller.send(URL, b"{}"))
    claimed = caller.row(caller.send(URL, b"{}", HTTP_APPROVAL_AGENT=""))
    assert plain.agent == claimed.agent == ""
    assert plain.fingerprint != claimed.fingerprint


def test_an_agent_with_a_long_name_is_refused(caller: Caller) -> None:
    assert caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="a" * 201).status_code == 400
    assert not ApprovalRequest.objects.exists()


def test_an_agent_that_the_credential_proves_goes_before_the_claim(
    caller: Caller, settings: Any
) -> None:
    settings.JIT_APPROVAL = {"REQUEST_AGENT": f"{__name__}.of_credential"}
    proven = {"HTTP_X_PROVEN": "payroll-bot"}
    row = caller.approve(caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="a human", **proven))
    assert (row.agent, row.agent_proven) == ("payroll-bot", True)
    for lost in ({"HTTP_X_PROVEN": "other"}, {}):
        response = caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="a human", **lost)
        assert response.json()["code"] == "approval_pending"
        assert response["Approval-Id"] != str(row.pk)
    assert RUNS == []


def test_a_policy_may_ask_who_acts(caller: Caller) -> None:
    pytest.importorskip("cel_expr_python")
    factories.policy(actions="transfer.post", condition='agent == "bad-bot"', effect=Effect.DENY)
    assert (
        caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="bad-bot").json()["code"] == "approval_denied"
    )
    assert caller.send(URL, b"{}").json()["code"] == "approval_pending"


def test_deciders_are_told_that_it_is_a_claim(caller: Caller, mailoutbox: Any) -> None:
    from jit_approval.notifications import facts, messages
    from jit_approval.notifications.messages import Event

    row = caller.row(caller.send(URL, b"{}", HTTP_APPROVAL_AGENT="invoice-bot"))
    rows = dict(messages._rows(Event.HELD, facts.of(row, row.created_at)))
    assert rows["Claims to be agent:"] == "invoice-bot"
    caller.bob.is_staff = True
    caller.bob.save()
    from django.test import Client

    client = Client()
    client.force_login(caller.bob)
    page = client.get(f"/admin/jit_approval/approvalrequest/{row.pk}/decide/").content.decode()
    assert "invoice-bot" in page and "as claimed" in page
