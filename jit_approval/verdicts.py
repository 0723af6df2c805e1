"""What is written down of calls that were never held: allowed, denied, observed, or with nobody to decide them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from jit_approval import clock, conf, policies, prepared, transitions
from jit_approval.audit import chain
from jit_approval.calls import Call, Terms
from jit_approval.models import ApprovalPolicy, AuditEvent, Notification
from jit_approval.notifications import outbox

# One alert per policy and action in this time: a caller may ask again and again.
ALERT_EVERY = timedelta(minutes=15)
_MAX_NAMES = 20


def record(
    call: Call, kind: str, policy: ApprovalPolicy, *, data: Mapping[str, Any] | None = None
) -> AuditEvent:
    """Write that a policy allowed, denied or observed a call. Committed when it returns.

    Raises:
        NotDurable: inside a transaction that could take it back.
    """
    with transitions.durable() as alias:
        at = clock.now(alias)
        event = chain.single_event(
            kind, at=at, by=call.requester, data={**_of_call(call, policy), **(data or {})}
        )
        prepared.insert(event, using=alias)
        return event


def observe(call: Call, found: policies.Match) -> None:
    """Write what each shadow policy would have done: held the call, and asked these people."""
    troubled = {trouble.policy.pk: trouble.error for trouble in found.troubles}
    for policy in found.observed:
        terms = policies.terms(policy)
        able = policies.deciders(
            policy.pk, permission=terms.object_permission, object_pk=call.shown.object_pk
        )
        names = [
            str(user.get_username())
            for user in able.order_by("pk")
            if policies.person_of(user) not in call.persons
        ]
        data = {
            "would_be": "held",
            "required_approvals": terms.required_approvals,
            "deciders": names[:_MAX_NAMES],
            "deciders_count": len(names),
            "error": troubled.get(policy.pk, ""),
        }
        record(call, "observed", policy, data=data)


def as_data(troubles: Iterable[policies.Trouble]) -> list[dict[str, str]]:
    """Return failed conditions for an event's body."""
    return [{"policy": trouble.policy.slug, "error": trouble.error} for trouble in troubles]


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
        for address in _fallback(terms.policy_id) or [""]:
            outbox.alert(facts, address, at=at, using=alias)


def _fallback(policy_id: int | None) -> list[str]:
    """Return the addresses of the policy and of the settings, each once."""
    rows = ApprovalPolicy.objects.using(policies.database())
    policy = rows.filter(pk=policy_id).first() if policy_id is not None else None
    own = policy.fallback.split() if policy is not None else []
    return list(dict.fromkeys([*own, *conf.get().FALLBACK_ADDRESSES]))


def _of_call(call: Call, policy: ApprovalPolicy) -> dict[str, Any]:
    return {
        "action": call.action,
        "policy": policy.slug,
        "policy_version": policy.version,
        "fingerprint": call.bound.fingerprint,
        "method": call.shown.method,
        "path": call.shown.path,
        "object": call.shown.object_label,
        "reason": call.shown.reason,
        "ip": call.shown.ip,
    }
