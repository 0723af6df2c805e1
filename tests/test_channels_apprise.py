"""Apprise, as far as we let it: services of vendors, without options that name files or addresses."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apprise as library
import pytest
from django.core.exceptions import ValidationError
from django.test import override_settings

from jit_approval.notifications.channels import apprise
from jit_approval.notifications.transport import Message, Target, TransportError
from tests.receivers import counted_connections, receiver, resolve_to

# It loads its plugins when first asked, with what its own dependencies are warned of.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    list(library.Apprise().details()["schemas"])

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
TOKEN = "TIiajkdnlazkcOXrIdevi7FQ"


def message(**fields: Any) -> Message:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plain = {"id": "msg_1", "type": "approval.held", "at": now, "sent_at": now}
    return Message(**{**plain, "subject": "Approval needed", "body": "Claims: why", **fields})


def to(url: str) -> Target:
    return Target(secrets={"url": url})


@pytest.fixture
def slack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Slack's own host, as far as this process can tell."""
    with receiver(tmp_path, name="hooks.slack.com") as server:
        # The library trusts a bundle of its own, unless told otherwise.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        server.status, server.body = 200, b"ok"  # so Slack answers
        yield server


def test_message_reaches_the_vendors_host(slack: Any) -> None:
    apprise.notify(message(), to(SLACK))
    path, headers, body = slack.got[0]
    assert headers["Host"] == "hooks.slack.com" and path.endswith(TOKEN)
    assert "Approval needed" in body.decode() and "Claims: why" in body.decode()


def test_message_that_is_not_taken_is_tried_again_and_names_no_token(slack: Any) -> None:
    slack.status = 500
    with pytest.raises(TransportError) as caught:
        apprise.notify(message(), to(SLACK))
    assert not caught.value.permanent and TOKEN not in str(caught.value)


def test_redirect_of_a_vendor_is_not_followed(slack: Any) -> None:
    slack.status, slack.headers = 307, {"Location": "https://127.0.0.1/"}
    with pytest.raises(TransportError):
        apprise.notify(message(), to(SLACK))
    assert len(slack.got) == 1


def test_requesters_words_call_nobody(slack: Any) -> None:
    loud = "@everyone <!channel> <@U024BE7LH> <http://evil.test|fine> @here a@allison.test 1 < 2"
    apprise.notify(message(body=loud), to(SLACK))
    text = json.dumps(json.loads(slack.got[0][2]))
    for each in ("@everyone", "<!", "<@", "<http", "@here", "&lt;!", "&lt;@"):
        assert each not in text
    assert "a@allison.test" in text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "json://127.0.0.1/",
        "jsons://hooks.example.com/",
        "xml://127.0.0.1/",
        "form://127.0.0.1/",
        "syslog://",
        "dbus://",
        "windows://",
        "macosx://",
        "file:///etc/passwd",
        "mailto://user:pass@example.com",
        "mailtos://example.com?smtp=127.0.0.1",
        "mqtt://127.0.0.1/topic",
        "apprise://127.0.0.1/token",
        "vapid://a@example.com?keyfile=/etc/passwd",
        "fcm://project/device/?keyfile=http://127.0.0.1/",
        "zulip://bot@organisation.127.0.0.1.nip.io/token/",
        "ntfy://127.0.0.1/topic",
        "ntfys://user:pass@internal.example.com/topic",
        "workflows://127.0.0.1/" + "a" * 32 + "/" + "b" * 43,
        "workflows://logic.azure.com.evil.test/" + "a" * 32 + "/" + "b" * 43,
        "workflows://evil-logic.azure.com/" + "a" * 32 + "/" + "b" * 43,
        SLACK + "?template=/etc/passwd",
        SLACK + "?verify=no",
        SLACK + "?redirect=yes",
        SLACK + "?Verify=no",
        SLACK + "?%76erify=no",
        SLACK + "?to=x&verify=no",
        SLACK + "?to=x;verify=no",
        SLACK + "?rto=600",
        SLACK + "#?verify=no",
        "slack://only-one-token/",
        "[slack://x",
    ],
)
def test_what_is_not_a_vendors_service_is_not_called(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "93.184.215.14")
    with counted_connections() as connections, pytest.raises(TransportError) as caught:
        apprise.notify(message(), to(url))
    assert connections == [] and caught.value.permanent
    assert TOKEN not in str(caught.value)
    with pytest.raises(ValidationError):
        apprise.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        SLACK,
        "ntfy://approvals-of-ops",
        "pagerduty://abcdef@ghijkl",
        "pagerduty://abcdef@ghijkl?region=eu&severity=critical",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "workflows://prod-12.westus.logic.azure.com/" + "a" * 32 + "/" + "b" * 43,
    ],
)
def test_services_of_vendors_are_offered(url: str) -> None:
    apprise.check_url(url)


@override_settings(JIT_APPROVAL={"APPRISE_SERVICES": ["ntfys"]})
def test_settings_may_offer_more() -> None:
    apprise.check_url("ntfys://ntfy.internal.example.com/topic")


def test_certificates_are_checked_and_time_is_limited() -> None:
    service = apprise._service(SLACK)
    assert service.verify_certificate and not service.redirects
    assert service.socket_connect_timeout + service.socket_read_timeout < 15
