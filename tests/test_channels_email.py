"""What a real SMTP server is handed."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import pytest
from django.core import mail
from django.test import override_settings

from jit_approval import services, tasks
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import delivery
from jit_approval.notifications.channels import email
from jit_approval.notifications.transport import Message, Target, TransportError
from tests import factories, mailers
from tests.sinks import SMTP_BACKEND, sink

pytestmark = pytest.mark.django_db
Event, State = Notification.Event, Notification.State


def deliver(row: ApprovalRequest, event: str = Event.HELD) -> int:
    pk = Notification.objects.get(approval_request=row, event=event, recipient="").pk
    return tasks.deliver(pk)


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_message_arrives_as_text_and_as_html() -> None:
    factories.decider("bob")
    row = factories.held(factories.user("erin"), reason="it's <b>late</b> & so on")
    with sink() as server:
        assert deliver(row) == 1
    (message,) = server.got
    assert server.to == [["bob@example.test"]]
    assert message.get_content_type() == "multipart/alternative"
    plain, html = text_of(message, "plain"), text_of(message, "html")
    assert "Claims: it's <b>late</b> & so on" in plain
    assert "it&#x27;s &lt;b&gt;late&lt;/b&gt; &amp; so on" in html and "<b>late" not in html
    for each in (plain, html):
        assert row.match_code in each and "customers.destroy" in each


@override_settings(JIT_APPROVAL={"BASE_URL": "https://office.example"})
def test_html_links_to_the_decision_page_and_nowhere_else() -> None:
    factories.decider("bob")
    row = factories.held(reason="https://evil.test/", object_label='"><img src=//evil.test>')
    with sink() as server:
        deliver(row)
    html = text_of(server.got[0], "html")
    link = f"https://office.example/admin/jit_approval/approvalrequest/{row.pk}/decide/"
    assert html.count("href=") == 1 and f'href="{link}"' in html
    assert "<img" not in html


def test_messages_of_one_request_make_one_thread() -> None:
    bob, carol = factories.decider("bob"), factories.decider("carol")
    erin = factories.user("erin")
    row, other = factories.held(erin), factories.held(erin)
    with sink() as server:
        deliver(row)
        deliver(other)
        services.approve(row, by=bob)
        deliver(row, Event.DECIDED)
    by = {
        (to[0].partition("@")[0], message["Subject"]): message
        for to, message in zip(server.to, server.got, strict=True)
    }
    carols = [message for (name, _), message in by.items() if name == "carol"]
    assert len(carols) == 3 and carol.pk
    held, of_another, handled = carols
    assert held["References"] == handled["References"] == handled["In-Reply-To"]
    assert of_another["References"] != held["References"]
    told_bob = [message for (name, _), message in by.items() if name == "bob"]
    assert told_bob[0]["References"] != held["References"]
    ids = [message["Message-ID"] for message in server.got]
    assert len(set(ids)) == len(ids) and all(each.endswith("@example.test>") for each in ids)


def test_message_that_is_sent_again_has_the_same_id() -> None:
    factories.decider("bob")
    row = factories.held()
    with sink() as server:
        deliver(row)
        told = Notification.objects.filter(recipient__gt="")
        told.update(state=State.FAILED)
        assert delivery.send_again(told.all()) == 1
        tasks.deliver(told.get().pk)
    assert len(server.got) == 2 and server.got[0]["Message-ID"] == server.got[1]["Message-ID"]


def test_many_recipients_are_sent_to_on_one_connection() -> None:
    for _ in range(25):
        factories.decider()
    row = factories.held()
    with sink() as server:
        assert deliver(row) == 25
    assert len(server.sessions) == 1 and len(server.got) == 25
    # Each alone: nobody learns who else was told.
    assert all(len(to) == 1 for to in server.to)


def test_server_that_hangs_up_costs_nobody_a_message() -> None:
    for _ in range(9):
        factories.decider()
    row = factories.held()
    with sink() as server:
        server.hang_up_after = 4
        deliver(row)
        # The message after each farewell fails, and those after it find a new connection.
        assert Notification.objects.filter(state=State.WAITING).count() <= 2
        for _ in range(4):
            Notification.objects.filter(state=State.WAITING).update(next_attempt_at=row.created_at)
            deliver(row)
    assert not Notification.objects.exclude(state=State.SENT).exists()
    assert len({tuple(to) for to in server.to}) == len(server.to) == 9


def test_address_that_is_refused_for_good_is_a_dead_letter_at_once() -> None:
    for name in ("bob", "carol", "dave"):
        factories.decider(name)
    row = factories.held()
    with sink() as server:
        server.refuse = {
            "bob@example.test": "550 no such user",
            "carol@example.test": "451 greylisted",
        }
        assert deliver(row) == 1
    states = dict(Notification.objects.filter(recipient__gt="").values_list("address", "state"))
    assert states == {
        "bob@example.test": State.FAILED,
        "carol@example.test": State.WAITING,
        "dave@example.test": State.SENT,
    }
    assert "no such user" in Notification.objects.get(address="bob@example.test").error


def test_message_that_is_refused_for_good_is_a_dead_letter_at_once() -> None:
    factories.decider("bob")
    row = factories.held()
    with sink() as server:
        server.answer = "554 smells of spam"
        deliver(row)
    assert Notification.objects.get(recipient__gt="").state == State.FAILED


def test_server_that_is_down_is_tried_again() -> None:
    factories.decider("bob")
    row = factories.held()
    with sink():
        pass  # its port is free again
    with override_settings(**mailers.using(SMTP_BACKEND, host="127.0.0.1", port=1)):
        deliver(row)
    waiting = Notification.objects.get(recipient__gt="")
    assert waiting.state == State.WAITING and "ConnectionRefusedError" in waiting.error


def message(**fields: Any) -> Message:
    from datetime import UTC, datetime

    now = datetime(2026, 1, 1, tzinfo=UTC)
    plain = {"id": "msg_1", "type": "approval.test", "at": now, "sent_at": now}
    return Message(**{**plain, "subject": "s", "body": "b", **fields})


def test_configured_addresses_are_told_together() -> None:
    email.notify(message(), Target(configuration={"to": "a@example.test\nb@example.test"}))
    assert mail.outbox[-1].to == ["a@example.test", "b@example.test"]


def test_no_address_is_an_error() -> None:
    with pytest.raises(TransportError) as caught:
        email.notify(message(), Target())
    assert caught.value.permanent


@pytest.mark.parametrize(("severity", "importance"), [("critical", "high"), ("normal", None)])
def test_severe_calls_are_marked_important(severity: str, importance: str | None) -> None:
    email.notify(message(severity=severity), Target(address="a@example.test"))
    assert mail.outbox[-1].message()["Importance"] == importance
