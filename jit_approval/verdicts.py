"""What is written down of calls that were never held: allowed, denied, observed, or with nobody to decide them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from jit_approval import clock, policies, prepared, transitions
from jit_approval.audit import chain
from jit_approval.audit.shown import LONGEST_PATH
from jit_approval.calls import Call, Origin, Terms
from jit_approval.models import ApprovalPolicy, AuditEvent, Notification
from jit_approval.notifications import outbox, recipients
from jit_approval.redaction import shorten, visible

# One alert per policy and action in this time: a caller may ask again and again.
ALERT_EVERY = timedelta(minutes=15)
_MAX_NAMES = 20
_MAX_ERROR = 300


def record(
    call: Call, kind: str, policy: ApprovalPolicy, *, data: Mapping[str, Any] | None = None
) -> AuditEvent:
    """Write that a policy allowed, denied or observed a call. Committed when it returns.

    Raises:
        NotDurable: inside a transaction that could take it back.
    """
    with transitions.durable() as alias:
        at = clock.now(alias)
        of_policy = {"policy": policy.slug, "policy_version": policy.version}
        event = chain.single_event(
            kind,
            at=at,
            by=call.requester,
            data={**of_call(call), **of_policy, **(data or {})},
            origin=origin_of(call),
        )
        prepared.insert(event, using=alias)
        return event


def observe(call: Call, found: policies.Match) -> None:
    """Write what each shadow policy would have done: held the call, and asked these people."""
    troubled = {trouble.policy.pk: trouble.error for trouble in found.troubles}
    for policy in found.observed:
        key = call.shown.object_pk
        terms = policies.on_object(policies.terms(policy), call.shown.object_model, key)
        able = policies.deciders(policy.pk, permission=terms.object_permission, object_pk=key)
        others = policies.without_behind(able.order_by("pk"), call.requester.pk, call.persons)
        names = [str(user.get_username()) for user in others]
        data = {
            "would_be": "held",
            "required_approvals": terms.required_approvals,
            "deciders": names[:_MAX_NAMES],
            "deciders_count": len(names),
            "error": _error(troubled.get(policy.pk, "")),
        }
        record(call, "observed", policy, data=data)


def as_data(troubles: Iterable[policies.Trouble]) -> list[dict[str, str]]:
    """Return failed conditions for an event's body."""
    return [{"policy": each.policy.slug, "error": _error(each.error)} for each in troubles]


def _error(text: str) -> str:
    # It may quote what the caller sent, which may be longer, or stranger, than a column takes.
    return shorten(visible(text), _MAX_ERROR)


def alert_unavailable(call: Call, terms: Terms) -> None:
    """Tell the policy's fallback that a call found nobody to decide it; not again for a while."""
    with transitions.durable() as alias:
        at = clock.now(alias)
        recent = Notification.objects.using(alias).filter(
            approval_request=None,
            event=Notification.Event.UNAVAILABLE,
            created_at__gt=at - ALERT_EVERY,
            facts__policy=terms.policy_slug,
            facts__action=call.action,
        )
        if recent.exists():
            return
        facts = {
            "policy": terms.policy_slug,
            "action": call.action,
            "requester": str(call.requester.get_username()),
            "object": call.shown.object_label,
            "required": terms.required_approvals,
        }
        event = chain.single_event("unavailable", at=at, by=call.requester, data=facts)
        prepared.insert(event, using=alias)
        for address in recipients.last_resort(terms.policy_id) or [""]:
            outbox.alert(facts, address, at=at, using=alias)


def of_call(call: Call) -> dict[str, Any]:
    """Return what an event says of a call: what it is bound to, what it is about, and why it was made."""
    shown = call.shown
    return {
        "action": call.action,
        "fingerprint": call.bound.fingerprint,
        "method": shown.method,
        "path": shorten(shown.path, LONGEST_PATH),
        "object": shown.object_label,
        "object_model": shown.object_model,
        "object_pk": shown.object_pk,
        "reason": shown.reason,
        "agent": shown.agent,
    }


def origin_of(call: Call) -> Origin:
    """Return where a call came from, for the record."""
    shown = call.shown
    person = call.persons[0] if call.persons else ""
    return Origin(call.credential[:200], shown.ip, shown.user_agent, person)
