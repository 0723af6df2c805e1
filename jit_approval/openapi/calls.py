"""A gated operation: its headers, what it may be answered, and under which policies."""

from __future__ import annotations

import logging
from typing import Any

from django.db import Error

from jit_approval import conf, gated, policies
from jit_approval.models import ApprovalPolicy
from jit_approval.openapi.schemas import ref
from jit_approval.permissions import RequiresApproval
from jit_approval.states import Effect

logger = logging.getLogger(__name__)

_HEADERS = (
    # No format: openapi-python-client (0.29) makes a UUID of it, which no HTTP library takes for a header.
    ("Approval-Id", "The request that is meant, when a call is repeated."),
    ("Approval-Reason", "Why, for who decides. UTF-8."),
    ("Approval-Agent", "Who acts for the account. Bound, and shown as a claim."),
    (
        "Idempotency-Key",
        "Bound; a call that ran under it is answered approval_consumed, never held again.",
    ),
    (
        "Prefer",
        "`wait=N`: stay on the line for up to N seconds. `respond-async`: 202 where the server runs the call "
        "itself. RFC 7240.",
    ),
)
_REFUSALS = {
    "400": "Nothing ran: a reason is missing, or the body cannot be bound to one meaning.",
    "403": "Not executed: held for approval (`approval_pending`), rejected, denied, expired or used; see `code`.",
    "404": "Nothing ran: the object, or the Approval-Id, is not there.",
    "412": "Nothing ran: the object changed after the approval (`approval_stale`).",
    "422": "Nothing ran: the Approval-Id is of another call (`approval_mismatch`).",
    "429": "Nothing ran: too many requests are open.",
    "503": "Nothing ran: the gate could not do its work.",
}
_ACCEPTED = "Not executed yet: with `Prefer: respond-async`, where the server runs the call once it is approved."
_ON_HELD = {
    "Approval-Id": ("uuid", "The request."),
    "Location": ("uri-reference", "Where its status is read."),
    "Retry-After": (None, "Seconds until it is worth asking again."),
}
_ON_RUN = {
    "Approval-Id": ("uuid", "The approval that was spent."),
    "Approval-Status": (None, "`consumed`: the call ran."),
}


def gate_of(view: Any, method: str) -> RequiresApproval | None:
    """Return the gate that stands before this method of a view; None without one, or where it cannot be told."""
    try:
        gates = [each for each in view.get_permissions() if isinstance(each, RequiresApproval)]
        return gates[0] if gates and gated.is_gated(view, method) else None
    except Exception:
        # The view's own code, which may ask for a request that is not there.
        logger.warning("%s: its gate cannot be told for the schema.", type(view).__name__)
        return None


def describe(operation: dict[str, Any], view: Any, method: str, gate: RequiresApproval) -> None:
    """Add to an operation what the gate makes of it."""
    action = gated.action_label(view, method)
    parameters = operation.setdefault("parameters", [])
    known = {(each.get("in"), str(each.get("name")).lower()) for each in parameters}
    parameters += [
        _parameter(*each) for each in _HEADERS if ("header", each[0].lower()) not in known
    ]
    responses = operation.setdefault("responses", {})
    for status, response in list(responses.items()):
        if status.startswith("2"):
            response.setdefault("headers", {}).update(_headers(_ON_RUN))
    for status, meaning in _REFUSALS.items():
        _add(responses, status, meaning, "application/problem+json")
    _add(responses, "202", _ACCEPTED, "application/json")
    for status in ("202", "403"):
        responses[status].setdefault("headers", {}).update(_headers(_ON_HELD))
    operation["x-approval-policy"] = {
        "action": action,
        "gate": "by_policy" if gate.by_policy_only else "always",
        "policies": _policies(action),
        "otherwise": None if gate.by_policy_only else _defaults(),
    }


def _parameter(name: str, text: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string"}, "description": text}


def _headers(described: dict[str, tuple[str | None, str]]) -> dict[str, Any]:
    return {
        name: {
            "schema": {"type": "string", **({"format": form} if form else {})},
            "description": text,
        }
        for name, (form, text) in described.items()
    }


def _add(responses: dict[str, Any], status: str, meaning: str, media_type: str) -> None:
    """Add an answer beside what the view itself answers with this status."""
    response = responses.setdefault(status, {"description": meaning})
    if not response.get("description"):
        response["description"] = meaning
    content = response.setdefault("content", {})
    own = content.get(media_type, {}).get("schema")
    problem = ref("ApprovalProblem")
    content[media_type] = {"schema": {"oneOf": [own, problem]} if own else problem}


def _policies(action: str) -> list[dict[str, Any]] | None:
    """Return the policies in force that name the action, as they are asked; None where there is no database."""
    try:
        return [_policy(each) for each in policies.named(action) if each.effect != Effect.OBSERVE]
    except Error:
        logger.warning("The schema is made without policies: the database does not answer.")
        return None


def _policy(policy: ApprovalPolicy) -> dict[str, Any]:
    """Return what a caller learns when the call is held; its condition is nobody's business."""
    return {
        "policy": policy.slug,
        "effect": str(policy.effect),
        "conditional": bool(policy.condition),
        "approvals_required": policy.required_approvals,
        "decide_within": int(policy.decide_within.total_seconds()),
        "usable_within": int(policy.usable_within.total_seconds()),
        "reason_required": policy.require_reason,
        "execution": str(policy.execution),
    }


def _defaults() -> dict[str, Any]:
    config = conf.get()
    return {
        "policy": None,
        "effect": str(Effect.REQUIRE),
        "conditional": False,
        "approvals_required": config.REQUIRED_APPROVALS,
        "decide_within": int(config.DECIDE_WITHIN.total_seconds()),
        "usable_within": int(config.USABLE_WITHIN.total_seconds()),
        "reason_required": config.REQUIRE_REASON,
        "execution": "caller",
    }
