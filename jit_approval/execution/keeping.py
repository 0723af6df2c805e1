"""Whether the server can run a call itself, and what it keeps to do so.

What it cannot keep, or could not be sure to meet the gate with, is held on the same terms but for this one: the
requester repeats it, which is the stricter way. The answer says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rest_framework.request import Request

from jit_approval import middleware, prepared, secrets
from jit_approval.calls import Terms
from jit_approval.execution import kept
from jit_approval.models import ApprovalRequest, StoredCall
from jit_approval.states import Execution

logger = logging.getLogger(__name__)

Store = Callable[[ApprovalRequest, str], None]

NO_KEY = "it has no key to keep it under (SECRET_KEYS)"
_NO_GATE = (
    "its view does not list the gate in permission_classes, decides itself when to ask it, "
    "or calls another that does"
)


def prepare(request: Request, terms: Terms) -> tuple[Terms, Store | None, str]:
    """Return the terms that can be kept, what stores the call in the opening transaction, and why not, if not."""
    if terms.execution != Execution.SERVER:
        return terms, None, ""
    try:
        _ensure_ready(request)
        text = kept.of_request(request).as_text()
    except kept.CannotBeKept as error:
        logger.warning("The server cannot run a call under %s: %s.", terms.policy_slug, error)
        return replace(terms, execution=Execution.CALLER.value), None, str(error)

    def store(row: ApprovalRequest, alias: str) -> None:
        sealed = secrets.seal(text, bound_to=bound_to(row))
        prepared.insert(StoredCall(approval_request_id=row.pk, sealed=sealed), using=alias)

    return terms, store, ""


def bound_to(row: ApprovalRequest) -> str:
    """Return what a stored call is bound to: moved to another request it does not open."""
    return f"stored call {row.pk}"


def _ensure_ready(request: Request) -> None:
    if not secrets.is_ready():
        raise kept.CannotBeKept(NO_KEY)
    match = request._request.resolver_match
    view = type((request.parser_context or {}).get("view"))
    if (
        match is None
        or not middleware.carries_gate(match.func)
        or _class_of(match.func) is not view
    ):
        raise kept.CannotBeKept(_NO_GATE)


def _class_of(callback: Any) -> Any:
    return getattr(callback, "cls", None)
