"""What people are told: facts and a link. Never the payload, the path or the context of a call.

Everything that came from outside is shown as `redaction.visible` shows it, so that no value can begin a line,
or a header, of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from re import sub
from typing import Any

from django.contrib.auth import get_user_model
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from jit_approval import policies
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import facts as shown
from jit_approval.notifications.recipients import CHANNEL
from jit_approval.notifications.transport import Message
from jit_approval.redaction import shorten, visible

Event = Notification.Event
_MAX_SUBJECT_PART = 80
_LAYOUTS = {"body": "jit_approval/mail/_layout.txt", "html": "jit_approval/mail/_layout.html"}


def compose(notification: Notification, *, now: datetime) -> Message:
    """Return what this notification's recipient reads. `now` is the database's time."""
    approval_request = notification.approval_request
    if approval_request is None:
        return _alert(notification, now)
    event = Event(notification.event)
    audience = _audience(notification, approval_request)
    facts = shown.of(approval_request, now)
    link = shown.status_link if audience == "requester" else shown.link
    facts |= {"audience": audience, "link": link(approval_request)}
    facts["rows"] = _rows(event, facts)
    facts["subject"] = _subject(event, facts)
    return Message(
        id=_id(notification),
        type=f"approval.{event}",
        at=notification.created_at,
        sent_at=now,
        subject=facts["subject"],
        data=shown.for_machines(approval_request, facts),
        thread=f"approval.{approval_request.pk}",
        severity=approval_request.severity,
        **_texts(event, facts),
    )


def compose_test(name: str, *, id: str, now: datetime) -> Message:
    """Return the message of the button in the admin: it says that it is a test, and nothing else."""
    subject = _("Test message")
    facts = {
        "subject": subject,
        "link": shown.home(),
        "rows": [(_("Channel:"), visible(name))],
        "audience": "channel",
    }
    data = {"channel": visible(name)}
    texts = _texts("test", facts)
    return Message(
        id=f"test_{id}",
        type="approval.test",
        at=now,
        sent_at=now,
        subject=subject,
        data=data,
        **texts,
    )


def _audience(notification: Notification, approval_request: ApprovalRequest) -> str:
    """Return who reads it: channel, requester, decider; or informed, who has no say in it."""
    if notification.recipient == CHANNEL:
        return "channel"
    if notification.recipient == str(approval_request.requester_id):
        return "requester"
    if notification.recipient == notification.address:
        return "informed"
    if notification.event == Event.ESCALATED and not _has_a_say(notification, approval_request):
        return "informed"
    return "decider"


def _has_a_say(notification: Notification, approval_request: ApprovalRequest) -> bool:
    users = get_user_model()._base_manager.using(policies.database())
    user = users.filter(pk=notification.recipient).first()
    return user is not None and policies.may_decide(user, approval_request)


def _id(notification: Notification) -> str:
    """Return what is the same at every attempt, and different on any other row, of other databases too.

    Without a dot: Standard Webhooks sign the parts joined by dots.
    """
    row = f"{notification.pk}.{notification.created_at.isoformat()}.{notification.approval_request_id}"
    return f"msg_{hashlib.sha256(row.encode()).hexdigest()[:32]}"


def _alert(notification: Notification, now: datetime) -> Message:
    """Return what the fallback reads of a call that nobody could have decided."""
    facts: dict[str, Any] = {
        name: visible(str(value)) for name, value in notification.facts.items()
    }
    rows = (
        (_("Action:"), facts.get("action", "")),
        (_("Object:"), facts.get("object", "")),
        (_("Requested by:"), facts.get("requester", "")),
        (_("Policy:"), facts.get("policy") or _("none: the terms of the settings")),
        (_("Approvals required:"), facts.get("required", "")),
    )
    subject = f"{_('Nobody can decide')}: {shorten(facts.get('action', ''), _MAX_SUBJECT_PART)}"
    texts = {
        "subject": subject,
        "rows": [(label, value) for label, value in rows if value],
        "audience": "channel",
    }
    return Message(
        id=_id(notification),
        type=f"approval.{Event.UNAVAILABLE}",
        at=notification.created_at,
        sent_at=now,
        subject=subject,
        data=facts,
        severity="high",
        **_texts(Event.UNAVAILABLE, texts),
    )


def _texts(event: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the message as text and as HTML, from the one template of its event."""
    name = f"jit_approval/mail/{event}.txt"
    made = {form: render_to_string(name, {**facts, "layout": _LAYOUTS[form]}) for form in _LAYOUTS}
    # Lines that say nothing in this case leave more than one empty line behind.
    return {form: sub(r"\n{3,}", "\n\n", text).strip() + "\n" for form, text in made.items()}


def _rows(event: Event, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as people read them: label and value, those without a value left out."""
    asks = (Event.HELD, Event.REMINDER, Event.ESCALATED, Event.UNAVAILABLE)
    waits = event in asks or (event == Event.EXPIRING and facts["pending"])
    rows = (
        (_("Who:"), facts["requester"]),
        (
            _("Agent:") if facts.get("agent_proven") else _("Claims to be agent:"),
            facts.get("agent"),
        ),
        (_("Action:"), facts["action"]),
        (_("Object:"), facts["object"]),
        # Nobody has checked it.
        (_("Claims:"), facts["reason"]),
        (_("Match code:"), facts["match_code"]),
        (_("Approval-Id:"), facts["id"]),
        (_("Decide by:"), facts["decide_by"] if waits else ""),
    )
    return [(label, str(value)) for label, value in rows if value]


def _subject(event: Event, facts: Mapping[str, Any]) -> str:
    action, label = (shorten(facts[name], _MAX_SUBJECT_PART) for name in ("action", "object"))
    headline = f"{_headline(event, facts)}:"
    return " ".join(filter(None, [headline, action, label, f"[{facts['match_code']}]"]))


def _headline(event: Event, facts: Mapping[str, Any]) -> str:
    if event == Event.DECIDED:
        verdict = _("Rejected") if facts["rejected"] else _("Approved")
        if facts["audience"] not in ("decider", "informed"):
            return verdict
        return _("Already handled by %(who)s") % {"who": shorten(facts["handled_by"], 40)}
    if event == Event.EXPIRED:
        return _("Approval not used in time") if facts["granted"] else _("Not decided in time")
    if event == Event.EXPIRING:
        return _("Not decided yet") if facts["pending"] else _("Approval not used yet")
    if event == Event.CONSUMED:
        return {"succeeded": _("Ran"), "failed": _("Ran and failed")}.get(
            facts["outcome"], _("Began to run")
        )
    if event == Event.ESCALATED and facts["audience"] == "informed":
        return _("Escalated: not decided yet")
    return {
        Event.HELD: _("Approval needed"),
        Event.REMINDER: _("Still waiting for approval"),
        Event.ESCALATED: _("Escalated: approval needed"),
        Event.CANCELLED: _("Withdrawn"),
        Event.REVOKED: _("Approval taken back"),
        Event.UNKNOWN: _("Outcome unknown"),
        Event.UNAVAILABLE: _("Nobody can decide"),
    }[event]
