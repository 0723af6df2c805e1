"""The gate: tells a live call from a probe, lets others refuse first, then holds the call or lets it run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import Error, connections, router, transaction
from django.http import Http404
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Empty, Request
from rest_framework.views import APIView

from jit_approval import (
    body,
    fingerprint,
    gated,
    handlers,
    online,
    policies,
    problems,
    repeating,
    replays,
    services,
    verdicts,
)
from jit_approval.attempt import Attempt, named_id
from jit_approval.capture import capture, parts_without_object
from jit_approval.exceptions import (
    ApprovalError,
    NotDurable,
)
from jit_approval.models import ApprovalPolicy, ApprovalRequest
from jit_approval.permissions import RequiresApproval
from jit_approval.states import Effect, Status

logger = logging.getLogger(__name__)

_VERDICT = "_jit_approval_verdict"
# No policy names the call: good enough for RequiresApprovalByPolicy, not for RequiresApproval beside it.
_UNNAMED = "_jit_approval_unnamed"
_DECIDING = "_jit_approval_deciding"


def check(request: Request, view: APIView, *, by_policy_only: bool = False) -> bool:
    """Return True if this call may run now; see `RequiresApproval` for what is raised otherwise."""
    gated.ensure_drf(request, view)
    method = gated.effective_method(request)
    try:
        gated.ensure_by_itself(view)
        if not gated.is_gated(view, method):
            _ensure_no_replay(request)
            handlers.let_through(request, view, method)
            return True
        return _check_gated(request, view, method, by_policy_only)
    except Exception:
        # A view that swallows this, or answers it by trying again, must not run on it.
        handlers.disarm(view, method)
        raise


def _check_gated(request: Request, view: APIView, method: str, by_policy_only: bool) -> bool:
    if gated.is_probe(request, view):
        return _answer_probe(view, method)
    if not gated.is_implemented(view, method):
        return _answer_unimplemented(request, view, method, by_policy_only)
    if _remembered(request, view, by_policy_only):
        return True
    if vars(request).get(_DECIDING) is view:
        handlers.disarm(view, method)  # until the outer question is answered
        return True
    with online.answered(request, view):
        return _decide(request, view, method, by_policy_only)


def _answer_probe(view: APIView, method: str) -> bool:
    """Say yes to "may I show a form?", and make sure that nothing can run on that answer."""
    handlers.disarm(view, method)
    return method not in ("GET", "HEAD")  # AdminRenderer calls `view.get()` right after it asked


def _answer_unimplemented(
    request: Request, view: APIView, method: str, by_policy_only: bool
) -> bool:
    """Let DRF answer 405. A view that does its work there instead does it only where no policy names it."""
    if by_policy_only and gated.is_catch_all(view):
        with _closed_on_error():
            _ensure_no_replay(request)
            if _only_observed(policies.named(gated.action_label(view, method))):
                handlers.let_through(request, view, method)
                return True
    handlers.disarm_all(view)
    return True


def _decide(request: Request, view: APIView, method: str, by_policy_only: bool) -> bool:
    with _closed_on_error():
        action = gated.action_label(view, method)
        candidates = policies.named(action) if by_policy_only else None
        is_replay = replays.unspent(request._request) is not None
        if candidates is not None and not is_replay and _only_observed(candidates):
            _watch(request, view, action, method, candidates)
            vars(request)[_UNNAMED] = _key(request, view)
            handlers.let_through(request, view, method)
            return True
        _ensure_outside_transactions()
        with _deciding(request, view):
            _let_others_refuse_first(request, view)
            _ensure_principal(request, view)
            handlers.ensure_sync(view, method)
            try:
                obj = _load_object(view)
            except Http404:
                _answer_if_used(request, view, action, method)
                raise
        call = capture(request, view, action=action, method=method, obj=obj)
        attempt = Attempt(request, call, candidates)
        grant = attempt.settle()
    vars(request)[_VERDICT if attempt.is_named else _UNNAMED] = _key(request, view)
    if grant is None:
        handlers.let_through(request, view, method)
    else:
        handlers.arm(request, view, method, grant)
    return True


def _ensure_no_replay(request: Request) -> None:
    """Refuse what the server makes itself where nothing asks for its approval: the project has changed since."""
    ticket = replays.unspent(request._request)
    if ticket is not None:
        ticket.refused = "such calls are not gated any more"
        raise problems.unavailable("The server runs approved calls only.")


def _only_observed(candidates: list[ApprovalPolicy]) -> bool:
    """Tell whether none of the policies could be in the call's way."""
    return all(policy.effect == Effect.OBSERVE for policy in candidates)


def _watch(
    request: Request, view: APIView, action: str, method: str, candidates: list[ApprovalPolicy]
) -> None:
    """Record what shadow policies would have done. They are never in the way: what fails is logged."""
    if not candidates:
        return
    with _deciding(request, view):
        _let_others_refuse_first(request, view)
        if not _is_principal(request.user) or not _is_readable(request):
            return
        try:
            obj = _load_object(view)
            call = capture(request, view, action=action, method=method, obj=obj)
            found = policies.choose(candidates, call.facts, or_default=False)
            verdicts.observe(call, found)
        except Exception:
            logger.exception("A call of %s could not be observed; it runs all the same.", action)


