"""The gate before plain functions, tasks and management commands: the same requests, deciders and trail.

```python
with guard("billing.close_year", {"year": 2026}, by=user, reason="audit is done"):
    close_year(2026)
```

Held, it raises `CallHeld` and the block does not run; once approved, the identical call runs it, once.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from types import SimpleNamespace, TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, models

from jit_approval import policies, problems, refusals, services
from jit_approval.arguments import call_of
from jit_approval.attempt import Attempt
from jit_approval.calls import Call, Terms
from jit_approval.exceptions import CallHeld, CallRefused, UnbindableCall
from jit_approval.models import ApprovalRequest
from jit_approval.states import Execution, Outcome

__all__ = ["CallHeld", "CallRefused", "Grant", "guard", "guarded"]

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def guard(
    action: str,
    args: Mapping[str, Any] | None = None,
    *,
    by: Any,
    reason: str = "",
    obj: models.Model | None = None,
    context: Mapping[str, Any] | None = None,
    version: Callable[[Any], Any] | None = None,
    approval_id: UUID | str | None = None,
    idempotency_key: str = "",
    agent: str = "",
    by_policy: bool = False,
) -> Grant:
    """Return when this very call, by this user, may run now, once; what is returned records how it ended.

    Args:
        action: its label, as policies name it.
        args: what it is called with, by name: JSON, numbers, dates, UUIDs, enums and rows of models.
        by: the user who asks; an active row of the user model.
        reason: why, for who decides.
        obj: the row it is about. It is read anew, and if it changes after the approval, that is void.
        context: what who decides should know besides; bound like the row.
        version: what of `obj` must not change, instead of all its fields.
        approval_id: the request that is meant, to be told what became of it.
        idempotency_key: bound; a call that ran under it is not held again.
        agent: who acts for the user: a claim, shown as one.
        by_policy: let pass what no policy names, instead of holding it on the terms of the settings.

    Raises:
        CallHeld: it waits for approval. Nothing ran.
        CallRefused: it was rejected, or is over, or ran before; `code` says which. Nothing ran.
        ApprovalDenied, ApprovalUnavailable, ReasonRequired, TooManyPending, UnbindableCall: as they say.
        NotDurable: this is inside a transaction, which could undo what is promised.
    """
    services.ensure_durable(policies.database())
    _ensure_principal(by)
    call = call_of(
        action,
        _by_name(args),
        by=by,
        reason=reason,
        obj=obj,
        context=dict(context or {}),
        version=version,
        idempotency_key=idempotency_key,
        agent=agent,
    )
    return Grant(_settle(call, approval_id, by_policy=by_policy))


def _by_name(args: Mapping[str, Any] | None) -> dict[str, Any]:
    if args is not None and not isinstance(args, Mapping):
        # Pairs may name one thing twice, of which a dict keeps the last.
        raise UnbindableCall("The arguments of a guarded call are a mapping of names to values.")
    return dict(args or {})


def _settle(
    call: Call, approval_id: UUID | str | None, *, by_policy: bool
) -> ApprovalRequest | None:
    """Return the approval that was spent for the call, None where it needs none; else raise."""
    try:
        candidates = policies.named(call.action) if by_policy else None
        return _Attempt(call, candidates, _uuid(approval_id)).settle()
    except refusals.Problem as problem:
        _refuse(problem)
    except Error as error:
        logger.exception("A guarded call was refused: the database failed.")
        _refuse(problems.unavailable(), error)


def _refuse(problem: refusals.Problem, cause: Exception | None = None) -> NoReturn:
    """Raise what an HTTP call would have been answered."""
    detail = str(problem.body["detail"])
    if problem.code == "approval_pending":
        raise CallHeld(detail, approval_id=problem.body["approval_id"]) from cause
    raise CallRefused(detail, problem=problem.body) from cause


class Grant:
    """Leave to run a call, once: a context manager that records how it ended. Spent when it was made.

    `approval_request` is None where a policy lets the call run without asking.
    """

    def __init__(self, approval_request: ApprovalRequest | None) -> None:
        """Begin; without a `with` the outcome becomes `unknown` after the run limit."""
        self.approval_request = approval_request
        self._began: float | None = None

    def __enter__(self) -> Self:
        """Begin the one run.

        Raises:
            RuntimeError: it has begun before.
        """
        if self._began is not None:
            raise RuntimeError("An approval is for one run.")
        self._began = monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Record the outcome; what was raised is raised."""
        if self.approval_request is None:
            return
        outcome = Outcome.SUCCEEDED if error is None else Outcome.FAILED
        if error is not None and not isinstance(error, Exception):
            outcome = Outcome.UNKNOWN  # stopped midway: nobody can tell what was done
        try:
            services.record_outcome(
                self.approval_request,
                outcome=outcome,
                exception="" if kind is None else f"{kind.__module__}.{kind.__qualname__}",
                elapsed=timedelta(seconds=monotonic() - (self._began or 0.0)),
            )
        except Exception:
            # It has run: it stays `running` until the sweeper calls it `unknown`.
            logger.exception("The outcome of %s could not be recorded.", self.approval_request.pk)


