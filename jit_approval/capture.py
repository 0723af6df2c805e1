"""An HTTP call as data: who makes it, what is bound, what is shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from django.contrib.auth import BACKEND_SESSION_KEY
from django.db import models
from django.http import HttpRequest
from django.utils import timezone, translation
from django.utils.module_loading import import_string
from rest_framework.request import Request
from rest_framework.views import APIView

from jit_approval import addresses, agents, body, conf, facts, fingerprint, policies, redaction
from jit_approval.calls import Call, Origin, Shown
from jit_approval.exceptions import UnbindableCall
from jit_approval.fingerprint import canonical_json

logger = logging.getLogger(__name__)

_BOUND_HEADERS = ("Idempotency-Key", "If-Match")
_SHOWN_LENGTH = 200


def capture(request: Request, view: APIView, *, action: str, method: str, obj: Any) -> Call:
    """Return the live call as data. The body has been read; the view will not notice.

    Raises:
        UnbindableCall and what `body.read` raises: nobody could approve exactly this call.
    """
    content = body.read(request)
    context = _context(request, view, obj)
    fields = _fields(request, view, action=action, method=method, obj=obj, content=content)
    version_of = getattr(view, "get_approval_object_version", None)
    state = {**object_state(version_of, obj), **context_state(context)}
    bound = fingerprint.bind(fields, state, key=conf.get().fingerprint_key)
    user = request.user
    return Call(
        action=action,
        requester=user,
        persons=_persons(request),
        credential=_credential(request),
        bound=bound,
        shown=_shown(request, method, obj, content, context),
        idempotent=bool(request.META.get("HTTP_IDEMPOTENCY_KEY", "").strip()),
        facts=facts.of_call(
            request, action=action, method=method, data=content.data, context=context
        ),
    )


def parts_without_object(
    request: Request, view: APIView, *, action: str, method: str
) -> Mapping[str, str]:
    """Return the digests of the call's parts, for a call whose object is not there to be loaded."""
    content = body.read(request)
    fields = _fields(request, view, action=action, method=method, obj=None, content=content)
    return fingerprint.bind(fields, {}, key=conf.get().fingerprint_key).parts


# --- bound -----------------------------------------------------------------------------------------------


def _fields(
    request: Request,
    view: APIView,
    *,
    action: str,
    method: str,
    obj: Any,
    content: body.Body,
) -> dict[str, bytes | None]:
    http = request._request
    match = http.resolver_match
    host = conf.get().BIND_HOST
    user: Any = request.user
    scope = getattr(view, "get_approval_scope", None)
    return {
        "method": method.encode(),
        "action": action.encode(),
        "scheme": (http.scheme or "").encode() if host else None,
        "host": http.get_host().encode() if host else None,
        "route": match.route.encode() if match else None,
        "kwargs": canonical_json([getattr(view, "args", ()), getattr(view, "kwargs", {})]),
        "path": _raw_path(http),
        "query": _raw_query(http),
        "version": None if request.version is None else str(request.version).encode(),
        "media_type": content.media_type,
        "body": content.digest,
        "headers": canonical_json({**_bound_headers(http.META), **agents.bound(request)}),
        "language": (translation.get_language() or "").encode(),
        "time_zone": timezone.get_current_timezone_name().encode(),
        "requester": canonical_json([user._meta.label_lower, str(user.pk)]),
        "credential": _credential(request).encode(),
        "scope": canonical_json(scope(request)) if scope else None,
        "object": canonical_json(identity(obj)) if obj is not None else None,
    }


def _raw_path(http: Any) -> bytes:
    """Return the path as the client sent it, where the server tells: decoded, two can look the same."""
    raw = getattr(http, "scope", {}).get("raw_path")
    if raw is not None:
        return bytes(raw)
    # gunicorn says RAW_URI, uWSGI and mod_wsgi REQUEST_URI; a header could not set either.
    uri = http.META.get("RAW_URI") or http.META.get("REQUEST_URI")
    if uri:
        return agents.wsgi_bytes(uri.partition("?")[0])
    return str(http.path).encode("utf-8", "surrogatepass")


def _raw_query(http: Any) -> bytes:
    raw = getattr(http, "scope", {}).get("query_string")
    return (
        bytes(raw)
        if isinstance(raw, bytes)
        else agents.wsgi_bytes(http.META.get("QUERY_STRING", ""))
    )


def _bound_headers(meta: Mapping[str, Any]) -> dict[str, Any]:
    names = (*_BOUND_HEADERS, *conf.get().BOUND_HEADERS)
    return {name.lower(): meta.get("HTTP_" + name.upper().replace("-", "_")) for name in names}


def _credential(request: Request) -> str:
    """Return the class of the authenticator: an approval given to a session is no good to a token."""
    authenticator = request.successful_authenticator
    kind = type(authenticator)
    return f"{kind.__module__}.{kind.__qualname__}" if authenticator is not None else ""


