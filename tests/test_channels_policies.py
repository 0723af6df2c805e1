"""Channels as part of what a policy says: versions, files, approved changes; and whom they reach."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ValidationError
from django.test import override_settings

from jit_approval import services, tasks
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    Channel,
    Notification,
    PolicyVersion,
    PreferredChannel,
)
from jit_approval.notifications import channels
from jit_approval.notifications.channels import dummy
from jit_approval.notifications.transport import TransportError
from jit_approval.policies import versions
from jit_approval.portable import checking, reading, writing
from tests import factories, pigeon

pytestmark = pytest.mark.django_db
Event, State = Notification.Event, Notification.State


@pytest.fixture(autouse=True)
def _nothing_sent() -> Iterator[None]:
    dummy.sent.clear()
    yield
    dummy.sent.clear()


def channel(slug: str = "ops", kind: str = "dummy", **fields: Any) -> Channel:
    return Channel.objects.create(slug=slug, name=slug, kind=kind, **{"enabled": True, **fields})


def policy(*channels: Channel) -> ApprovalPolicy:
    made = factories.policy()
    made.channels.set(channels)
    return made


def held(under: ApprovalPolicy) -> ApprovalRequest:
    factories.decider()
    terms = {"policy_id": under.pk, "policy_slug": under.slug}
    return factories.held(factories.user(), terms=terms)


def deliver(row: ApprovalRequest, event: str = Event.HELD) -> None:
    tasks.deliver(Notification.objects.get(approval_request=row, event=event, recipient="").pk)
    for pk in Notification.objects.filter(state=State.WAITING).values_list("pk", flat=True):
        tasks.deliver(pk)


def told() -> tuple[int, int]:
    """How many messages went to channels, and to mailboxes."""
    return len(dummy.sent), len(mail.outbox)


# --- whom they reach -------------------------------------------------------------------------------------


def test_channel_is_told_in_place_of_the_deciders() -> None:
    deliver(held(policy(channel())))
    assert told() == (1, 0)


def test_policy_without_channels_tells_its_deciders() -> None:
    channel()
    deliver(held(policy()))
    assert told() == (0, 1)


def test_policy_none_of_whose_channels_is_enabled_tells_its_deciders() -> None:
    deliver(held(policy(channel(enabled=False))))
    assert told() == (0, 1)


def test_personal_mail_is_a_channel_beside_others() -> None:
    deliver(held(policy(channel(), channel("each", "email"))))
    assert told() == (1, 1)


def test_shared_mailbox_is_a_channel() -> None:
    shared = channel("box", "email", configuration={"to": "security@example.test"})
    deliver(held(policy(shared)))
    assert [message.to for message in mail.outbox] == [["security@example.test"]]


def test_who_prefers_a_channel_is_told_there_once() -> None:
    preferred = channel("mine")
    under = policy()
    row = held(under)
    bob = factories.decider("bob")
    PreferredChannel.objects.create(user=bob, channel=preferred)
    deliver(row)
    deliver(row)
    assert told() == (1, 1)  # the other decider has a mailbox
    row_of_bob = Notification.objects.get(recipient=str(bob.pk))
    assert (row_of_bob.channel, row_of_bob.state) == ("mine", State.SENT)


def test_preferred_channel_that_is_disabled_is_no_reason_to_tell_nobody() -> None:
    row = held(policy())
    bob = factories.decider("bob")
    PreferredChannel.objects.create(user=bob, channel=channel("mine", enabled=False))
    deliver(row)
    assert told() == (0, 2)


def test_those_who_were_asked_hear_that_it_was_handled_and_by_whom() -> None:
    bob, carol = factories.decider("bob"), factories.decider("carol")
    row = factories.held(factories.user("erin"))
    deliver(row)
    factories.decider("came later")
    mail.outbox.clear()
    services.approve(row, by=bob, comment="fine")
    deliver(row, Event.DECIDED)
    by = {message.to[0]: message for message in mail.outbox}
    assert set(by) == {"carol@example.test", "erin@example.test"} and carol.pk
    handled = by["carol@example.test"]
    assert handled.subject.startswith("Already handled by bob: ")
    assert "bob: approve: fine" in handled.body and "nothing left for you to do" in handled.body
    assert "repeat the identical call" not in handled.body


def test_who_was_never_reached_does_not_hear_that_it_was_handled() -> None:
    bob, carol = factories.decider("bob"), factories.decider("carol")
    row = factories.held(factories.user("erin"))
    deliver(row)
    Notification.objects.filter(recipient=str(carol.pk)).update(state=State.FAILED)
    mail.outbox.clear()
    services.reject(row, by=bob)
    deliver(row, Event.DECIDED)
    assert [message.to[0] for message in mail.outbox] == ["erin@example.test"]


def test_who_was_deactivated_since_is_not_told() -> None:
    bob, carol = factories.decider("bob"), factories.decider("carol")
    row = factories.held(factories.user("erin"))
    deliver(row)
    mail.outbox.clear()
    carol.is_active = False
    carol.save()
    services.reject(row, by=bob)
    deliver(row, Event.DECIDED)
    assert [message.to[0] for message in mail.outbox] == ["erin@example.test"]


@pytest.mark.parametrize(
    "event", [each for each in Event if each not in (Event.UNAVAILABLE, Event.ESCALATED)]
)
def test_every_event_has_words_for_everybody(event: Event) -> None:
    row = held(policy(channel(), channel("each", "email")))
    asked = Notification.objects.get(approval_request=row, event=Event.HELD, recipient="")
    asked.pk, asked.event = None, event
    if event != Event.HELD:
        asked.save()
    deliver(row, event)
    assert dummy.sent[0].type == f"approval.{event}"
    for text in (*(each.body for each in mail.outbox), dummy.sent[0].body):
        assert row.match_code in text and "{%" not in text and "\n\n\n" not in text
    assert mail.outbox or event in (Event.DECIDED,)


# --- what a policy says ----------------------------------------------------------------------------------


def test_channels_are_part_of_a_version() -> None:
    under = policy()
    before = PolicyVersion.objects.filter(policy=under).count()
    under.channels.add(channel())
    newest = PolicyVersion.objects.filter(policy=under).order_by("number").last()
    assert newest is not None and newest.data["channels"] == ["ops"]
    assert PolicyVersion.objects.filter(policy=under).count() == before + 1


def test_channel_that_is_deleted_leaves_a_version_of_its_policies() -> None:
    found = channel()
    under = policy(found)
    found.delete()
    newest = PolicyVersion.objects.filter(policy=under).order_by("number").last()
    assert newest is not None and newest.data["channels"] == []


def test_channels_set_from_the_other_side_are_a_version_too() -> None:
    found, under = channel(), policy()
    found.policies.add(under)
    assert versions.changed_past([ApprovalPolicy.objects.get(pk=under.pk)]) == set()
    found.policies.clear()
    assert versions.changed_past([ApprovalPolicy.objects.get(pk=under.pk)]) == set()


def test_snapshot_puts_channels_back() -> None:
    under = policy(channel("one"), channel("two"))
    said = versions.snapshot(under)
    under.channels.clear()
    versions.restore(said)
    assert sorted(under.channels.values_list("slug", flat=True)) == ["one", "two"]


def test_snapshot_with_a_channel_that_is_gone_is_refused() -> None:
    said = {**versions.snapshot(policy()), "channels": ["gone"]}
    with pytest.raises(ValidationError, match="gone"):
        versions.restore(said)


def test_file_names_channels() -> None:
    under = policy(channel("two"), channel("one"))
    text = writing.write([versions.snapshot(under)])
    assert 'channels = ["one", "two"]' in text
    assert reading.read(text.encode()).snapshots[under.slug]["channels"] == ["one", "two"]


def test_file_that_names_a_channel_that_is_not_there_is_refused_with_its_line() -> None:
    text = '[policies.x]\nname = "X"\nactions = ["a.*"]\nchannels = [\n  "ops",\n  "opps",\n]\n'
    channel("ops")
    found = checking.problems(reading.read(text.encode()), {})
    assert [(each.line, each.message) for each in found] == [(6, "there is no channel 'opps'")]


# --- a project's own -------------------------------------------------------------------------------------

OWN = {"CHANNELS": ["tests.pigeon"], "SECRET_KEYS": ["k" * 43]}


def loft(name: str) -> Channel:
    made = Channel(slug="birds", name="Birds", kind="pigeon", enabled=True)
    made.configuration = {"loft": name}
    made.keep_secrets({"ring": "B-42"})
    made.save()
    return made


@override_settings(JIT_APPROVAL=OWN)
def test_project_adds_a_kind_of_channel_by_one_file_and_one_setting() -> None:
    pigeon.flown.clear()
    row = held(policy(loft("home")))
    deliver(row)
    assert [each[:2] for each in pigeon.flown] == [("home", "B-42")]


@override_settings(JIT_APPROVAL=OWN)
def test_what_a_channel_raises_is_written_down_and_tried_again() -> None:
    row = held(policy(loft("hawks")))
    deliver(row)
    found = Notification.objects.get(recipient="*")
    assert (found.state, found.error) == (
        State.WAITING,
        "ValueError: no pigeon came back\\u000aat all",
    )


@override_settings(JIT_APPROVAL=OWN)
def test_channel_may_ask_to_be_left_alone_for_a_while() -> None:
    row = held(policy(loft("stormy")))
    deliver(row)
    found = Notification.objects.get(recipient="*")
    assert found.next_attempt_at - found.created_at > timedelta(minutes=9)


@pytest.mark.parametrize("path", ["tests.no_such_pigeon", "no_such_project.pigeon"])
def test_kind_that_does_not_load_is_a_clear_error_and_not_offered(path: str) -> None:
    with override_settings(JIT_APPROVAL={"CHANNELS": [path]}):
        kind = path.rpartition(".")[2]
        with pytest.raises(TransportError, match="does not load"):
            channels.find(kind)


@override_settings(JIT_APPROVAL={"CHANNELS": ["tests.email"]})
def test_project_does_not_replace_a_kind_of_ours() -> None:
    assert channels.kinds()["email"] == "jit_approval.notifications.channels.email"