def guarded(
    action: str = "", *, by: str = "by", obj: str = "", **options: Any
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Hold each call of a function: `@guarded("billing.close_year")` on `def close_year(year, *, by)`.

    `by` names the parameter with the user, `obj` that with the row it is about; all others are bound as arguments.
    Callers may add `approval_reason=` and `approval_id=`. Further options are those of `guard`.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        label = action or f"{function.__module__}.{function.__qualname__}"
        signature = inspect.signature(function)
        _ensure_plain(function, signature, {by, *filter(None, [obj])})

        @functools.wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            reason = str(kwargs.pop("approval_reason", ""))
            named: Any = kwargs.pop("approval_id", None)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            user, about = given.pop(by), given.pop(obj, None) if obj else None
            with guard(
                label, given, by=user, obj=about, reason=reason, approval_id=named, **options
            ):
                return function(*args, **kwargs)

        return run

    return decorate


def _ensure_plain(function: Any, signature: inspect.Signature, names: set[str]) -> None:
    """Refuse what would run after its grant's record is closed, and names that lead nowhere."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ImproperlyConfigured(f"{function.__qualname__}: guarded functions must not be async.")
    if inspect.isgeneratorfunction(function):
        raise ImproperlyConfigured(
            f"{function.__qualname__}: guarded functions must not be generators."
        )
    missing = names - signature.parameters.keys()
    if missing:
        raise ImproperlyConfigured(
            f"{function.__qualname__} has no parameter {', '.join(sorted(missing))}."
        )


class _Attempt(Attempt):
    """An attempt that came by no HTTP request: nothing of one is looked at, and the caller runs it."""

    def __init__(self, call: Call, candidates: Any, named: UUID | None) -> None:
        http: Any = SimpleNamespace(META={})
        super().__init__(SimpleNamespace(_request=http, META={}), call, candidates)  # type: ignore[arg-type]
        self.named = named

    def _keep(self, terms: Terms) -> tuple[Terms, None, str]:
        """Leave the call to its caller: the server runs no functions, whatever the policy says."""
        return replace(terms, execution=Execution.CALLER.value), None, ""


def _ensure_principal(by: Any) -> None:
    users = get_user_model()
    known = isinstance(by, users) and by.pk is not None
    rows = users._base_manager.using(policies.database())
    if not (known and rows.filter(pk=by.pk, is_active=True).exists()):
        raise CallRefused(
            "A held call needs an active user account behind it.",
            problem={"code": "not_the_requester"},
        )


def _uuid(approval_id: UUID | str | None) -> UUID | None:
    try:
        return UUID(str(approval_id)) if approval_id is not None else None
    except ValueError:
        raise problems.not_found() from None