def _is_readable(request: Request) -> bool:
    """Tell whether the body can be bound. What parsing it raises is raised: the view must meet it too.

    DRF takes a body whose parsing failed for an empty one, and the view would run on that.
    """
    try:
        body.read(request)
    except ApprovalError as error:
        parsed = vars(request)["_data"] is not Empty
        if error.__context__ is not None and parsed:
            raise
        logger.warning("A call could not be observed, for its body cannot be bound: %s", error)
        return False
    return True


@contextmanager
def _closed_on_error() -> Iterator[None]:
    """Turn what went wrong before the handler started into an answer that says that nothing ran."""
    try:
        yield
    except NotDurable as error:
        logger.error("A gated call was refused: %s See docs/deploy.md, ATOMIC_REQUESTS.", error)
        raise problems.unavailable() from error
    except ApprovalError as error:
        raise problems.from_error(error) from error
    except Error as error:
        logger.exception("A gated call was refused: the database failed.")
        raise problems.unavailable() from error


# --- before the call is looked at ------------------------------------------------------------------------


def _ensure_outside_transactions() -> None:
    """Refuse to decide inside a transaction that a later error, or DRF's set_rollback(), undoes."""
    services.ensure_durable(policies.database())
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"]:
            services.ensure_durable(connection.alias)


def _let_others_refuse_first(request: Request, view: APIView) -> None:
    """Ask the permissions that DRF has not asked yet, then the throttles, which it asks too late."""
    for permission in _not_asked_yet(view):
        if not permission.has_permission(request, view):
            view.permission_denied(
                request,
                message=getattr(permission, "message", None),
                code=getattr(permission, "code", None),
            )
    if not repeating.is_repeat(request._request):  # the client has sent it once
        view.check_throttles(request)
    view.check_throttles = lambda request: None  # type: ignore[method-assign]


def _not_asked_yet(view: APIView) -> list[Any]:
    """Return the other permissions: those after the gate, or all where the view asks in its own way."""
    permissions = view.get_permissions()
    for permission in permissions:
        gated.ensure_not_composed(permission, view)
    gates = [isinstance(permission, RequiresApproval) for permission in permissions]
    stock = getattr(view.check_permissions, "__func__", None) is APIView.check_permissions
    first = gates.index(True) if stock and True in gates else 0
    return [
        permission
        for permission, is_gate in list(zip(permissions, gates, strict=True))[first:]
        if not is_gate
    ]


def _ensure_principal(request: Request, view: APIView) -> None:
    """Refuse callers to whom an approval could not be tied."""
    user = request.user
    if not getattr(user, "is_authenticated", False):
        view.permission_denied(request)
    if not _is_principal(user):
        raise PermissionDenied("A held call needs a user account behind it.")


def _is_principal(user: Any) -> bool:
    known = isinstance(user, get_user_model()) and user.pk is not None and not user._state.adding
    return known and user.is_active


@contextmanager
def _deciding(request: Request, view: APIView) -> Iterator[None]:
    """Mark the request: a permission, or `get_object()`, may ask the gate again about the same view."""
    vars(request)[_DECIDING] = view
    try:
        yield
    finally:
        del vars(request)[_DECIDING]


def _load_object(view: APIView) -> Any:
    """Load the object once, so that what is not there, or not the caller's, never reaches an approver.

    In a transaction that is rolled back: looking must leave no trace, and `select_for_update` needs one.
    """
    if not gated.is_detail(view):
        return None
    with _rolled_back(_object_database(view)):
        return view.get_object()  # type: ignore[attr-defined]


def _answer_if_used(request: Request, view: APIView, action: str, method: str) -> None:
    """Say `approval_consumed` to the repeat of a call that removed its own object: its answer was lost.

    Only where the call names that request, carries the Idempotency-Key it was made with, or the server ran it.
    """
    if replays.unspent(request._request) is not None:
        return
    named = named_id(request)
    where = {"requester": request.user.pk, "status": Status.CONSUMED, "action": action}
    rows = services.find(where, tail="ORDER BY created_at DESC LIMIT 20")
    meant = [row for row in rows if _is_meant(row, named)]
    if not meant:
        return
    present = parts_without_object(request, view, action=action, method=method)
    for row in meant:
        if fingerprint.differing(row.parts, present) == ["object"]:
            raise problems.over(row)


def _is_meant(row: ApprovalRequest, named: UUID | None) -> bool:
    if named is not None:
        return row.pk == named
    return row.idempotent or problems.has_answer(row)


def _object_database(view: APIView) -> str:
    queryset = getattr(view, "queryset", None)
    if queryset is None:
        return policies.database()
    return queryset._db or router.db_for_write(queryset.model)


@contextmanager
def _rolled_back(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        yield
        transaction.set_rollback(True, using=alias)


def _key(request: Request, view: APIView) -> tuple[Any, ...]:
    return (
        view,
        request.method,
        tuple(getattr(view, "args", ())),
        dict(getattr(view, "kwargs", {})),
    )


def _remembered(request: Request, view: APIView, by_policy_only: bool) -> bool:
    """Tell whether this DRF Request was let through for this view and object already.

    Not kept on the HttpRequest, which an approved outer view hands to an inner one; nor on the view, which a
    batch sends many requests through.
    """
    key, known = _key(request, view), vars(request)
    return known.get(_VERDICT) == key or (by_policy_only and known.get(_UNNAMED) == key)
