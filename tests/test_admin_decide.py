"""The decision page: it shows the call as it is, and decides through the services alone."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from jit_approval import services
from jit_approval.models import ApprovalRequest, AuditEvent, Decision
from jit_approval.states import Outcome
from tests import factories
from tests.test_admin_inbox import INBOX, client_of, page

pytestmark = pytest.mark.django_db
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob", is_staff=True)


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", response.content.decode())


@pytest.mark.parametrize(("verdict", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_post_decides_and_leads_back_to_the_inbox_with_a_message(bob, verdict, status) -> None:
    row = factories.held()
    client = client_of(bob)
    response = client.post(page(row), {"verdict": verdict, "comment": "seen"}, follow=True)
    assert response.redirect_chain == [(INBOX, 302)]
    assert row.match_code in text_of(response)
    assert factories.fresh(row).status == status
    assert Decision.objects.get().comment == "seen"


def test_decider_takes_an_approval_back(bob) -> None:
    row = factories.held()
    services.approve(row, by=bob)
    client = client_of(bob)
    assert 'value="revoke"' in text_of(client.get(page(row)))
    client.post(page(row), {"verdict": "revoke", "comment": ""})
    assert factories.fresh(row).status == "revoked"


def test_who_has_looked_settles_a_run_without_an_end(bob) -> None:
    row = factories.held()
    services.approve(row, by=bob)
    row = services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(row, outcome=Outcome.UNKNOWN)
    client = client_of(bob)
    assert 'value="did_not_run"' in text_of(client.get(page(row)))
    client.post(page(row), {"verdict": "did_not_run", "comment": "looked at the ledger"})
    assert factories.fresh(row).outcome == Outcome.FAILED
    assert "Outcome settled" in text_of(client.get(page(row)))


@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_decides_nothing(bob, method) -> None:
    row = factories.held()
    response = getattr(client_of(bob), method)(page(row), {"verdict": "approve"})
    assert response.status_code == 200
    assert factories.fresh(row).status == "pending"
    assert not Decision.objects.exists()


@pytest.mark.parametrize("method", ["put", "delete", "patch", "options"])
def test_other_methods_are_not_allowed(bob, method) -> None:
    row = factories.held()
    assert getattr(client_of(bob), method)(page(row)).status_code == 405


def test_post_without_csrf_token_decides_nothing(bob) -> None:
    row = factories.held()
    client = Client(enforce_csrf_checks=True)
    client.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(page(row), {"verdict": "approve"}).status_code == 403
    assert factories.fresh(row).status == "pending"


@pytest.mark.parametrize("verdict", ["", "consume", "cancel", "approved"])
def test_unknown_verdict_decides_nothing_and_keeps_the_comment(bob, verdict) -> None:
    row = factories.held()
    response = client_of(bob).post(page(row), {"verdict": verdict, "comment": "kept words"})
    assert response.status_code == 400
    assert "kept words" in text_of(response)
    assert factories.fresh(row).status == "pending"


def test_requester_cannot_decide_own_request_superuser_or_not(bob) -> None:
    erin = factories.user("erin", is_staff=True, is_superuser=True)
    row = factories.held(erin)
    client = client_of(erin)
    shown = text_of(client.get(page(row)))
    assert "This is your own call." in shown
    assert 'name="verdict"' not in shown
    response = client.post(page(row), {"verdict": "approve"})
    assert response.status_code == 403
    assert "This is your own call." in text_of(response)
    assert factories.fresh(row).status == "pending"


def test_requester_may_take_own_approval_back(bob) -> None:
    erin = factories.user("erin", is_staff=True)
    row = factories.held(erin)
    services.approve(row, by=bob)
    client_of(erin).post(page(row), {"verdict": "revoke"})
    assert factories.fresh(row).status == "revoked"


def test_too_late_is_told_with_the_true_state(bob) -> None:
    row = factories.held()
    services.reject(row, by=factories.decider())
    response = client_of(bob).post(page(row), {"verdict": "approve"})
    assert response.status_code == 409
    assert "Too late" in text_of(response)
    assert "jit-rejected" in text_of(response)


def test_overdue_vote_is_refused(bob) -> None:
    row = factories.held()
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=row.created_at - timedelta(seconds=1))
    assert client_of(bob).post(page(row), {"verdict": "approve"}).status_code == 409
    assert not Decision.objects.exists()


def test_second_vote_is_refused_and_the_first_one_shown(bob) -> None:
    factories.decider()
    row = factories.held(terms={"required_approvals": 2})
    client = client_of(bob)
    response = client.post(page(row), {"verdict": "approve", "comment": "one"}, follow=True)
    assert "Still needed: 1 approval." in text_of(response)
    assert "You have given your decision." in text_of(client.get(page(row)))
    again = client.post(page(row), {"verdict": "approve"})
    assert again.status_code == 409
    assert "1 of 2" in text_of(again)


def test_too_long_comment_is_refused_and_kept(bob, settings) -> None:
    settings.JIT_APPROVAL = {"MAX_REASON_LENGTH": 5}
    row = factories.held(reason="why")
    response = client_of(bob).post(page(row), {"verdict": "approve", "comment": "too long"})
    assert response.status_code == 400
    assert "at most 5 characters" in text_of(response)
    assert ">too long</textarea>" in text_of(response)
    assert factories.fresh(row).status == "pending"


def test_who_lost_the_permission_is_told_why_not(bob) -> None:
    auditor = factories.user(is_staff=True, is_superuser=False)
    auditor.user_permissions.add(*_view_permission())
    row = factories.held()
    client = client_of(auditor)
    assert "You are not among the deciders" in text_of(client.get(page(row)))
    assert client.post(page(row), {"verdict": "approve"}).status_code == 403


def _view_permission() -> Any:
    from django.contrib.auth.models import Permission

    return Permission.objects.filter(codename="view_approvalrequest")


def test_page_shows_what_a_decider_needs(bob) -> None:
    policy = factories.policy(name="Customer data", slug="customer-data")
    erin = factories.user("erin", first_name="Erin", last_name="Smith")
    row = factories.held(
        erin,
        object_label="Ada Lovelace",
        object_model="crm.customer",
        payload='{"a": 1}',
        payload_truncated=True,
        context={"Open invoices": "3", "nested": {"x": [1]}},
        reason="GDPR #811",
        ip="203.0.113.7",
        user_agent="ops-cli/3",
        terms={"policy_id": policy.pk, "policy_slug": policy.slug},
    )
    shown = text_of(client_of(bob).get(page(row)))
    for words in (
        "erin",
        "Erin Smith",
        "customers.destroy",
        "DELETE",
        "/api/customers/42/",
        "Ada Lovelace",
        "crm.customer",
        "{&quot;a&quot;: 1}",
        "only the beginning",
        "Open invoices",
        "GDPR #811",
        "a claim, not checked",
        "203.0.113.7",
        "ops-cli/3",
        row.match_code,
        "0 of 1",
        "Customer data",
        "customer-data",
        "5 min",
        "Call held",
        "hash chain of this trail is unbroken",
        "has not made this very call before",
    ):
        assert words in shown, words


def test_identical_calls_before_are_shown_with_their_outcome(bob) -> None:
    erin = factories.user()
    first = factories.held(erin, body="same")
    services.approve(first, by=bob)
    services.consume(factories.fresh(first), state_digest=factories.STATE)
    second = factories.held(erin, body="same")
    shown = text_of(client_of(bob).get(page(second)))
    assert page(first) in shown
    assert "It may have run already" in shown


def test_a_call_that_looks_the_same_and_is_not_identical_is_told(bob) -> None:
    erin = factories.user("erin")
    first = factories.held(erin, object_pk="42", payload="{}")
    again = factories.held(erin, object_pk="42", payload="{}", path="/api/customers/42/?x=1")
    shown = text_of(client_of(bob).get(page(again)))
    assert "looks the same in another call" in shown
    assert page(first) in shown


@pytest.mark.parametrize(
    "other",
    [{"object_pk": "43"}, {"payload": '{"a": 1}'}, {"action": "customers.update"}],
    ids=lambda other: next(iter(other)),
)
def test_a_call_for_something_else_is_not_called_the_same(bob, other) -> None:
    erin = factories.user("erin")
    factories.held(erin, **{"object_pk": "42", "payload": "{}", **other})
    shown = text_of(client_of(bob).get(page(factories.held(erin, object_pk="42", payload="{}"))))
    assert "looks the same" not in shown


def test_a_call_that_looks_the_same_and_was_rejected_is_no_matter(bob) -> None:
    erin = factories.user("erin")
    again = [factories.held(erin, object_pk="42") for _ in range(2)]
    services.reject(again[0], by=bob)
    assert "looks the same" not in text_of(client_of(bob).get(page(again[1])))


def test_one_that_still_waits_is_told_however_long_ago_it_was_asked_for(bob) -> None:
    erin = factories.user("erin")
    old, new = (factories.held(erin, object_pk="42") for _ in range(2))
    long_ago = old.created_at - timedelta(days=3)
    ApprovalRequest.objects.filter(pk=old.pk).update(created_at=long_ago)
    assert page(old) in text_of(client_of(bob).get(page(new)))


def test_those_whose_time_is_up_hide_none_that_still_waits(bob) -> None:
    erin = factories.user("erin")
    old = factories.held(erin, object_pk="42")
    over = [factories.held(erin, object_pk="42") for _ in range(5)]
    keys = [row.pk for row in over]
    ApprovalRequest.objects.filter(pk__in=keys).update(due_at=old.created_at)
    new = factories.held(erin, object_pk="42")
    shown = text_of(client_of(bob).get(page(new)))
    assert page(old) in shown
    assert page(over[0]) not in shown


def test_one_that_ran_days_ago_is_no_matter(bob) -> None:
    erin = factories.user("erin")
    old = factories.held(erin, object_pk="42")
    services.approve(old, by=bob)
    services.consume(factories.fresh(old), state_digest=factories.STATE)
    long_ago = old.created_at - timedelta(days=3)
    ApprovalRequest.objects.filter(pk=old.pk).update(created_at=long_ago)
    new = factories.held(erin, object_pk="42")
    assert "looks the same" not in text_of(client_of(bob).get(page(new)))


def test_a_call_of_somebody_else_that_looks_the_same_is_no_matter(bob) -> None:
    factories.held(object_pk="42")
    assert "looks the same" not in text_of(client_of(bob).get(page(factories.held(object_pk="42"))))


def test_broken_trail_is_told(bob) -> None:
    row = factories.held()
    AuditEvent.objects.update(body="{}")
    assert "tampered with" in text_of(client_of(bob).get(page(row)))


def test_vote_that_no_longer_counts_is_told(bob) -> None:
    carol = factories.decider()
    factories.decider()
    row = factories.held(terms={"required_approvals": 2})
    services.approve(row, by=carol)
    carol.user_permissions.clear()
    assert "1 approval does not count" in text_of(client_of(bob).get(page(row)))


def test_deleted_account_of_the_requester_is_told(bob) -> None:
    erin = factories.user("erin")
    row = factories.held(erin)
    erin.delete()
    assert "does not exist any more" in text_of(client_of(bob).get(page(row)))


def test_markup_from_the_caller_is_inert(bob) -> None:
    row = factories.held(
        reason=EVIL,
        payload=EVIL,
        object_label=EVIL,
        path=EVIL,
        user_agent=EVIL,
        context={EVIL: EVIL},
        action=EVIL,
    )
    client = client_of(bob)
    for response in (
        client.get(page(row)),
        client.get(INBOX),
        client.post(INBOX, {"action": "approve_selected", "_selected_action": row.pk, "index": 0}),
        client.post(page(row), {"verdict": "approve", "comment": EVIL}, follow=True),
        client.get(page(row)),
    ):
        assert response.status_code == 200
        assert EVIL not in response.content.decode()
        assert "&lt;script&gt;" in response.content.decode()


def test_pages_have_no_inline_script_or_style_of_ours(bob) -> None:
    row = factories.held()
    client = client_of(bob)
    confirm = {"action": "approve_selected", "_selected_action": row.pk, "index": 0}
    for response in (client.get(page(row)), client.post(INBOX, confirm)):
        content = response.content.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", content)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("bulk", [False, True])
def test_decisions_are_durable_under_atomic_requests(bulk) -> None:
    bob = factories.decider(is_staff=True)
    row = factories.held()
    fields = {"action": "approve_selected", "_selected_action": row.pk, "confirmed": "yes"}
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        client = client_of(bob)
        if bulk:
            client.post(INBOX, fields)
        else:
            client.post(page(row), {"verdict": "approve"})
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert factories.fresh(row).status == "approved"


@pytest.mark.django_db(transaction=True)
def test_database_error_while_deciding_shows_the_true_state() -> None:
    bob = factories.decider(is_staff=True)
    row = factories.held()

    def broken(execute, sql, params, many, context):
        if "INSERT INTO" in sql and "jit_approval_decision" in sql:
            raise OperationalError("the server has gone away")
        return execute(sql, params, many, context)

    client = client_of(bob)
    with connection.execute_wrapper(broken):
        response = client.post(page(row), {"verdict": "approve", "comment": "kept"})
    assert response.status_code == 503
    assert "The database failed" in text_of(response)
    assert "jit-pending" in text_of(response)
    assert factories.fresh(row).status == "pending"


@pytest.mark.django_db(transaction=True)
def test_answer_to_the_commit_lost_shows_that_it_went_through(monkeypatch) -> None:
    bob = factories.decider(is_staff=True)
    row = factories.held()
    client = client_of(bob)
    commit = connection.commit

    def lost() -> None:
        commit()
        if Decision.objects.filter(approval_request=row).exists():
            monkeypatch.undo()
            raise OperationalError("connection lost during COMMIT")

    monkeypatch.setattr(connection, "commit", lost)
    failed = connection.connection
    response = client.post(page(row), {"verdict": "approve"})
    assert response.status_code == 503
    assert "jit-approved" in text_of(response)
    assert connection.connection is not failed, "the state was read on the connection that failed"


REWRITTEN: dict[str, Any] = {
    "payload": '{"amount": 1}',
    "reason": "another",
    "fingerprint": "0" * 64,
    "requester_label": "alice",
    "required_approvals": 0,
}


@pytest.mark.parametrize("column", REWRITTEN)
def test_what_was_rewritten_since_it_was_held_is_told_and_not_approved(bob, column) -> None:
    row, client = factories.held(payload='{"amount": 100}'), client_of(bob)
    assert "it was rewritten" not in text_of(client.get(page(row)))
    ApprovalRequest.objects.filter(pk=row.pk).update(**{column: REWRITTEN[column]})
    text = text_of(client.get(page(row)))
    assert "it was rewritten in the database" in text
    assert 'value="approve"' not in text
    response = client.post(page(row), {"verdict": "approve", "comment": ""})
    assert response.status_code == 409
    assert (factories.fresh(row).status, Decision.objects.count()) == ("pending", 0)
    assert client.post(page(row), {"verdict": "reject", "comment": ""}).status_code == 302


def test_a_request_whose_first_event_is_gone_is_not_approved(bob) -> None:
    row, client = factories.held(), client_of(bob)
    row.audit_events.update(kind="noted")
    assert client.post(page(row), {"verdict": "approve", "comment": ""}).status_code == 409
    assert factories.fresh(row).status == "pending"
