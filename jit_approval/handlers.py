"""The handler on the view instance: wrapped to record what became of a run, or disarmed after a probe."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import timedelta
from time import monotonic
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import Http404
from django.http.response import HttpResponseBase
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.views import APIView

from jit_approval import gated, problems, refusals, replays, services
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome

logger = logging.getLogger(__name__)

ATOMIC_MARK = "_jit_approval_atomic"
"""On a callback: the aliases whose ATOMIC_REQUESTS the gate takes over (see `middleware`)."""

_ORIGINAL = "_jit_approval_original"

Handler = Callable[..., Any]


def disarm(view: APIView, method: str) -> None:
    """Make sure that a probe that turns out to be a call, or a refusal that is swallowed, runs nothing."""
    refusals.answer_in(view)

    def refuse(handler: Handler, *args: Any, **kwargs: Any) -> Any:
        raise problems.unavailable("The gate was asked and has not let this call through.")

    _replace(view, method, refuse)


def disarm_all(view: APIView) -> None:
    """Disarm every gated handler: a method nobody implements must not end in one that somebody does."""
    for name in view.http_method_names:
        if gated.is_gated(view, name.upper()):
            disarm(view, name)
    if gated.is_catch_all(view):
        stock = functools.partial(APIView.http_method_not_allowed, view)
        view.http_method_not_allowed = stock  # type: ignore[method-assign]


def let_through(request: Request, view: APIView, method: str) -> None:
    """Let a call run that needs no grant."""
    _guard_others(view, method)
    _keep_atomic(request, view, method)


def _guard_others(view: APIView, method: str) -> None:
    """Where the view may change the method after the gate was asked, refuse what it was not asked about."""
    if type(view).initial is APIView.initial and type(view).dispatch is APIView.dispatch:
        return
    refusals.answer_in(view)

    def only_as_a_part(other: str, handler: Handler, request: Any, *args: Any, **kw: Any) -> Any:
        if gated.effective_method(request) == other:
            raise problems.unavailable("The method was changed after the gate was asked.")
        return handler(request, *args, **kw)

    for other in {name.upper() for name in view.http_method_names} - {method}:
        if gated.is_gated(view, other):
            _replace(view, other, functools.partial(only_as_a_part, other))


def _replace(view: APIView, method: str, wrapper: Callable[..., Any]) -> None:
    """Put `wrapper(handler, …)` in place of the method's handler, under all its names on the instance."""
    for name in {method.lower(), gated.action_of(view, method)}:
        # The view's own, not what an earlier answer of the gate put there.
        handler = getattr(view, name, None)
        handler = getattr(handler, _ORIGINAL, handler)
        if handler is not None:
            wrapped = functools.wraps(handler)(functools.partial(wrapper, handler))
            setattr(wrapped, _ORIGINAL, handler)
            setattr(view, name, wrapped)


def ensure_sync(view: APIView, method: str) -> None:
    """Refuse async handlers: DRF does not await them, so nothing would run on a spent approval.

    Raises:
        ImproperlyConfigured: with what to change.
    """
    handler = getattr(view, method.lower(), None)
    handler = getattr(handler, _ORIGINAL, handler)
    if any(inspect.iscoroutinefunction(function) for function in (handler, *_wrapped(handler))):
        raise ImproperlyConfigured(f"{type(view).__name__}: gated handlers must not be async.")


def _wrapped(handler: Any) -> list[Any]:
    """Return what `@api_view` hides in the closure of its sync wrapper."""
    function = getattr(handler, "__func__", handler)
    if getattr(function, "__module__", "") != "rest_framework.decorators":
        return []
    return [cell.cell_contents for cell in function.__closure__ or ()]


def _keep_atomic(request: Request, view: APIView, method: str) -> None:
    """Give a handler that runs without a grant the transactions its callback was freed of."""
    aliases = _atomic_aliases(request)
    if not aliases:
        return
    name = method.lower()
    handler = getattr(view, name, None)
    if handler is None:
        return

    @functools.wraps(handler)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _atomic(aliases):
            return handler(*args, **kwargs)

    setattr(view, name, run)


def _atomic_aliases(request: Request) -> Iterable[str]:
    match = request._request.resolver_match
    return getattr(match.func, ATOMIC_MARK, ()) if match else ()


def _atomic(aliases: Iterable[str]) -> ExitStack:
    stack = ExitStack()
    for alias in aliases:
        stack.enter_context(transaction.atomic(using=alias))
    return stack


def arm(request: Request, view: APIView, method: str, grant: ApprovalRequest) -> None:
    """Wrap the handler so that the grant's run is recorded, and name the grant on the response."""
    _guard_others(view, method)
    _replace(view, method, Run(grant, request, view, _atomic_aliases(request)))
    view.headers["Approval-Id"] = str(grant.pk)
    view.headers["Approval-Status"] = str(grant.status)


class Run:
    """One run of a handler on one grant."""

    def __init__(
        self, grant: ApprovalRequest, request: Request, view: APIView, aliases: Iterable[str]
    ) -> None:
        self.view = view
        self.grant = grant
        self.request = request
        self.bound = (tuple(view.args), dict(view.kwargs))
        self.aliases = tuple(aliases)
        self.started = 0.0
        self.running = False

    def __call__(self, handler: Handler, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Run the handler, once, with what was approved, and record the outcome."""
        if self.running:
            return handler(request, *args, **kwargs)  # it calls itself: a part of the one run
        if self.started or request is not self.request or (args, kwargs) != self.bound:
            refusals.answer_in(self.view)
            raise problems.unavailable("The approval covers one run of another call than this.")
        self.started, self.running = monotonic(), True
        returned = False
        try:
            with _atomic(self.aliases):
                response = handler(request, *args, **kwargs)
                returned = True
                self.running = False
        except BaseException as error:
            # Returned and yet raised: the commit failed, or seemed to. SystemExit and the like stop the
            # process midway. In both cases nobody can tell what was done.
            known = isinstance(error, Exception) and not returned
            self.running = False
            self._record(*(_failure(error) if known else (Outcome.UNKNOWN, None)), error)
            raise
        self._record(*_result(response))
        return response

    def _record(
        self, outcome: Outcome, status: int | None, error: BaseException | None = None
    ) -> None:
        elapsed = timedelta(seconds=monotonic() - self.started)
        name = "" if error is None else _class_name(error)
        ticket = replays.of(self.request._request)
        if ticket is not None and ticket.approval_id == self.grant.pk:
            # Written down with the answer, once there is one.
            ticket.ended = replays.Ended(outcome, status, name, elapsed)
            return
        try:
            services.record_outcome(
                self.grant,
                outcome=outcome,
                response_status=status,
                exception=name,
                elapsed=elapsed,
            )
        except Exception:
            # The call has run: it stays `running` until the sweeper calls it `unknown`.
            logger.exception("The outcome of %s could not be recorded.", self.grant.pk)


def _failure(error: BaseException) -> tuple[Outcome, int | None]:
    if isinstance(error, Http404):
        return Outcome.FAILED, 404
    return Outcome.FAILED, error.status_code if isinstance(error, APIException) else None


def _result(response: Any) -> tuple[Outcome, int | None]:
    if not isinstance(response, HttpResponseBase):
        return Outcome.UNKNOWN, None
    failed = response.status_code >= 400
    return (Outcome.FAILED if failed else Outcome.SUCCEEDED), response.status_code


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"
