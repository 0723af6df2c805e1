"""Who is told of an event: the people who can act on it, or need not any more, as far as they can be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Q

from jit_approval import conf, policies
from jit_approval.models import ApprovalPolicy, ApprovalRequest, Notification
from jit_approval.policies import ladder
from jit_approval.states import Status, Verdict

Event = Notification.Event
# What those are asked who may decide now; it is told no more once the call is decided or overdue.
ASKS = frozenset({Event.HELD, Event.REMINDER, Event.ESCALATED})
# What ends the wait of those who were asked.
ENDS = frozenset({Event.DECIDED, Event.CANCELLED})
# What stands for the recipient of a message to a whole channel.
CHANNEL = "*"
EMAIL = "email"


@dataclass(frozen=True)
class Recipient:
    """One account and where it is reached; or a channel, where `pk` is `CHANNEL`; or a bare address, as `pk` too."""

    pk: str
    address: str
    channel: str = EMAIL


def deciders(event: str, row: ApprovalRequest, occasion: int = 0) -> Iterator[Recipient]:
    """Return those this event is news to who decide, decided, or were asked to. Each person once."""
    if event in (Event.HELD, Event.UNKNOWN):
        yield from _reachable(policies.deciders_of(row))
    elif event == Event.REMINDER:
        named = {user.pk for user in _named(row, occasion)}
        yield from _reachable(user for user in _undecided(row) if user.pk not in named)
    elif event == Event.ESCALATED:
        yield from _reachable(_not_decided_by(_named(row, occasion), row))
    elif event == Event.EXPIRING and occasion == 0:
        yield from _reachable(_undecided(row))
    elif event in ENDS:
        yield from _reachable(_told_before(row))
    elif event in (Event.REVOKED, Event.CONSUMED):
        yield from _reachable(_approved(row))


def requester(event: str, row: ApprovalRequest, occasion: int = 0) -> Iterator[Recipient]:
    """Return the requester, if this event is news to them: that a call is held, or what they did, they know."""
    if event in ASKS or event == Event.UNAVAILABLE or row.requester is None:
        return
    if event == Event.EXPIRING and occasion == 0:
        return
    if event in (Event.CANCELLED, Event.REVOKED) and _actor(row) == row.requester_id:
        return
    yield from _reachable([row.requester])


def elsewhere(event: str, row: ApprovalRequest) -> Iterator[Recipient]:
    """Return the channels and bare addresses that steps have told of the call: they are told of its end."""
    if event not in ENDS and event != Event.EXPIRED:
        return
    for pk, address, channel in _asked(row).values_list("recipient", "address", "channel"):
        if pk == CHANNEL or (pk and pk == address):
            yield Recipient(pk, address, channel)


def addresses_of(row: ApprovalRequest, occasion: int) -> Iterator[Recipient]:
    """Return the bare addresses a step names."""
    for address in _rung(row, occasion).addresses:
        yield Recipient(address, address)


def last_resort(policy_id: int | None) -> list[str]:
    """Return the addresses of the policy and of the settings, told where nobody is left to ask, each once."""
    rows = ApprovalPolicy.objects.using(policies.database())
    policy = rows.filter(pk=policy_id).first() if policy_id is not None else None
    own = policy.fallback.split() if policy is not None else []
    return list(dict.fromkeys([*own, *conf.get().FALLBACK_ADDRESSES]))


def channels_of(row: ApprovalRequest, occasion: int) -> tuple[str, ...]:
    """Return the channels (slugs) a step names."""
    return _rung(row, occasion).channels


# --- the pieces ------------------------------------------------------------------------------------------


def _rung(row: ApprovalRequest, occasion: int) -> ladder.Rung:
    return ladder.rungs(row)[occasion - 1]


def _named(row: ApprovalRequest, occasion: int) -> list[Any]:
    """Return the users a step names, and the members of its groups of this moment; nobody behind the call."""
    rung = _rung(row, occasion)
    users = get_user_model()._base_manager.using(policies.database())
    members = users.filter(groups__in=[key for key, _name in rung.groups]).values("pk")
    named = Q(pk__in=rung.users) | Q(pk__in=members)
    able = users.filter(named, is_active=True).order_by("pk")
    return policies.without_behind(able, row.requester_id, row.persons)


def _undecided(row: ApprovalRequest) -> Iterator[Any]:
    return _not_decided_by(policies.deciders_of(row), row)


def _not_decided_by(users: Iterable[Any], row: ApprovalRequest) -> Iterator[Any]:
    """Leave out the persons who have voted."""
    voted = {decision.person for decision in row.decisions.all()}
    return (user for user in users if policies.person_of(user) not in voted)


def _told_before(row: ApprovalRequest) -> Iterator[Any]:
    """Return those who were asked to decide, and did not: they need not look any more."""
    names = set(_asked(row).values_list("recipient", flat=True)) - {CHANNEL}
    keys, to_key = set(), get_user_model()._meta.pk.to_python
    for name in names:
        with suppress(ValidationError):  # a bare address
            keys.add(to_key(name))
    users = get_user_model()._default_manager.using(policies.database())
    return _not_decided_by(users.filter(pk__in=keys).order_by("pk"), row)


def _asked(row: ApprovalRequest) -> Any:
    """Return the messages that asked somebody to decide, or told of that, and arrived."""
    rows = Notification.objects.using(policies.database()).filter(
        approval_request_id=row.pk, event__in=ASKS, state=Notification.State.SENT
    )
    return rows.exclude(recipient="")


def _approved(row: ApprovalRequest) -> list[Any]:
    """Return who approved, but for who took the approval back."""
    actor = _actor(row) if row.status == Status.REVOKED else None
    votes = row.decisions.select_related("decider").filter(verdict=Verdict.APPROVE)
    return [
        vote.decider
        for vote in votes
        if vote.decider is not None and (actor is None or vote.decider_id != actor)
    ]


def _actor(row: ApprovalRequest) -> Any:
    """Return the key of who made the last move, by the trail; None: the system."""
    events = row.audit_events.filter(kind=row.status)
    return events.values_list("actor", flat=True).last()


def _reachable(users: Iterable[Any]) -> Iterator[Recipient]:
    """Return where each is reached. Of two accounts of one person, one is enough."""
    told = set()
    for user in users:
        address = getattr(user, user.get_email_field_name(), "")
        if address and user.is_active and policies.person_of(user) not in told:
            told.add(policies.person_of(user))
            yield Recipient(str(user.pk), address)
