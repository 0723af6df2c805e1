"""Who is told what, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from jit_approval import clock, services, tasks
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import delivery
from jit_approval.states import Outcome
from tests import factories, mailers

pytestmark = pytest.mark.django_db
Event, State = Notification.Event, Notification.State
HOSTILE = "why\r\nBcc: eve@example.test\nSee https://evil.test \u202egpj"


def outbox_row(row: ApprovalRequest, event: str = Event.HELD) -> Notification:
    return Notification.objects.get(approval_request=row, event=event, recipient="")


def deliver(row: ApprovalRequest, event: str = Event.HELD) -> list[str]:
    """Run the task; return who was told by it."""
    before = len(mail.outbox)
    tasks.deliver(outbox_row(row, event).pk)
    return [address for message in mail.outbox[before:] for address in message.to]


def let_time_pass(row: ApprovalRequest) -> None:
    """All that waits for a later attempt may be tried now."""
    rows = Notification.objects.filter(approval_request=row)
    rows.update(next_attempt_at=F("created_at") - timedelta(hours=1))


def consumed(requester: Any, bob: Any) -> ApprovalRequest:
    row = factories.held(requester)
    services.approve(row, by=bob)
    services.consume(factories.fresh(row), state_digest=factories.STATE)
    return row


# --- who -------------------------------------------------------------------------------------------------


def test_held_call_is_told_to_its_deciders_alone() -> None:
    factories.user("nobody")
    for name in ("bob", "carol"):
        factories.decider(name)
    row = factories.held(factories.user("erin"))
    assert deliver(row) == ["bob@example.test", "carol@example.test"]


def test_nobody_behind_a_call_is_told_to_decide_it() -> None:
    factories.decider("bob")
    erin, other = factories.decider("erin"), factories.decider("erins-other-account")
    row = factories.held(erin, persons=(str(erin.pk), str(other.pk)))
    assert deliver(row) == ["bob@example.test"]


def test_inactive_and_unreachable_deciders_are_passed_by() -> None:
    factories.decider("bob")
    factories.decider("gone", is_active=False)
    mute = factories.decider("mute")
    mute.email = ""
    mute.save()
    assert deliver(factories.held()) == ["bob@example.test"]


def test_deciders_of_another_policy_are_not_told() -> None:
    from guardian.shortcuts import assign_perm

    ours, theirs = factories.policy(), factories.policy()
    for name, policy in (("bob", ours), ("carol", theirs)):
        assign_perm("jit_approval.decide", factories.user(name), policy)
    row = factories.held(terms={"policy_id": ours.pk, "policy_slug": ours.slug})
    assert deliver(row) == ["bob@example.test"]


@pytest.mark.parametrize("verdict", [services.approve, services.reject])
def test_decision_is_told_to_the_requester_alone(verdict: Any) -> None:
    bob = factories.decider("bob")
    row = factories.held(factories.user("erin"))
    verdict(row, by=bob, comment="checked")
    assert deliver(row, Event.DECIDED) == ["erin@example.test"]
    assert "bob: " in mail.outbox[-1].body and "checked" in mail.outbox[-1].body


def test_unknown_outcome_is_told_to_requester_and_deciders() -> None:
    bob = factories.decider("bob")
    row = consumed(factories.user("erin"), bob)
    services.record_outcome(factories.fresh(row), outcome=Outcome.UNKNOWN)
    assert sorted(deliver(row, Event.UNKNOWN)) == ["bob@example.test", "erin@example.test"]


def test_deleted_requester_is_told_nothing() -> None:
    bob, erin = factories.decider("bob"), factories.user("erin")
    row = factories.held(erin)
    services.reject(row, by=bob)
    erin.delete()
    assert deliver(row, Event.DECIDED) == []
    assert outbox_row(row, Event.DECIDED).state == State.SENT


# --- once ------------------------------------------------------------------------------------------------


def test_doubled_task_tells_nobody_twice() -> None:
    factories.decider("bob")
    row = factories.held()
    assert deliver(row) == ["bob@example.test"]
    assert deliver(row) == []
    sent = Notification.objects.get(recipient__gt="")
    assert (sent.state, sent.attempts, sent.channel) == (State.SENT, 1, "email")


def test_row_claimed_by_another_process_is_left_to_it() -> None:
    factories.decider("bob")
    row = factories.held()
    delivery._fan_out(delivery._waiting().get(pk=outbox_row(row).pk))
    seen_by_both = delivery._waiting().get(recipient__gt="")
    again = delivery._waiting().get(recipient__gt="")
    assert delivery._send(seen_by_both) and not delivery._send(again)
    assert len(mail.outbox) == 1


def test_row_under_a_claim_is_left_alone_until_the_claim_is_over() -> None:
    factories.decider("bob")
    row = factories.held()
    delivery._fan_out(delivery._waiting().get(pk=outbox_row(row).pk))
    told = delivery._waiting().get(recipient__gt="")
    assert delivery._claim(told)
    assert tasks.deliver(told.pk) == 0
    let_time_pass(row)
    assert tasks.deliver(told.pk) == 1


def test_claim_on_a_row_that_was_claimed_since_it_was_read_fails() -> None:
    factories.decider("bob")
    row = factories.held()
    delivery._fan_out(delivery._waiting().get(pk=outbox_row(row).pk))
    read_early = delivery._waiting().get(recipient__gt="")
    assert delivery._claim(delivery._waiting().get(recipient__gt=""))
    let_time_pass(row)
    assert not delivery._claim(read_early)


def test_two_workers_on_one_outbox_row_make_one_row_per_recipient() -> None:
    factories.decider("bob")
    pk = outbox_row(factories.held()).pk
    first, second = delivery._waiting().get(pk=pk), delivery._waiting().get(pk=pk)
    delivery._fan_out(first)
    factories.decider("carol")
    delivery._fan_out(second)
    made = Notification.objects.get(pk=pk)
    assert (made.state, made.attempts, made.error) == (State.SENT, 0, "")
    addresses = Notification.objects.filter(recipient__gt="").values_list("address", flat=True)
    assert sorted(addresses) == ["bob@example.test", "carol@example.test"]


def test_task_of_a_row_that_was_rolled_back_does_nothing() -> None:
    assert tasks.deliver(123456) == 0


def test_decided_call_is_not_announced_any_more() -> None:
    factories.decider("bob")
    row = factories.held()
    services.cancel(row, by=row.requester)
    assert deliver(row) == []
    assert outbox_row(row).state == State.DROPPED


def test_overdue_call_is_not_announced_by_the_databases_clock() -> None:
    factories.decider("bob")
    row = factories.held()
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=clock.now("default"))
    assert deliver(row) == []
    assert outbox_row(row).state == State.DROPPED


def test_call_decided_between_two_recipients_is_not_told_to_the_second() -> None:
    bob, _ = factories.decider("bob"), factories.decider("carol")
    row = factories.held()
    delivery._fan_out(delivery._waiting().get(pk=outbox_row(row).pk))
    read_before = delivery._waiting().get(recipient=str(bob.pk))
    services.cancel(row, by=row.requester)
    assert not delivery._send(read_before)
    assert mail.outbox == []


# --- trouble ---------------------------------------------------------------------------------------------


@override_settings(**mailers.using("tests.mailers.Refusing"))
def test_refused_message_waits_and_the_others_are_sent() -> None:
    factories.decider("broken")
    factories.decider("carol")
    row = factories.held()
    assert deliver(row) == ["carol@example.test"]
    waiting = Notification.objects.get(address="broken@example.test")
    assert (waiting.state, waiting.attempts) == (State.WAITING, 1)
    assert waiting.error == "SMTPServerDisconnected: please run\\u000aconnect() first"
    assert waiting.next_attempt_at > clock.now("default")


@override_settings(**mailers.using("tests.mailers.Refusing"))
@pytest.mark.parametrize(("minutes", "first"), [(1, 1.0), (15, 900 / 256), (1000, 30.0)])
def test_each_wait_is_twice_as_long_until_the_attempts_are_used_up(
    minutes: int, first: float
) -> None:
    factories.decider("broken")
    row = factories.held(terms={"decide_within": timedelta(minutes=minutes)})
    waits = []
    for _ in range(delivery.MAX_ATTEMPTS):
        let_time_pass(row)
        now = clock.now("default")
        assert deliver(row) == []
        told = Notification.objects.get(recipient__gt="")
        waits.append(round((told.next_attempt_at - now).total_seconds() / first, 1))
    assert waits == pytest.approx([2**n for n in range(delivery.MAX_ATTEMPTS)], abs=0.3)
    assert told.state == State.FAILED


@override_settings(**mailers.using("tests.mailers.Refusing"))
def test_held_call_that_could_not_be_announced_in_time_has_failed() -> None:
    factories.decider("broken")
    row = factories.held()
    deliver(row)
    services.cancel(row, by=row.requester)
    let_time_pass(row)
    assert delivery.close_pointless() == 1
    assert Notification.objects.get(recipient__gt="").state == State.FAILED


def test_message_of_a_process_that_died_is_sent_again_after_the_lease() -> None:
    factories.decider("bob")
    row = factories.held()
    with override_settings(**mailers.using("tests.mailers.Dying")), pytest.raises(SystemExit):
        deliver(row)
    assert deliver(row) == []  # The claim holds.
    let_time_pass(row)
    assert deliver(row) == ["bob@example.test"]
    assert Notification.objects.get(recipient__gt="").attempts == 2


def test_message_that_kills_every_process_is_given_up() -> None:
    factories.decider("bob")
    row = factories.held()
    delivery._fan_out(delivery._waiting().get(pk=outbox_row(row).pk))
    Notification.objects.filter(recipient__gt="").update(attempts=delivery.MAX_ATTEMPTS)
    assert deliver(row) == []
    delivery.close_pointless()
    assert Notification.objects.get(recipient__gt="").state == State.FAILED


def test_recipients_are_written_down_by_the_hundred() -> None:
    for _ in range(600):
        factories.decider()
    row = factories.held()
    with CaptureQueriesContext(connection) as queries:
        delivery._fan_out(delivery._waiting().get(pk=outbox_row(row).pk))
    # SQLite takes 999 values at a time.
    assert sum("INSERT" in query["sql"] for query in queries) <= 9
    assert Notification.objects.filter(recipient__gt="").count() == 600


# --- what ------------------------------------------------------------------------------------------------


def held_with(**shown: Any) -> mail.EmailMessage:
    factories.decider("bob")
    row = factories.held(factories.user("erin"), **shown)
    deliver(row)
    message = mail.outbox[-1]
    assert isinstance(message, mail.EmailMessage)
    return message


def test_deciders_read_who_what_why_until_when() -> None:
    message = held_with(object_label="Customer 42", reason="GDPR erasure #811")
    row = ApprovalRequest.objects.get()
    assert message.subject == f"Approval needed: customers.destroy Customer 42 [{row.match_code}]"
    for line in (
        "Who: erin",
        "Action: customers.destroy",
        "Object: Customer 42",
        "Claims: GDPR erasure #811",
        f"Match code: {row.match_code}",
        f"Approval-Id: {row.pk}",
        f"Decide by: {row.decide_by:%Y-%m-%d %H:%M:%S} UTC",
    ):
        assert line in message.body.splitlines()
    assert message.from_email == "approvals@example.test"
    assert message.extra_headers["Auto-Submitted"] == "auto-generated"


def test_messages_carry_neither_payload_nor_path_nor_context() -> None:
    hidden = {"payload": "amount 250000", "path": "/api/x/?token=s3cret", "ip": "192.0.2.7"}
    message = held_with(**hidden, context={"limit": "c0ntext"}, user_agent="curl/8")
    text = message.message().as_string()
    for secret in ("250000", "s3cret", "192.0.2.7", "c0ntext", "curl/8"):
        assert secret not in text


@pytest.mark.parametrize("field", ["reason", "object_label"])
def test_no_value_begins_a_header_or_a_line(field: str) -> None:
    message = held_with(**{field: HOSTILE})
    assert message.message()["Bcc"] is None
    assert "\n" not in message.subject and "\r" not in message.subject
    assert not any(line.startswith(("Bcc", "See http")) for line in message.body.splitlines())
    assert "\\u202e" in message.body


def test_hostile_user_name_begins_no_line() -> None:
    factories.decider("bob")
    erin = factories.user("erin")
    erin.username = HOSTILE
    row = factories.held(erin)
    deliver(row)
    assert "Who: why\\u000d\\u000aBcc: " in mail.outbox[-1].body


def test_markup_is_left_as_it_was_written() -> None:
    assert "Claims: it's <b> & co" in held_with(reason="it's <b> & co").body


def test_long_subjects_are_cut() -> None:
    message = held_with(object_label="x" * 200, action="y" * 200)
    assert len(message.subject) < 200 and "…" in message.subject


@override_settings(JIT_APPROVAL={"FROM_EMAIL": "Gate <gate@example.test>"})
def test_sender_is_the_one_of_the_settings() -> None:
    assert held_with().from_email == "Gate <gate@example.test>"


def test_requester_is_told_to_repeat_and_until_when() -> None:
    bob = factories.decider("bob")
    row = factories.held(factories.user("erin"))
    services.approve(row, by=bob, comment="checked\nagainst the invoice")
    deliver(row, Event.DECIDED)
    message, row = mail.outbox[-1], factories.fresh(row)
    assert message.subject.startswith("Approved: customers.destroy")
    assert row.usable_until is not None
    assert (
        f"repeat the identical call before {row.usable_until:%Y-%m-%d %H:%M:%S} UTC" in message.body
    )
    assert "bob: approve: checked\\u000aagainst the invoice" in message.body


def test_late_word_of_an_approval_asks_for_nothing_that_is_over() -> None:
    row = consumed(factories.user("erin"), factories.decider("bob"))
    deliver(row, Event.DECIDED)
    assert "has been used" in mail.outbox[-1].body
    assert "repeat" not in mail.outbox[-1].body


def test_rejection_is_told_with_its_comment() -> None:
    bob = factories.decider("bob")
    row = factories.held(factories.user("erin"))
    services.reject(row, by=bob, comment="wrong account")
    deliver(row, Event.DECIDED)
    assert mail.outbox[-1].subject.startswith("Rejected: ")
    assert "bob: reject: wrong account" in mail.outbox[-1].body


def test_expiry_is_not_called_a_rejection() -> None:
    factories.decider("bob")
    row = factories.held(factories.user("erin"))
    ApprovalRequest.objects.update(due_at=F("created_at") - timedelta(seconds=1))
    services.expire(row)
    assert deliver(row, Event.EXPIRED) == ["erin@example.test"]
    assert mail.outbox[-1].subject.startswith("Not decided in time: ")
    assert "Nobody decided your call in time" in mail.outbox[-1].body
    assert "denied" not in mail.outbox[-1].body


def test_unused_approval_is_not_called_undecided() -> None:
    bob = factories.decider("bob")
    row = factories.held(factories.user("erin"))
    services.approve(row, by=bob)
    ApprovalRequest.objects.update(due_at=F("created_at") - timedelta(seconds=1))
    services.expire(row)
    deliver(row, Event.EXPIRED)
    assert mail.outbox[-1].subject.startswith("Approval not used in time: ")
    assert "Nobody decided" not in mail.outbox[-1].body


def test_revocation_says_by_whom_and_why() -> None:
    bob = factories.decider("bob")
    row = factories.held(factories.user("erin"))
    services.approve(row, by=bob)
    services.revoke(factories.fresh(row), by=bob, comment="changed my mind")
    assert deliver(row, Event.REVOKED) == ["erin@example.test"]
    assert "bob: changed my mind" in mail.outbox[-1].body


def test_superseded_call_is_told_as_withdrawn() -> None:
    factories.decider("bob")
    row = factories.held(factories.user("erin"))
    services.cancel(row, by=None, comment="the object has changed")
    assert deliver(row, Event.CANCELLED) == ["erin@example.test"]
    assert "the object has changed" in mail.outbox[-1].body


# --- links -----------------------------------------------------------------------------------------------


def page(request: Any, pk: str) -> Any:
    """Stands where the real pages are mounted; only its address matters here."""
    raise NotImplementedError


class NoUrls:
    urlpatterns: list[Any] = []


class Urls:
    urlpatterns = [
        path(
            "office/",
            include(
                (
                    [path("<uuid:pk>/decide/", page, name="jit_approval_approvalrequest_decide")],
                    "admin",
                )
            ),
        ),
        path(
            "approvals/",
            include(([path("<uuid:pk>/", page, name="request-detail")], "jit_approval")),
        ),
    ]


@override_settings(ROOT_URLCONF=Urls, JIT_APPROVAL={"BASE_URL": "https://office.test/"})
def test_links_are_built_from_base_url() -> None:
    body = held_with().body
    row = ApprovalRequest.objects.get()
    assert f"\nhttps://office.test/office/{row.pk}/decide/\n" in body
    services.reject(row, by=factories.decider())
    deliver(row, Event.DECIDED)
    assert f"https://office.test/approvals/{row.pk}/" in mail.outbox[-1].body


@override_settings(ROOT_URLCONF=Urls)
def test_without_base_url_a_link_is_a_path() -> None:
    body = held_with().body
    assert f"\n/office/{ApprovalRequest.objects.get().pk}/decide/\n" in body


@override_settings(ROOT_URLCONF=NoUrls)
def test_without_a_decision_page_there_is_no_link() -> None:
    assert "http" not in held_with().body
