"""What an endpoint gets, verified as receivers verify it: by the Standard Webhooks reference library."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ValidationError
from django.db.models import F
from django.test import override_settings
from standardwebhooks import Webhook, WebhookVerificationError

from jit_approval import clock, services, tasks
from jit_approval.models import ApprovalPolicy, ApprovalRequest, Channel, Notification
from jit_approval.notifications import delivery, egress
from jit_approval.notifications.channels import webhook
from jit_approval.notifications.transport import Message, Target, TransportError
from tests import factories
from tests.receivers import Receiver, receiver

pytestmark = pytest.mark.django_db
Event, State = Notification.Event, Notification.State
KEY = "k" * 43
SECRET, OLDER = webhook.make_secret(), webhook.make_secret()


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as found:
        values = {"WEBHOOK_PORTS": [found.port], "SECRET_KEYS": [KEY]}
        with override_settings(JIT_APPROVAL={**values, "BASE_URL": "https://office.example"}):
            yield found


def channel(endpoint: Receiver, slug: str = "ops", **fields: Any) -> Channel:
    secrets = fields.pop("secrets", {"secret": SECRET})
    made = Channel(slug=slug, name=slug, kind="webhook", enabled=True, **fields)
    made.configuration = {"url": endpoint.url}
    made.keep_secrets(secrets)
    made.save()
    return made


def policy(*channels: Channel) -> ApprovalPolicy:
    made = factories.policy()
    made.channels.set(channels)
    return made


def held(under: ApprovalPolicy, **shown: Any) -> ApprovalRequest:
    factories.decider()
    terms = {"policy_id": under.pk, "policy_slug": under.slug}
    return factories.held(factories.user("erin"), terms=terms, **shown)


def deliver(row: ApprovalRequest, event: str = Event.HELD) -> int:
    pk = Notification.objects.get(approval_request=row, event=event, recipient="").pk
    return tasks.deliver(pk)


def told(row: ApprovalRequest, event: str = Event.HELD) -> Notification:
    return Notification.objects.get(approval_request=row, event=event, recipient="*")


def let_time_pass() -> None:
    rows = Notification.objects.filter(state=State.WAITING)
    rows.update(next_attempt_at=F("created_at") - timedelta(hours=1))


def verified(endpoint: Receiver, secret: str = SECRET, number: int = -1) -> Any:
    _path, headers, body = endpoint.got[number]
    return Webhook(secret).verify(body, headers)


# --- what arrives ----------------------------------------------------------------------------------------


def test_held_call_arrives_signed_with_facts_and_links(endpoint: Receiver) -> None:
    under = policy(channel(endpoint))
    row = held(under, object_label="Customer 42", reason="GDPR erasure #811")
    assert deliver(row) == 1
    content = verified(endpoint)
    assert content["type"] == "approval.held"
    assert content["id"] == endpoint.got[0][1]["webhook-id"]
    happened = datetime.fromisoformat(content["timestamp"])
    assert happened == row.created_at.replace(microsecond=happened.microsecond)
    assert happened.microsecond == row.created_at.microsecond // 1000 * 1000
    office = "https://office.example"
    assert content["data"] == {
        "approval_id": str(row.pk),
        "match_code": row.match_code,
        "status": "pending",
        "outcome": None,
        "action": "customers.destroy",
        "object": "Customer 42",
        "policy": under.slug,
        "severity": "normal",
        "requester": "erin",
        "claimed_reason": "GDPR erasure #811",
        "agent": None,
        "agent_proven": False,
        "approvals_required": 1,
        "approvals_given": 0,
        "decisions": [],
        "decide_by": f"{row.decide_by:%Y-%m-%dT%H:%M:%SZ}",
        "usable_until": None,
        "links": {
            "decide": f"{office}/admin/jit_approval/approvalrequest/{row.pk}/decide/",
            "status": f"{office}/approvals/{row.pk}/",
        },
    }


def test_neither_payload_nor_path_nor_context_arrives(endpoint: Receiver) -> None:
    hidden = {"payload": "amount 250000", "path": "/api/x/?token=s3cret", "ip": "192.0.2.7"}
    row = held(policy(channel(endpoint)), **hidden, context={"limit": "c0ntext"})
    deliver(row)
    text = endpoint.got[0][2].decode()
    assert not any(each in text for each in ("250000", "s3cret", "192.0.2.7", "c0ntext"))


def test_values_arrive_visible(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)), reason="a\u202eb\n\x1b[31mc")
    deliver(row)
    assert verified(endpoint)["data"]["claimed_reason"] == "a\\u202eb\\u000a\\u001b[31mc"


def test_deciders_are_not_told_besides(endpoint: Receiver) -> None:
    deliver(held(policy(channel(endpoint))))
    assert mail.outbox == []


def test_every_event_arrives_once(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    deliver(row)
    services.approve(row, by=factories.decider(), comment="checked")
    deliver(row, Event.DECIDED)
    deliver(row, Event.DECIDED)
    assert [json.loads(body)["type"] for _, _, body in endpoint.got] == [
        "approval.held",
        "approval.decided",
    ]
    data = verified(endpoint)["data"]
    assert data["status"] == "approved" and data["usable_until"]
    assert [(each["verdict"], each["comment"]) for each in data["decisions"]] == [
        ("approve", "checked")
    ]
    # The requester is told in person, whatever the policy names.
    assert [message.to for message in mail.outbox] == [["erin@example.test"]]


def test_two_channels_of_a_policy_have_a_task_each(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint, "one"), channel(endpoint, "two")))
    assert deliver(row) == 0
    assert [tasks.deliver(pk) for pk in waiting()] == [1, 1]
    assert len(endpoint.got) == 2


@override_settings(Q_CLUSTER={})
def test_without_a_queue_one_task_tells_all(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint, "one"), channel(endpoint, "two")))
    assert deliver(row) == 2


def waiting() -> list[int]:
    rows = Notification.objects.filter(state=State.WAITING).exclude(recipient="")
    return list(rows.order_by("pk").values_list("pk", flat=True))


# --- signatures ------------------------------------------------------------------------------------------


def test_altered_body_is_not_verified(endpoint: Receiver) -> None:
    deliver(held(policy(channel(endpoint))))
    _path, headers, body = endpoint.got[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"pending", b"decided"), headers)


def test_while_secrets_change_both_verify_and_no_other(endpoint: Receiver) -> None:
    both = {"secret": SECRET, "previous_secret": OLDER}
    deliver(held(policy(channel(endpoint, secrets=both))))
    assert verified(endpoint, SECRET) == verified(endpoint, OLDER)
    with pytest.raises(WebhookVerificationError):
        verified(endpoint, webhook.make_secret())


def test_signature_is_the_published_one() -> None:
    # From the specification's reference libraries.
    headers = webhook.signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
        {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_nothing_is_sent_unsigned(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint, secrets={})))
    deliver(row)
    assert endpoint.got == [] and "signing secret" in told(row).error


def test_attempts_share_an_id_and_have_times_of_their_own(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status = 503
    deliver(row)
    let_time_pass()
    deliver(row)
    first, second = (headers for _path, headers, _body in endpoint.got)
    assert first["webhook-id"] == second["webhook-id"] and "." not in first["webhook-id"]
    sent = datetime.fromtimestamp(int(second["webhook-timestamp"]), UTC)
    assert abs(sent - clock.now("default")) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_not base64 at all, though it is long",
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
    ],
)
def test_secret_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        webhook.check_secret(value)


def test_secrets_made_here_are_secrets() -> None:
    made = {webhook.make_secret() for _ in range(3)}
    assert len(made) == 3
    for each in made:
        webhook.check_secret(each)


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_message_that_was_taken_is_sent(status: int, endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status = status
    assert deliver(row) == 1
    assert told(row).state == State.SENT


@pytest.mark.parametrize("status", [404, 408, 409, 425, 429, 500, 502, 503, 504])
def test_endpoint_in_trouble_is_asked_again(status: int, endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status = status
    assert deliver(row) == 0
    assert (told(row).state, told(row).attempts) == (State.WAITING, 1)
    assert str(status) in told(row).error
    endpoint.status = 200
    let_time_pass()
    assert deliver(row) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 405, 413, 422])
def test_message_that_will_never_be_taken_is_a_dead_letter_at_once(
    status: int, endpoint: Receiver
) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status = status
    deliver(row)
    assert (told(row).state, told(row).attempts) == (State.FAILED, 1)
    assert Channel.objects.get().enabled


def test_endpoint_that_is_gone_is_disabled_and_the_deciders_told(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status = 410
    deliver(row)
    found = Channel.objects.get()
    assert not found.enabled and "410" in found.disabled_because
    assert told(row).state == State.FAILED
    assert [tasks.deliver(pk) for pk in waiting()] == [1]
    assert len(mail.outbox) == 1
    # Later messages do not even try.
    later = held_again(row)
    assert deliver(later) == 1 and len(endpoint.got) == 1


def held_again(row: ApprovalRequest) -> ApprovalRequest:
    terms = {"policy_id": row.policy_id, "policy_slug": row.policy_slug}
    return factories.held(factories.user(), terms=terms)


def test_answer_says_how_long_to_wait(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status, endpoint.headers = 429, {"Retry-After": "120"}
    before = clock.now("default")
    deliver(row)
    waits = (told(row).next_attempt_at - before).total_seconds()
    assert 119 < waits < 125


def test_answer_does_not_say_to_wait_for_ever(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status, endpoint.headers = 503, {"Retry-After": "9999999"}
    deliver(row)
    assert told(row).next_attempt_at < clock.now("default") + timedelta(hours=1, seconds=5)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Wed, 31 Dec 2025 23:59:00 GMT", -60),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("99999999999999999999", None),
    ],
)
def test_wait_is_read_as_http_writes_it(header: str, seconds: int | None) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    expected = None if seconds is None else timedelta(seconds=seconds)
    with pytest.raises(TransportError) as caught:
        webhook.ensure_taken(egress.Answer(503, header), now)
    assert caught.value.retry_after == expected


# --- when it cannot be sent ------------------------------------------------------------------------------


def test_deciders_are_told_in_person_after_some_attempts_in_vain(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    endpoint.status = 500
    for _ in range(delivery._IN_PERSON_AFTER):
        assert mail.outbox == []
        let_time_pass()
        deliver(row)
    # Their tasks; and the channel is tried on.
    for pk in waiting():
        tasks.deliver(pk)
    assert len(mail.outbox) == 1 and told(row).state == State.WAITING


def test_deciders_are_not_told_in_person_where_another_channel_works(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint, "one"), channel(endpoint, "two")))
    deliver(row)
    first, second = waiting()
    tasks.deliver(first)
    endpoint.status = 400
    tasks.deliver(second)
    assert waiting() == [] and mail.outbox == []


def test_secret_under_a_key_that_is_lost_is_a_clear_error(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    values = {"WEBHOOK_PORTS": [endpoint.port], "SECRET_KEYS": ["x" * 43]}
    with override_settings(JIT_APPROVAL=values):
        deliver(row)
    assert endpoint.got == []
    assert "SECRET_KEYS" in told(row).error and SECRET not in told(row).error
    let_time_pass()
    assert deliver(row) == 1  # the key is back


def test_channel_that_was_disabled_meanwhile_gets_nothing(endpoint: Receiver) -> None:
    found = channel(endpoint)
    row = held(policy(found))
    delivery._fan_out(delivery._waiting().get(approval_request=row, event=Event.HELD, recipient=""))
    Channel.objects.update(enabled=False)
    deliver(row)
    assert endpoint.got == [] and "disabled" in told(row).error


def test_url_that_may_not_be_called_any_more_is_a_dead_letter(endpoint: Receiver) -> None:
    row = held(policy(channel(endpoint)))
    with override_settings(JIT_APPROVAL={"SECRET_KEYS": [KEY]}):
        deliver(row)
    assert told(row).state == State.FAILED and "WEBHOOK_PORTS" in told(row).error
    assert endpoint.got == []


def test_kind_that_is_not_there_is_a_clear_error(endpoint: Receiver) -> None:
    found = channel(endpoint)
    Channel.objects.update(kind="pigeon")
    row = held(policy(found))
    deliver(row)
    assert "pigeon" in told(row).error or "belongs to another" in told(row).error


def test_message_as_such_needs_no_request() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plain = Message(id="test_1", type="approval.test", at=now, sent_at=now, subject="s", body="b")
    with pytest.raises(TransportError) as caught:
        webhook.notify(plain, Target(configuration={"url": "http://x"}, secrets={"secret": SECRET}))
    assert caught.value.permanent
