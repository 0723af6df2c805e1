"""Checks of settings: malformed, unsafe, or leading nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.utils.module_loading import import_string

from jit_approval import conf
from jit_approval.audit import notes
from jit_approval.checks import trail

_MAX_JSON_DEPTH = 200
_MIN_KEY_LENGTH = 16
_MIN_RUN_LIMIT = timedelta(seconds=1)


def check() -> list[CheckMessage]:
    """Return what is wrong with USE_TZ and JIT_APPROVAL."""
    found: list[CheckMessage] = []
    if not settings.USE_TZ:
        message = "USE_TZ is False: deadlines would be compared in local time, which jumps."
        found.append(Error(message, hint="Set USE_TZ = True.", id="jit_approval.E008"))
    config = _load(found)
    if config is not None:
        found += [_unsafe(name, *finding) for name, finding in _findings(config)]
        found += trail.check_setting()
    return found


def check_deployment() -> list[CheckMessage]:
    """Return what works, but not for people outside this machine."""
    config = _load([])
    if config is None or config.BASE_URL:
        return []
    message = (
        "JIT_APPROVAL has no BASE_URL: messages to deciders carry no link to the decision page."
    )
    hint = 'Set it to where the site is reached, such as "https://backoffice.example.com".'
    return [Warning(message, hint=hint, id="jit_approval.W002")]


def people_can_be_found() -> bool:
    """Tell whether the settings load, and PERSON_KEY is a path that queries can follow."""
    config = _load([])
    return config is not None and not _path_problem(config.PERSON_KEY)


def _load(found: list[CheckMessage]) -> conf.Settings | None:
    try:
        return conf.get()
    except ImproperlyConfigured as error:
        hint = "See jit_approval.conf.Settings for names, types and defaults."
        found.append(Error(str(error), hint=hint, id="jit_approval.E009"))
        return None


def _unsafe(name: str, message: str, hint: str) -> CheckMessage:
    return Error(f"JIT_APPROVAL[{name!r}] {message}.", hint=hint, id="jit_approval.E010")


def _findings(config: conf.Settings) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the name of each unsafe setting, with what is wrong and what to do."""
    if config.MAX_JSON_DEPTH > _MAX_JSON_DEPTH:
        limit = f"Stay at or under {_MAX_JSON_DEPTH}."
        yield "MAX_JSON_DEPTH", ("lets a body exhaust the interpreter's stack", limit)
    if config.RUN_LIMIT < _MIN_RUN_LIMIT:
        hint = "Give the longest time that a gated view may take, at least a second."
        yield "RUN_LIMIT", ("calls runs lost while they are still running", hint)
    if config.FINGERPRINT_KEY and len(config.FINGERPRINT_KEY) < _MIN_KEY_LENGTH:
        hint = f"Use at least {_MIN_KEY_LENGTH} random characters, or leave it to SECRET_KEY."
        yield "FINGERPRINT_KEY", ("is short enough to be guessed", hint)
    if config.METRICS_TOKEN and len(config.METRICS_TOKEN) < _MIN_KEY_LENGTH:
        hint = f"Use at least {_MIN_KEY_LENGTH} random characters, or none and a permission."
        yield "METRICS_TOKEN", ("is short enough to be guessed", hint)
    if config.AUDIT_WEBHOOK_URL and not config.AUDIT_WEBHOOK_SECRETS:
        hint = "Give AUDIT_WEBHOOK_SECRETS one as the receiver has it: whsec_ and 32 random bytes in base64."
        yield "AUDIT_WEBHOOK_URL", ("has no secret to sign with, so nothing would be sent", hint)
    yield from trail.unsafe(config)
    if config.AUDIT_PUBLIC_KEY and not _is_public_key(config.AUDIT_PUBLIC_KEY):
        hint = "Give the line that `approval_audit keygen` printed: name+id+base64."
        yield "AUDIT_PUBLIC_KEY", ("is no public key, so no call of critical severity runs", hint)
    if config.BASE_URL and not _is_web_address(config.BASE_URL):
        yield "BASE_URL", ("is no http(s) address", "Such as https://backoffice.example.com")
    if problem := _path_problem(config.PERSON_KEY):
        hint = "Give a lookup path on the user model that ends in a plain field, such as employee__number."
        yield "PERSON_KEY", (problem, hint)
    if config.REQUEST_PERSONS and (problem := _callable_problem(config.REQUEST_PERSONS)):
        hint = "Give the dotted path of a callable(request) that returns further persons."
        yield "REQUEST_PERSONS", (problem, hint)
    if config.REQUEST_AGENT and (problem := _callable_problem(config.REQUEST_AGENT)):
        hint = (
            "Give the dotted path of a callable(request) that returns the agent's name, or nothing."
        )
        yield "REQUEST_AGENT", (problem, hint)


def _is_public_key(text: str) -> bool:
    try:
        notes.parse_verifier(text)
    except notes.KeyFormatError:
        return False
    return True


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query


def _path_problem(path: str) -> str:
    """Return why the path cannot be followed from the user model, by attribute and in SQL; "" if it can."""
    model: Any = get_user_model()
    for name in path.split("__"):
        if model is None:
            return f"goes on after a plain field, at {name!r}"
        try:
            field = model._meta.pk if name == "pk" else model._meta.get_field(name)
        except FieldDoesNotExist:
            return f"leads nowhere: {model.__name__} has no field {name!r}"
        if field.one_to_many or field.many_to_many:
            return f"passes through {name!r}, of which one account may have several"
        # `employee_id` is the column of the relation `employee`: a plain value.
        related = field.is_relation and name != getattr(field, "attname", None)
        model = field.related_model if related and name != "pk" else None
    return "ends in a related object, not in a plain field" if model is not None else ""


def _callable_problem(path: str) -> str:
    try:
        target = import_string(path)
    except Exception as error:  # a module may fail in any way
        return f"cannot be imported ({error})"
    return "" if callable(target) else "is not callable"
