"""A function's call as data: its arguments with their types, what is shown of them, what conditions ask about."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from django.db import models
from django.utils import timezone

from jit_approval import capture, conf, facts, fingerprint, policies, redaction
from jit_approval.calls import Call, Shown
from jit_approval.exceptions import UnbindableCall
from jit_approval.fingerprint import canonical_json

METHOD = "CALL"


def call_of(
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
    """Return the call as what is bound, shown and asked about.

    Raises:
        UnbindableCall: an argument that cannot be bound, or a row that is not there.
    """
    headers = {"agent": agent, "idempotency-key": idempotency_key}
    obj = None if obj is None else fresh(obj)
    about = None if obj is None else capture.identity(obj)
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
        found = capture.object_state(None, fresh(value))
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


def fresh(obj: models.Model) -> models.Model:
    """Return the row as it is now: what is in memory may be old.

    Raises:
        UnbindableCall: it is not there; or is not what is in memory, which the function would get, and nobody saw.
    """
    rows = type(obj)._base_manager.using(obj._state.db or policies.database())
    found = rows.filter(pk=obj.pk).first()
    if found is None:
        raise UnbindableCall("The row that the call is about does not exist.")
    if names := _differing(obj, found):
        raise UnbindableCall(
            f"In memory the {obj._meta.verbose_name} is not as in the database: {', '.join(names)}. "
            "Save it or read it again, and call anew."
        )
    return found


def _differing(obj: models.Model, found: models.Model) -> list[str]:
    """Return the fields whose values, as far as they are loaded, are others than the database's."""
    loaded = [field for field in obj._meta.concrete_fields if field.attname in vars(obj)]
    return [field.name for field in loaded if not _is_same(field, obj, found)]


def _is_same(field: Any, obj: models.Model, found: models.Model) -> bool:
    value, saved = getattr(obj, field.attname), getattr(found, field.attname)
    try:
        # "10.00" where the database gives Decimal(10) is the same.
        return bool(value == saved or field.to_python(value) == saved)
    except Exception:
        return False