def origin_of(request: Request | HttpRequest) -> Origin:
    """Return where a decision came from, for the record: of a page, the backend that the session logged in by."""
    if isinstance(request, Request):
        credential = _credential(request)
    else:
        session = getattr(request, "session", {})
        credential = str(session.get(BACKEND_SESSION_KEY, ""))
    return Origin(
        credential[:200],
        redaction.visible(addresses.client_address(request.META))[:64],
        redaction.visible(request.META.get("HTTP_USER_AGENT", ""))[:300],
    )


def _persons(request: Request) -> tuple[str, ...]:
    """Return everyone who stands behind the call, the account's own person first."""
    path = conf.get().REQUEST_PERSONS
    further = import_string(path)(request) if path else ()
    return tuple(dict.fromkeys([policies.person_of(request.user), *map(str, further)]))


def identity(obj: Any) -> list[str]:
    """Return what names the object: its model, or class, and its key."""
    if isinstance(obj, models.Model):
        return [obj._meta.label_lower, str(obj.pk)]
    kind = type(obj)
    return [f"{kind.__module__}.{kind.__qualname__}", str(getattr(obj, "pk", ""))]


def object_state(version_of: Callable[[Any], Any] | None, obj: Any) -> dict[str, bytes | None]:
    """Return the version of the object: what `version_of` says it is, else all its concrete fields."""
    if version_of is not None:
        version = version_of(obj)
        if isinstance(version, Mapping):
            return {str(name): _stable(value) for name, value in version.items()}
        return {} if version is None else {"version": _stable(version)}
    if not isinstance(obj, models.Model):
        return {}
    return {
        field.name: _stable(field.value_from_object(obj)) for field in obj._meta.concrete_fields
    }


def context_state(context: Mapping[str, Any]) -> dict[str, bytes | None]:
    """Return what the application said of the call, as a part of the state."""
    return {f"context.{name}": _stable(value) for name, value in context.items()}


def _stable(value: Any) -> bytes | None:
    """Return bytes that are the same for the same stored value, whichever process reads it."""
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return b"bytes:" + bytes(value)
    if isinstance(value, datetime) and timezone.is_aware(value):
        value = value.astimezone(UTC)
    return canonical_json(value)


# --- shown -----------------------------------------------------------------------------------------------


def _context(request: Request, view: APIView, obj: Any) -> dict[str, Any]:
    context_of = getattr(view, "get_approval_context", None)
    context = context_of(request, obj) if context_of else {}
    if not isinstance(context, Mapping):
        raise TypeError("get_approval_context must return a mapping of names to values")
    return dict(context)


def _shown(
    request: Request, method: str, obj: Any, content: body.Body, context: Mapping[str, Any]
) -> Shown:
    config = conf.get()
    agent = agents.of(request)
    model, pk = identity(obj) if obj is not None else ("", "")
    payload, cut = "", False
    if not content.is_empty:
        payload, cut = redaction.as_text(
            content.data, extra=config.REDACT_KEYS, limit=config.MAX_PREVIEW_CHARS
        )
    return Shown(
        method=redaction.visible(method)[:32],
        path=_shown_path(request),
        object_model=model[:_SHOWN_LENGTH],
        object_pk=redaction.visible(pk)[:_SHOWN_LENGTH],
        object_label=label(obj),
        payload=payload,
        payload_truncated=cut,
        context=redaction.storable(redaction.redact(context, config.REDACT_KEYS)),
        reason=reason_of(request),
        ip=redaction.visible(addresses.client_address(request.META))[:64],
        user_agent=redaction.visible(request.META.get("HTTP_USER_AGENT", ""))[:300],
        agent=agent.name,
        agent_proven=agent.proven,
    )


def label(obj: Any) -> str:
    """Return what the object calls itself; its model and key if it cannot."""
    if obj is None:
        return ""
    try:
        text = str(obj)
    except Exception:
        logger.exception("An object of a gated call has no label.")
        text = " ".join(identity(obj))
    return redaction.shorten(redaction.visible(text), _SHOWN_LENGTH)


def _shown_path(request: Request) -> str:
    """Return the path and the query with sensitive values hidden, capped like the payload."""
    config = conf.get()
    path = redaction.visible(request.path)
    pairs = parse_qsl(request.META.get("QUERY_STRING", ""), keep_blank_values=True)
    shown = [
        f"{redaction.visible(name)}="
        + (
            redaction.REDACTED
            if redaction.is_sensitive(name, config.REDACT_KEYS)
            else redaction.visible(value)
        )
        for name, value in pairs
    ]
    whole = path + ("?" + "&".join(shown) if shown else "")
    return redaction.shorten(whole, config.MAX_PREVIEW_CHARS)


def reason_of(request: Request) -> str:
    """Return the requester's claim why (`Approval-Reason`), UTF-8 or else latin-1, fit to be shown.

    Raises:
        UnbindableCall: it is longer than `MAX_REASON_LENGTH` characters.
    """
    text = agents.header_text(request.META, "Approval-Reason")
    limit = conf.get().MAX_REASON_LENGTH
    if len(text) > limit:
        raise UnbindableCall(f"Approval-Reason has at most {limit} characters.")
    return redaction.visible(text)
