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
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from time import monotonic
from types import SimpleNamespace, TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, models
from django.utils import timezone

from jit_approval import capture, conf, facts, fingerprint, policies, problems, redaction, services
from jit_approval.attempt import Attempt
from jit_approval.calls import Call, Shown
from jit_approval.exceptions import CallHeld, CallRefused, UnbindableCall
from jit_approval.fingerprint import canonical_json
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome

__all__ = ["CallHeld", "CallRefused", "Grant", "guard", "guarded"]

logger = logging.getLogger(__name__)

METHOD = "CALL"
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
    call = _call(
        action,
        dict(args or {}),
        by=by,
        reason=reason,
        obj=None if obj is None else _fresh(obj),
        context=dict(context or {}),
        version=version,
        idempotency_key=idempotency_key,
        agent=agent,
    )
    try:
        candidates = policies.named(action) if by_policy else None
        return Grant(_Attempt(call, candidates, _uuid(approval_id)).settle())
    except problems.Problem as problem:
        _refuse(problem)
    except Error as error:
        logger.exception("A guarded call was refused: the database failed.")
        _refuse(problems.unavailable(), error)


def _refuse(problem: problems.Problem, cause: Exception | None = None) -> NoReturn:
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
        http: Any = SimpleNamespace(META={}, resolver_match=None)
        super().__init__(SimpleNamespace(_request=http, META={}), call, candidates)  # type: ignore[arg-type]
        self.named = named

    def _held(self, row: ApprovalRequest, now: datetime, detail: str = "") -> problems.Problem:
        """Return the answer; why the server cannot run it is no news: it never runs functions."""
        return problems.held(row, now=now)


# --- the call as data --------------------------------------------------------------------------------------


def _call(
    action: str,
    args: dict[str, Any],
    *,
    by: Any,
    reason: str,
    obj: models.Model | None,
    context: dict[str, Any],
    version: Callable[[Any], Any] | None,
    idempotency_key: str,
    agent: str,
) -> Call:
    about = None if obj is None else capture.identity(obj)
    headers = {"agent": agent, "idempotency-key": idempotency_key}
    fields: dict[str, bytes | None] = dict.fromkeys(fingerprint.CALL_FIELDS) | {
        "method": METHOD.encode(),
        "action": action.encode(),
        "kwargs": canonical_json(_bindable(args)),
        "headers": canonical_json({name: text for name, text in headers.items() if text}),
        "requester": canonical_json([by._meta.label_lower, str(by.pk)]),
        "object": None if about is None else canonical_json(about),
    }
    state = {
        **capture.object_state(version, obj),
        **capture.context_state(context),
        **_state_of_rows(args),
    }
    return Call(
        action=action,
        requester=by,
        persons=(policies.person_of(by),),
        credential="",
        bound=fingerprint.bind(
            fields, state, key=conf.get().fingerprint_key, domain=fingerprint.FUNCTION
        ),
        shown=_shown(action, args, about, obj, context, reason, agent),
        idempotent=bool(idempotency_key),
        facts=functools.cache(lambda: _facts(action, args, by, context, agent)),
    )


def _shown(
    action: str,
    args: dict[str, Any],
    about: list[str] | None,
    obj: models.Model | None,
    context: dict[str, Any],
    reason: str,
    agent: str,
) -> Shown:
    config = conf.get()
    if len(reason) > config.MAX_REASON_LENGTH or len(agent) > 200:
        raise UnbindableCall(
            f"A reason has at most {config.MAX_REASON_LENGTH} characters, an agent 200."
        )
    payload, cut = "", False
    if args:
        payload, cut = redaction.as_text(
            _readable(args), extra=config.REDACT_KEYS, limit=config.MAX_PREVIEW_CHARS
        )
    model, pk = about or ("", "")
    return Shown(
        method=METHOD,
        path=redaction.visible(action),
        object_label=capture.label(obj),
        object_model=model[:200],
        object_pk=redaction.visible(pk)[:200],
        payload=payload,
        payload_truncated=cut,
        context=redaction.storable(redaction.redact(context, config.REDACT_KEYS)),
        reason=redaction.visible(reason.strip()),
        agent=redaction.visible(agent)[:200],
    )


def _facts(
    action: str, args: dict[str, Any], by: Any, context: dict[str, Any], agent: str
) -> dict[str, Any]:
    return {
        "action": action,
        "agent": agent,
        "request": {
            "method": METHOD,
            "path": "",
            "query": {},
            "data": _readable(args),
            "ip": "",
            "headers": {},
            "agent": "",
        },
        "user": facts.of_user(by),
        "object": context,
        "now": timezone.now(),
    }


_AS_TEXT = (date, time, datetime, timedelta, Decimal, UUID)


def _bindable(value: Any) -> Any:
    """Return a value with its type: `5`, `"5"` and `Decimal(5)` are three different calls.

    Raises:
        UnbindableCall: of such a value nobody can tell whether it is the same in another process.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return ["enum", type(value).__module__, type(value).__qualname__, value.name]
    if type(value) in (int, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return ["float", repr(float(value))]
    if isinstance(value, str | int):  # SafeString, IntEnum's like
        return [type(value).__qualname__, str(value)]
    if isinstance(value, _AS_TEXT):
        return [type(value).__name__, repr(value) if isinstance(value, timedelta) else str(value)]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    return _bindable_container(value)


def _bindable_container(value: Any) -> Any:
    if isinstance(value, models.Model):
        if value.pk is None:
            raise UnbindableCall("A row that was never saved cannot be bound.")
        return ["row", *capture.identity(value)]
    if isinstance(value, list | tuple):
        return ["list", [_bindable(each) for each in value]]
    if isinstance(value, set | frozenset):
        return ["set", sorted((_bindable(each) for each in value), key=canonical_json)]
    if isinstance(value, Mapping) and all(type(name) is str for name in value):
        return {name: _bindable(each) for name, each in value.items()}
    raise UnbindableCall(f"A {type(value).__name__} among the arguments cannot be bound.")


def _state_of_rows(value: Any) -> dict[str, bytes | None]:
    """Return the fields of every row among the arguments, as they are now: who decides saw them so."""
    if isinstance(value, models.Model):
        name = " ".join(capture.identity(value))
        found = capture.object_state(None, _fresh(value))
        return {f"{name}.{field}": digest for field, digest in found.items()}
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple | set | frozenset):
        return {}
    return {name: digest for each in value for name, digest in _state_of_rows(each).items()}


def _readable(value: Any) -> Any:
    """Return a value for who decides, and for conditions: rows by their name and key."""
    if isinstance(value, models.Model):
        return f"{capture.label(value)} ({' '.join(capture.identity(value))})"
    if isinstance(value, Mapping):
        return {name: _readable(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_readable(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def _fresh(obj: models.Model) -> models.Model:
    """Return the row as it is now: what is in memory may be old."""
    rows = type(obj)._base_manager.using(obj._state.db or policies.database())
    found = rows.filter(pk=obj.pk).first()
    if found is None:
        raise UnbindableCall("The row that the call is about does not exist.")
    return found


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
