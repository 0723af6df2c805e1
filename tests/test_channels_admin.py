"""The channels' pages: what they ask, what they never show, and the test message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core import mail
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse
from standardwebhooks import Webhook

from jit_approval import secrets, services
from jit_approval.models import Channel, Notification
from jit_approval.notifications.channels import dummy, webhook
from tests import factories
from tests.receivers import Receiver, counted_connections, receiver, resolve_to

pytestmark = pytest.mark.django_db
State = Notification.State
KEY, OTHER = "k" * 43, "o" * 43
KEYS = {"SECRET_KEYS": [KEY]}
SECRET = webhook.make_secret()
URL = "https://hooks.example.com/x"


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(factories.user("root", is_staff=True, is_superuser=True))
    return client


@pytest.fixture(autouse=True)
def _keys() -> Iterator[None]:
    dummy.sent.clear()
    with override_settings(JIT_APPROVAL=KEYS):
        yield


def staff(*codenames: str) -> Any:
    made = factories.user(is_staff=True)
    made.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return made


def page(channel: Channel, name: str = "change") -> str:
    return reverse(f"admin:jit_approval_channel_{name}", args=[channel.pk])


def made(kind: str = "webhook", **fields: Any) -> Channel:
    kept = fields.pop("secrets", {})
    found = Channel(**{"slug": "ops", "name": "Ops", "kind": kind, **fields})
    found.keep_secrets(kept)
    found.save()
    return found


def working(**fields: Any) -> Channel:
    plain = {"configuration": {"url": URL}, "secrets": {"secret": SECRET}, "enabled": True}
    return made(**{**plain, **fields})


def post(client: Client, channel: Channel, **values: Any) -> Any:
    inline = {
        "preferred_by-TOTAL_FORMS": "0",
        "preferred_by-INITIAL_FORMS": "0",
    }
    return client.post(page(channel), {"name": channel.name, **inline, **values})


def errors(response: Any) -> str:
    assert response.status_code == 200
    return str(response.context["adminform"].form.errors)


# --- adding and changing ---------------------------------------------------------------------------------


def test_new_channel_is_asked_for_what_its_kind_needs(admin: Client) -> None:
    add = reverse("admin:jit_approval_channel_add")
    response = admin.post(add, {"name": "Ops", "slug": "ops", "kind": "webhook"}, follow=True)
    found = Channel.objects.get()
    assert response.redirect_chain == [(page(found), 302)]
    assert not found.enabled
    assert b'name="set_url"' in response.content and b'name="set_secret"' in response.content


def test_new_channel_takes_no_slug_that_means_something_else(admin: Client) -> None:
    add = reverse("admin:jit_approval_channel_add")
    response = admin.post(add, {"name": "Mail", "slug": "email", "kind": "email"})
    assert "taken" in errors(response) and not Channel.objects.exists()


def test_secret_that_is_made_is_shown_once_and_stored_encrypted(admin: Client) -> None:
    channel = made()
    response = post(admin, channel, enabled="on", set_url=URL, set_secret_make="on")
    shown = re.findall(rb"whsec_[A-Za-z0-9+/=]+", response.content)
    assert len(shown) == 1 and "no-store" in response["Cache-Control"]
    channel.refresh_from_db()
    secret = shown[0].decode()
    assert channel.enabled and channel.open_secrets() == {"secret": secret}
    assert secret.encode() not in admin.get(page(channel)).content
    assert secret not in whole_row(channel)


def whole_row(channel: Channel) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM jit_approval_channel")
        return str(cursor.fetchall())


def test_stored_secret_is_never_shown_and_kept_when_left_empty(admin: Client) -> None:
    channel = working()
    assert SECRET.encode() not in admin.get(page(channel)).content
    response = post(admin, channel, enabled="on", set_url=URL + "y", set_secret="")
    assert response.status_code == 302
    channel.refresh_from_db()
    assert channel.open_secrets() == {"secret": SECRET}
    assert channel.configuration == {"url": URL + "y"}


def test_secret_that_was_entered_is_not_sent_back_with_an_error(admin: Client) -> None:
    response = post(admin, made(), enabled="on", set_url="http://x/", set_secret=SECRET)
    assert "https" in errors(response) and SECRET.encode() not in response.content


def test_new_secret_leaves_the_one_before_it_in_use_until_it_is_forgotten(admin: Client) -> None:
    channel, newer = working(), webhook.make_secret()
    post(admin, channel, enabled="on", set_url=URL, set_secret=newer)
    channel.refresh_from_db()
    assert channel.open_secrets() == {"secret": newer, "previous_secret": SECRET}
    post(admin, channel, enabled="on", set_url=URL, set_previous_secret_forget="on")
    channel.refresh_from_db()
    assert channel.open_secrets() == {"secret": newer}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"set_url": "http://hooks.example.com/"}, "https"),
        ({"set_url": "https://169.254.169.254/"}, "not an address"),
        ({"set_url": "https://user:pw@hooks.example.com/"}, "password"),
        ({"set_url": "https://hooks.example.com:6379/"}, "port"),
        ({"set_url": ""}, "needs this"),
        ({"set_url": URL, "set_secret_make": ""}, "needs this"),
        ({"set_url": URL, "set_secret": "short"}, "64"),
    ],
)
def test_channel_is_not_enabled_with_what_would_not_work(
    values: dict[str, str], words: str, admin: Client
) -> None:
    channel = made()
    values = {"set_secret_make": "on", **values}
    given = {name: value for name, value in values.items() if value}
    assert words in errors(post(admin, channel, enabled="on", **given))
    channel.refresh_from_db()
    assert not channel.enabled and not channel.sealed


@override_settings(JIT_APPROVAL={})
def test_without_a_key_no_secret_is_stored(admin: Client) -> None:
    channel = Channel.objects.create(slug="ops", name="Ops", kind="webhook")
    assert "SECRET_KEYS" in errors(post(admin, channel, set_url=URL, set_secret_make="on"))
    channel.refresh_from_db()
    assert channel.sealed == ""


def test_page_says_what_is_wrong(admin: Client) -> None:
    channel = working(enabled=False, disabled_because="The endpoint answered 410.")
    with override_settings(JIT_APPROVAL={"SECRET_KEYS": [OTHER]}):
        text = admin.get(page(channel)).content.decode()
    assert "answered 410" in text and "SECRET_KEYS" in text


def test_enabling_it_again_forgets_why_it_was_disabled(admin: Client) -> None:
    channel = working(enabled=False, disabled_because="The endpoint answered 410.")
    post(admin, channel, enabled="on", set_url=URL)
    channel.refresh_from_db()
    assert (channel.enabled, channel.disabled_because) == (True, "")


def test_channel_that_is_in_use_is_not_deleted(admin: Client) -> None:
    channel = working()
    under = factories.policy()
    under.channels.add(channel)
    assert admin.post(page(channel, "delete"), {"post": "yes"}).status_code == 403
    listing = reverse("admin:jit_approval_channel_changelist")
    several = {"action": "delete_selected", "_selected_action": [str(channel.pk)], "post": "yes"}
    assert admin.post(listing, several).status_code == 403
    under.channels.clear()
    assert admin.post(page(channel, "delete"), {"post": "yes"}).status_code == 302


def test_who_may_only_look_sees_no_configuration(client: Client) -> None:
    channel = working()
    client.force_login(staff("view_channel"))
    text = client.get(page(channel)).content.decode()
    assert "Ops" in text and URL not in text and SECRET not in text
    assert "test/" not in text


def test_pages_are_closed_to_others(client: Client) -> None:
    channel = working()
    client.force_login(staff("view_approvalrequest"))
    assert client.get(page(channel)).status_code == 403
    assert client.post(page(channel, "test")).status_code in (403, 404)


def test_secrets_move_to_the_newest_key(admin: Client) -> None:
    channel = working()
    listing = reverse("admin:jit_approval_channel_changelist")
    with override_settings(JIT_APPROVAL={"SECRET_KEYS": [OTHER, KEY]}):
        action = {"action": "encrypt_again", "_selected_action": [str(channel.pk)]}
        assert admin.post(listing, action).status_code == 302
    channel.refresh_from_db()
    with override_settings(JIT_APPROVAL={"SECRET_KEYS": [OTHER]}):
        assert channel.open_secrets() == {"secret": SECRET}
        assert secrets.is_sealed_with_newest(channel.sealed)


# --- the test message ------------------------------------------------------------------------------------


def told(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def test_test_message_arrives_and_says_what_it_is(admin: Client, tmp_path: Path) -> None:
    with receiver(tmp_path) as server, override_settings(JIT_APPROVAL=allowing(server)):
        channel = working(configuration={"url": server.url})
        response = admin.post(page(channel, "test"), follow=True)
    assert "was taken" in told(response)
    _path, headers, body = server.got[0]
    assert Webhook(SECRET).verify(body, headers)["type"] == "approval.test"
    assert not Notification.objects.exists()


def allowing(server: Receiver) -> dict[str, Any]:
    return {**KEYS, "WEBHOOK_PORTS": [server.port]}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://hooks.example.com/", "169.254.169.254"),
        ("https://hooks.example.com/", "127.0.0.1"),
        ("https://127.0.0.1/", "93.184.215.14"),
        ("http://hooks.example.com/", "93.184.215.14"),
    ],
)
def test_test_message_goes_nowhere_a_message_would_not(
    url: str, address: str, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = working(configuration={"url": url})
    resolve_to(monkeypatch, address)
    with counted_connections() as connections:
        response = admin.post(page(channel, "test"), follow=True)
    assert "Not sent" in told(response) and connections == []


def test_looking_at_the_test_page_sends_nothing(admin: Client) -> None:
    channel = made("dummy")
    assert admin.get(page(channel, "test")).status_code == 405
    assert dummy.sent == []


def test_test_message_takes_the_permission_to_change_the_channel(client: Client) -> None:
    channel = made("dummy")
    client.force_login(staff("view_channel"))
    assert client.post(page(channel, "test")).status_code == 403
    assert dummy.sent == []
    client.force_login(staff("view_channel", "change_channel"))
    client.post(page(channel, "test"))
    assert [message.type for message in dummy.sent] == ["approval.test"]


def test_test_message_needs_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.user(is_staff=True, is_superuser=True))
    assert client.post(page(made("dummy"), "test")).status_code == 403
    assert dummy.sent == []


def test_test_message_of_personal_mail_goes_to_who_asks(admin: Client) -> None:
    admin.post(page(made("email"), "test"))
    assert [message.to for message in mail.outbox] == [["root@example.test"]]


# --- messages --------------------------------------------------------------------------------------------


def failed() -> Notification:
    factories.decider("bob")
    row = factories.held()
    rows = Notification.objects.filter(approval_request=row)
    rows.update(
        recipient="7",
        address="bob@example.test",
        channel="email",
        state=State.FAILED,
        attempts=8,
        error="550 no such user",
    )
    return rows.get()


def send_again(client: Client, row: Notification) -> Any:
    listing = reverse("admin:jit_approval_notification_changelist")
    action = {"action": "send_again", "_selected_action": [str(row.pk)]}
    return client.post(listing, action, follow=True)


def test_dead_letter_is_seen_with_its_error_and_sent_again(admin: Client) -> None:
    row = failed()
    listing = reverse("admin:jit_approval_notification_changelist")
    assert b"550 no such user" in admin.get(listing).content
    assert "1 of the selected" in told(send_again(admin, row))
    row.refresh_from_db()
    assert (row.state, row.attempts, row.error) == (State.WAITING, 0, "")


def test_what_was_sent_is_not_sent_again(admin: Client) -> None:
    row = failed()
    Notification.objects.update(state=State.SENT)
    assert "0 of the selected" in told(send_again(admin, row))
    row.refresh_from_db()
    assert row.state == State.SENT


def test_sending_again_takes_the_permission(client: Client) -> None:
    row = failed()
    client.force_login(staff("view_notification"))
    send_again(client, row)
    row.refresh_from_db()
    assert row.state == State.FAILED


def test_messages_are_not_edited(admin: Client) -> None:
    row = failed()
    change = reverse("admin:jit_approval_notification_change", args=[row.pk])
    assert admin.get(change).status_code == 200
    assert admin.post(change, {"state": "sent"}).status_code == 403
    assert admin.get(reverse("admin:jit_approval_notification_add")).status_code == 403


def test_message_about_no_request_is_listed(admin: Client) -> None:
    from jit_approval import verdicts

    with override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["ops@example.test"]}):
        verdicts.alert_unavailable(factories.call(factories.user("erin")), factories.terms())
    listing = reverse("admin:jit_approval_notification_changelist")
    assert b"nobody could decide" in admin.get(listing).content


def test_decided_call_is_not_announced_by_sending_again(admin: Client) -> None:
    row = failed()
    found = row.approval_request
    assert found is not None
    services.cancel(found, by=found.requester)
    send_again(admin, row)
    from jit_approval import tasks

    tasks.deliver(row.pk)
    row.refresh_from_db()
    assert row.state == State.DROPPED and mail.outbox == []
