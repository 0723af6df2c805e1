"""What people are told: facts and a link. Never the payload, the path or the context of a call.

Everything that came from outside is shown as `redaction.visible` shows it, so that no value can begin a line,
or a header, of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json import loads
from re import sub
from typing import Any

from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from jit_approval import conf
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.redaction import visible
from jit_approval.states import Status, Verdict

Event = Notification.Event
_MAX_SUBJECT_PART = 80


@dataclass(frozen=True)
class Message:
    """One line and a plain text."""

    subject: str
    body: str


def compose(notification: Notification, *, now: datetime) -> Message:
    """Return what this notification's recipient reads. `now` is the database's time."""
    approval_request = notification.approval_request
    if approval_request is None:
        return _alert(notification.facts)
    for_requester = notification.recipient == str(approval_request.requester_id)
    facts = _facts(approval_request, now)
    facts["link"] = _status_link(approval_request) if for_requester else _link(approval_request)
    facts["for_requester"] = for_requester
    body = render_to_string(f"jit_approval/mail/{notification.event}.txt", facts)
    # Lines that say nothing in this case leave more than one empty line behind.
    return Message(_subject(notification.event, facts), sub(r"\n{3,}", "\n\n", body).strip() + "\n")


def _alert(facts: Mapping[str, Any]) -> Message:
    """Return what the fallback reads of a call that nobody could have decided."""
    shown = {name: visible(str(value)) for name, value in facts.items()}
    body = render_to_string("jit_approval/mail/unavailable.txt", shown)
    subject = f"{_('Nobody can decide')}: {_shortened(shown['action'])}"
    return Message(subject, sub(r"\n{3,}", "\n\n", body).strip() + "\n")


def _subject(event: str, facts: Mapping[str, Any]) -> str:
    headline = {
        Event.HELD: _("Approval needed"),
        Event.DECIDED: _("Rejected") if facts["rejected"] else _("Approved"),
        Event.EXPIRED: _("Approval not used in time")
        if facts["granted"]
        else _("Not decided in time"),
        Event.CANCELLED: _("Withdrawn"),
        Event.REVOKED: _("Approval taken back"),
        Event.UNKNOWN: _("Outcome unknown"),
    }[Event(event)]
    action, label = (_shortened(facts[name]) for name in ("action", "object"))
    return " ".join(filter(None, [f"{headline}:", action, label, f"[{facts['match_code']}]"]))


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SUBJECT_PART else text[: _MAX_SUBJECT_PART - 1] + "…"


def _facts(row: ApprovalRequest, now: datetime) -> dict[str, Any]:
    usable = row.status == Status.APPROVED and not row.is_overdue(now)
    return {
        "id": str(row.pk),
        "action": visible(row.action),
        "object": visible(row.object_label),
        "requester": visible(row.requester_label),
        "reason": visible(row.reason),
        "match_code": row.match_code,
        "required": row.required_approvals,
        "decide_by": _in_utc(row.decide_by),
        "usable_until": _in_utc(row.usable_until),
        "usable": usable,
        "used": row.status == Status.CONSUMED,
        "granted": row.usable_until is not None,
        "rejected": row.status == Status.REJECTED,
        "decisions": _decisions(row),
        "ending": _ending(row),
    }


def _decisions(row: ApprovalRequest) -> list[dict[str, str]]:
    return [
        {
            "by": visible(decision.decider_label),
            "verdict": str(Verdict(decision.verdict).label),
            "comment": visible(decision.comment),
        }
        for decision in row.decisions.all()
    ]


def _ending(row: ApprovalRequest) -> dict[str, str]:
    """Return who withdrew the call or its approval, and what they said."""
    if row.status not in (Status.CANCELLED, Status.REVOKED):
        return {}
    event = row.audit_events.filter(kind=row.status).last()
    if event is None:
        return {}
    comment = loads(event.body).get("data", {}).get("comment", "")
    return {"by": visible(event.actor_label), "comment": visible(comment)}


def _in_utc(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


def _link(row: ApprovalRequest) -> str:
    """Return the address of the decision page, or "" where the project has no such page."""
    return _address("admin:jit_approval_approvalrequest_decide", row)


def _status_link(row: ApprovalRequest) -> str:
    return _address("jit_approval:request-detail", row)


def _address(name: str, row: ApprovalRequest) -> str:
    # From the setting, never from the Host of the held call: that is the caller's to choose.
    try:
        return conf.get().BASE_URL.rstrip("/") + reverse(name, args=[row.pk])
    except NoReverseMatch:
        return ""
