"""What has happened to a request, as lines for people; and what happened around it meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.utils.translation import gettext as _

from jit_approval import escalating, membership
from jit_approval.admin import deadline, ladder
from jit_approval.audit import chain, shown
from jit_approval.models import ApprovalRequest, AuditEvent


def moment(event: AuditEvent, *, is_own: bool = False) -> dict[str, Any]:
    """Return one line of the timeline. `is_own`: for who made the call, and is not told whom a step asked."""
    data = {} if is_own and event.kind == escalating.KIND else said(event)
    return {
        "what": kinds().get(event.kind, event.kind),
        "kind": event.kind,
        # Who changed a group is not known here; the group and its members are.
        "by": "" if event.kind == membership.KIND else event.actor_label or _("the system"),
        "at": event.at,
        "comment": data.get("comment", ""),
        "on_behalf_of": data.get("on_behalf_of", []),
        "result": _result(event.kind, data),
    }


def newcomers(row: ApprovalRequest, events: Iterable[AuditEvent]) -> list[str]:
    """Return who entered or left a group that decides, while the request was open: newest first.

    Only of requests that are open still: later it is history, and stands in the timeline.
    """
    if deadline.left(row) is None:
        return []
    found = []
    for event in events:
        if event.kind == membership.KIND:
            ago = deadline.as_words_ago(row.now - event.at)
            change = _membership(said(event))
            text = _("%(change)s %(ago)s ago, while this was open.")
            found.append(text % {"change": change, "ago": ago})
    return found[::-1]


def is_sound(row: ApprovalRequest, events: Sequence[AuditEvent]) -> bool:
    """Tell whether the chain of events is unbroken and ends where the request says it does."""
    head = events[-1].hash if events else ""
    return chain.first_broken(events) is None and head == row.audit_head


def rewritten(row: ApprovalRequest, events: Iterable[AuditEvent]) -> list[str]:
    """Return what of the row is not what the event that the call was held says; of erased ones nothing is known."""
    held = next((event for event in events if event.kind == "held"), None)
    return ["held"] if held is None else shown.rewritten(row, held.body)


def said(event: AuditEvent) -> dict[str, Any]:
    """Return what an event carries; nothing where its body was tampered with."""
    try:
        data = json.loads(event.body)["data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def about(event: AuditEvent) -> str:
    """Return what an event outside of any request is about: a policy, a delegation, an action."""
    if event.approval_request_id is not None:
        return "-"
    data = said(event)
    names = ("policy", "delegator", "stand_in", "action", "version")
    return ", ".join(f"{name}: {data[name]}" for name in names if data.get(name)) or "-"


def _result(kind: str, data: dict[str, Any]) -> str:
    if kind == membership.KIND:
        return _membership(data)
    if kind == escalating.KIND and data:
        return ladder.as_words(data)
    return " ".join(str(data[key]) for key in ("outcome", "status", "exception") if data.get(key))


def _membership(data: dict[str, Any]) -> str:
    users = data.get("users")
    names = {
        "users": ", ".join(map(str, users)) if isinstance(users, list) else "?",
        "group": data.get("group", "?"),
    }
    texts = {
        "joined": _("%(users)s joined %(group)s"),
        "was given": _("%(users)s got the permission to decide everything"),
        "lost": _("%(users)s lost the permission to decide everything"),
    }
    if data.get("verb") in texts:
        return texts[data["verb"]] % names
    return _("%(users)s left %(group)s") % names


def all_kinds() -> dict[str, str]:
    """Return the kinds of all events with their names: those of a request, and those that belong to none."""
    return {
        **kinds(),
        "allowed": _("Allowed"),
        "denied": _("Denied"),
        "observed": _("Observed"),
        "unavailable": _("Unavailable"),
        "policy_changed": _("Policy changed"),
        "policy_deleted": _("Policy deleted"),
        "delegated": _("Delegated"),
        "delegation_ended": _("Delegation ended"),
        "message_sent": _("Message sent"),
        "message_failed": _("Message failed"),
        "erased": _("Erased"),
    }


def kind_named(text: str) -> str:
    """Return the kind of event that a person means: by its own word, or by the name that it is shown with."""
    names = {name.casefold(): kind for kind, name in all_kinds().items()}
    return names.get(text.casefold(), text) if text not in all_kinds() else text


def kinds() -> dict[str, str]:
    """Return the kinds of events of a request, with their names."""
    return {
        "held": _("Call held"),
        "vote": _("Approval given"),
        escalating.KIND: _("Escalated"),
        "approved": _("Approved"),
        "rejected": _("Rejected"),
        "cancelled": _("Withdrawn"),
        "expired": _("Time over"),
        "revoked": _("Approval taken back"),
        "consumed": _("Run started"),
        "outcome": _("Run ended"),
        "settled": _("Outcome settled"),
        membership.KIND: _("Deciders changed"),
    }
