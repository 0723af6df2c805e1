"""Where each of those who are told is told: on the policy's channels, their preferred one, or by e-mail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from jit_approval import policies
from jit_approval.models import ApprovalRequest, Channel, Notification, PreferredChannel
from jit_approval.notifications import callbacks, channels, recipients
from jit_approval.notifications.recipients import CHANNEL, EMAIL, Recipient
from jit_approval.notifications.transport import Target, TransportError
from jit_approval.secrets import SecretError

Event = Notification.Event


def of(event: str, approval_request: ApprovalRequest, occasion: int = 0) -> list[Recipient]:
    """Return everyone who is told of this event, each once.

    Deciders hear of it on the channels their policy names, and themselves only if it names none that is enabled,
    or one that reaches them personally. The requester is always told in person, as is whoever was asked so, and
    called back where they said.
    A step tells on its channels and, beside them, each person and address it names.
    """
    row = approval_request
    if event == Event.UNAVAILABLE:
        return _addressed(recipients.last_resort(row.policy_id))
    if event == Event.ESCALATED:
        return _of_step(row, occasion)
    named = _named(row)
    shared = [Recipient(CHANNEL, "", each.slug) for each in named if not _is_personal(each)]
    shared += recipients.elsewhere(event, row)
    people = list(recipients.requester(event, row, occasion))
    all_shared = bool(named) and not any(map(_is_personal, named))
    if not all_shared or event in recipients.ENDS:
        people = [*recipients.deciders(event, row, occasion), *people]
    shared += callbacks.recipients(event, row)
    everyone = [*dict.fromkeys(shared), *_preferred(people)]
    if not everyone and event == Event.HELD:
        # Whoever could decide it has no address: somebody has to hear of it.
        return _addressed(recipients.last_resort(row.policy_id))
    return everyone


def in_person(event: str, approval_request: ApprovalRequest, occasion: int = 0) -> list[Recipient]:
    """Return the deciders themselves, for when the channels did not work; the last resort where there are none."""
    people = _preferred(recipients.deciders(event, approval_request, occasion))
    if people or event not in recipients.ASKS:
        return people
    return _addressed(recipients.last_resort(approval_request.policy_id))


def _of_step(row: ApprovalRequest, occasion: int) -> list[Recipient]:
    rows = Channel.objects.using(policies.database()).filter(enabled=True)
    named = rows.filter(slug__in=recipients.channels_of(row, occasion)).order_by("slug")
    # What reaches the people themselves adds nobody here.
    shared = [Recipient(CHANNEL, "", each.slug) for each in named if not _is_personal(each)]
    people = _preferred(recipients.deciders(Event.ESCALATED, row, occasion))
    return [*shared, *people, *recipients.addresses_of(row, occasion)]


def _addressed(addresses: Iterable[str]) -> list[Recipient]:
    return [Recipient(address, address) for address in addresses]


def target(slug: str, address: str) -> tuple[str, Target]:
    """Return the kind of channel, and where a message for it goes.

    Raises:
        TransportError: the channel is gone or disabled, or its secrets cannot be decrypted here.
    """
    if slug == EMAIL:
        return EMAIL, Target(address=address)
    if callbacks.is_one(slug):
        return callbacks.KIND, callbacks.target(slug)
    channel = Channel.objects.using(policies.database()).filter(slug=slug).first()
    if channel is None or not channel.enabled:
        gone = "has been deleted" if channel is None else "is disabled"
        raise TransportError(f"The channel {slug!r} {gone}.", permanent=True)
    return channel.kind, target_of(channel)


def target_of(channel: Channel) -> Target:
    """Return what a channel is configured with, its secrets included.

    Raises:
        TransportError: the secrets cannot be decrypted here.
    """
    try:
        return Target(configuration=channel.configuration, secrets=channel.open_secrets())
    except SecretError as error:
        raise TransportError(str(error)) from None


def disable(slug: str, because: str) -> None:
    """Take a channel out of use, and say why in the admin; a callback, and say why to its requester."""
    if callbacks.is_one(slug):
        callbacks.disable(slug, because)
        return
    rows = Channel.objects.using(policies.database()).filter(slug=slug, enabled=True)
    rows.update(enabled=False, disabled_because=because)


def _named(approval_request: ApprovalRequest) -> list[Channel]:
    if approval_request.policy_id is None:
        return []
    rows = Channel.objects.using(policies.database()).filter(enabled=True)
    return list(rows.filter(policies=approval_request.policy_id).order_by("slug"))


def _is_personal(channel: Channel) -> bool:
    """Tell whether this channel stands for the deciders' own addresses."""
    try:
        kind = channels.find(channel.kind)
    except TransportError:
        return False
    personal = getattr(kind, "is_personal", None)
    return personal is not None and bool(personal(Target(configuration=channel.configuration)))


def _preferred(people: Iterable[Recipient]) -> list[Recipient]:
    """Tell those who prefer a channel there; each person once."""
    once = {each.pk: each for each in people}
    wanted = dict(_preferences(once)) if once else {}
    return [
        replace(each, channel=wanted[each.pk]) if each.pk in wanted else each
        for each in once.values()
    ]


def _preferences(people: Iterable[str]) -> Iterator[tuple[str, str]]:
    # All there are: few people have one, and a database takes only so many keys at a time.
    rows = PreferredChannel.objects.using(policies.database()).filter(channel__enabled=True)
    known = set(people)
    for user, slug in rows.values_list("user", "channel__slug"):
        if str(user) in known:
            yield str(user), slug
