"""Who was told of a request and when, and who is told next if nobody decides: for its page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jit_approval import policies
from jit_approval.admin import deadline
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import callbacks
from jit_approval.notifications.recipients import CHANNEL
from jit_approval.policies import ladder
from jit_approval.redaction import visible
from jit_approval.states import Status

State = Notification.State
# So many messages of a request are read; of each announcement, so many people are named.
_MOST, _MAX_NAMES = 2000, 12


@dataclass
class Told:
    """One announcement: what, when, and to whom it came. `waiting` and `failed` are how many have not got it."""

    what: str
    at: datetime
    names: list[str] = field(default_factory=list)
    more: int = 0
    waiting: int = 0
    failed: int = 0
    # Nobody was told, for it was over before.
    is_dropped: bool = False

    @property
    def others(self) -> str:
        """How many were told beside those who are named; nothing where that is nobody."""
        text = ngettext("and %(count)d other", "and %(count)d others", self.more)
        return text % {"count": self.more} if self.more else ""


@dataclass(frozen=True)
class Next:
    """A step that is still ahead. `in_words` is the time until then; `is_next` the first of them."""

    at: datetime
    in_words: str
    whom: list[str]
    may_decide: bool
    is_next: bool


def told(row: ApprovalRequest) -> list[Told]:
    """Return what was announced of a request, in order, with the names of who was told. Two queries."""
    rows = Notification.objects.using(policies.database()).filter(approval_request_id=row.pk)
    found: dict[tuple[str, int], Told] = {}
    messages = list(rows.order_by("id")[:_MOST])
    names = _names(messages)
    for each in messages:
        key = (each.event, each.occasion)
        entry = found.setdefault(key, Told(_what(each), each.created_at))
        if not each.recipient:
            entry.is_dropped = each.state == State.DROPPED
            entry.waiting += each.state == State.WAITING
            continue
        _count(entry, each, names)
    return sorted(found.values(), key=lambda entry: entry.at)


def ahead(row: ApprovalRequest) -> list[Next]:
    """Return the steps that are taken if nobody decides, and word of the end; of requests that wait only."""
    if deadline.shown_status(row) != Status.PENDING:
        return []
    rungs = [rung for rung in ladder.rungs(row)[row.steps_taken :] if rung.at is not None]
    moments: list[tuple[datetime, list[str], bool]] = [
        (rung.at, _whom(rung), rung.may_decide)
        for rung in rungs
        if rung.at is not None and rung.at < row.decide_by
    ]
    notice = ladder.notice_at(row)
    if notice is not None:
        moments.append((notice, [_("deciders who have not decided: the end is near")], False))
    moments.sort(key=lambda each: each[0])
    return [
        Next(at, deadline.as_words(at - row.now), whom, may_decide, number == 0)
        for number, (at, whom, may_decide) in enumerate(moments)
    ]


def last_resort(row: ApprovalRequest) -> bool:
    """Tell whether nobody was left who could decide, and the last resort was told."""
    return row.status == Status.PENDING and 0 < len(row.ladder) == row.steps_taken


def as_words(data: dict[str, Any]) -> str:
    """Return what the trail says of a step: whom it told, and whether they may decide since."""
    if data.get("last_resort"):
        return _("nobody is left who could decide: the fallback is told")
    names = [
        str(name) for key in ("users", "groups", "addresses", "channels") for name in data[key]
    ]
    whom = [_("deciders again")] * bool(data.get("deciders")) + names
    text = _("step %(number)s: %(whom)s") % {"number": data.get("step"), "whom": ", ".join(whom)}
    if data.get("may_decide"):
        text += f"; {_('may decide from then on')}"
    if data.get("early"):
        text += f"; {_('at once, for nobody was left who could')}"
    return text


def _whom(rung: ladder.Rung) -> list[str]:
    deciders = [_("deciders again, those who have not decided")] if rung.deciders else []
    groups = [_("group %(name)s") % {"name": name} for _key, name in rung.groups]
    users = list(ladder.names_of(rung.users).values())
    channels = [_("channel %(name)s") % {"name": slug} for slug in rung.channels]
    return [visible(each) for each in (*deciders, *users, *groups, *rung.addresses, *channels)]


def _what(message: Notification) -> str:
    event = str(message.get_event_display())
    if message.event in (Notification.Event.REMINDER, Notification.Event.ESCALATED):
        return _("%(event)s (step %(number)d)") % {"event": event, "number": message.occasion}
    return event


def _names(messages: Iterable[Notification]) -> dict[str, str]:
    """Return the user names of who was told, by the recipient they are kept as."""
    keys = {
        each.recipient for each in messages if each.recipient not in ("", CHANNEL, each.address)
    }
    model = get_user_model()
    users = model._base_manager.using(policies.database()).filter(pk__in=keys)
    return {str(key): str(name) for key, name in users.values_list("pk", model.USERNAME_FIELD)}


def _count(entry: Told, message: Notification, names: dict[str, str]) -> None:
    if message.state == State.FAILED:
        entry.failed += 1
    elif message.state == State.WAITING:
        entry.waiting += 1
    elif message.state == State.SENT and len(entry.names) < _MAX_NAMES:
        if callbacks.is_one(message.channel):
            entry.names.append(_("the requester's callback"))
        elif message.recipient == CHANNEL:
            entry.names.append(_("channel %(name)s") % {"name": visible(message.channel)})
        else:
            entry.names.append(visible(names.get(message.recipient, message.address)))
    elif message.state == State.SENT:
        entry.more += 1
