"""Where it is gated, erasing is a held call that another person approves, like a change of policies."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import Error, IntegrityError
from django.utils import timezone

from jit_approval import conf, facts, fingerprint, policies, services, signals, verdicts
from jit_approval.audit import shown
from jit_approval.calls import Call, Origin, Shown
from jit_approval.erasure.acts import erase
from jit_approval.erasure.found import Found
from jit_approval.erasure.scope import MAY_ERASE, ErasureRefused, Scope, ensure_may
from jit_approval.exceptions import ApprovalDenied, IllegalTransition
from jit_approval.models import ApprovalRequest
from jit_approval.redaction import visible
from jit_approval.states import Effect, Outcome

logger = logging.getLogger(__name__)

ACTION = shown.ERASURE


def is_gated() -> bool:
    """Tell whether erasing waits for another person's approval."""
    config = conf.get()
    return config.GATE_ERASURE or config.GATE_POLICY_CHANGES


def propose(
    scope: Scope, *, by: Any, reason: str = "", origin: Origin | None = None
) -> ApprovalRequest:
    """Hold the erasure until another person approves it; return the request, or the open one for it.

    Raises:
        PermissionDenied: `by` may not erase.
        ErasureRefused: it would be refused now.
        ApprovalError: as `services.open_request`; ApprovalDenied where a policy denies it.
    """
    ensure_may(by)
    found = Found(scope)
    found.ensure_over()
    call = _call(scope, by, reason, found, origin or Origin())
    # What allows everything was not written to let anybody erase alone: it takes no part.
    asked = [policy for policy in policies.named(ACTION) if policy.effect != Effect.ALLOW]
    match = policies.choose(asked, call.facts, or_default=True)
    if match.effect == Effect.DENY and match.policy is not None:
        verdicts.record(call, "denied", match.policy)
        raise ApprovalDenied(f"The policy {match.policy.slug} denies it.")
    verdicts.observe(call, match)
    try:
        return services.open_request(call, policies.terms_of(match), troubles=match.troubles)
    except IntegrityError:
        rows = ApprovalRequest.objects.using(policies.database())
        return rows.get(open_key=call.bound.fingerprint)


def connect() -> None:
    """Erase as soon as it is approved. Called once, when the app is ready."""
    signals.request_approved.connect(_approved, dispatch_uid="jit_approval.erasure")


def _approved(approval_request: ApprovalRequest, **_: Any) -> None:
    if approval_request.action == ACTION:
        make(approval_request)


def make_all() -> int:
    """Do what was approved and is still waiting, for its events were not sealed or its process died."""
    rows = ApprovalRequest.objects.using(policies.database()).usable().filter(action=ACTION)
    done = 0
    for row in rows:
        try:
            done += make(row)
        except Exception:
            logger.exception("The sweep could not do the erasure %s.", row.pk)
    return done


def make(approval_request: ApprovalRequest) -> bool:
    """Spend the approval and erase, if what is stored is what was approved. Return whether it was done."""
    rows = ApprovalRequest.objects.using(policies.database()).with_now()
    row = rows.select_related("requester").get(pk=approval_request.pk)
    try:
        scope = Scope.of(row.context)
        if not _is_as_approved(row, scope):
            services.revoke(row, by=None, comment="It cannot be done as it was approved.")
            return False
        found = Found(scope)
        found.ensure_over()
        found.ensure_sealed()
    except ErasureRefused as error:
        logger.warning("The erasure %s waits: %s", row.pk, error)
        return False  # perhaps later, while the approval lasts
    except IllegalTransition:
        return False
    try:
        services.consume(row, state_digest=row.state_digest)
    except IllegalTransition:
        return False
    return _make(row, scope)


def _is_as_approved(row: ApprovalRequest, scope: Scope) -> bool:
    requester = row.requester
    if requester is None or not (requester.is_active and requester.has_perm(MAY_ERASE)):
        return False
    bound = _bound(scope, requester)
    return (bound.fingerprint, bound.state_digest) == (row.fingerprint, row.state_digest)


def _make(row: ApprovalRequest, scope: Scope) -> bool:
    try:
        origin = Origin(row.credential, row.ip, row.user_agent)
        erase(scope, by=row.requester, reason=row.reason, approval=str(row.pk), origin=origin)
    except (ErasureRefused, PermissionDenied, Error) as error:
        logger.exception("An approved erasure failed: %s", row.pk)
        services.record_outcome(row, outcome=Outcome.FAILED, exception=type(error).__name__)
        return False
    services.record_outcome(row, outcome=Outcome.SUCCEEDED)
    # Whom it was about was said to the decider alone, here: it goes with the rest.
    done = ApprovalRequest.objects.using(policies.database()).filter(pk=row.pk)
    done.update(**shown.GONE)
    return True


def _bound(scope: Scope, by: Any) -> Any:
    return fingerprint.bind(
        dict.fromkeys(fingerprint.CALL_FIELDS)
        | {
            "action": ACTION.encode(),
            "requester": fingerprint.canonical_json([by._meta.label_lower, str(by.pk)]),
            "body": fingerprint.canonical_json(scope.as_data()),
        },
        {},
        key=conf.get().fingerprint_key,
    )


def _call(scope: Scope, by: Any, reason: str, found: Found, origin: Origin) -> Call:
    said = (
        f"all about {scope.subject}" if scope.subject else f"all that ended before {scope.before}"
    )
    counts = f"requests: {found.requests().count()}, votes: {found.decisions().count()}"
    data = scope.as_data()
    return Call(
        action=ACTION,
        requester=by,
        persons=(policies.person_of(by),),
        credential=origin.credential,
        bound=_bound(scope, by),
        shown=Shown(
            method="ERASE",
            ip=origin.ip,
            user_agent=origin.user_agent,
            # Events keep the path and the object: not whom it is about.
            path="audit trail",
            payload=f"{visible(said)}\n{counts}",
            context=data,
            reason=visible(reason)[: conf.get().MAX_REASON_LENGTH],
        ),
        facts=lambda: {
            "action": ACTION,
            "agent": "",
            "request": {
                "method": "ERASE",
                "path": "",
                "query": {},
                "data": {"why": "subject" if scope.subject else "age"},
                "ip": "",
                "agent": "",
                "headers": {},
            },
            "user": facts.of_user(by),
            "object": {},
            "now": timezone.now(),
        },
    )
