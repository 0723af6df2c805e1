"""Checks of waiting on the line: what makes `Prefer: wait` be ignored where the settings allow it."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from jit_approval import conf
from jit_approval.middleware import WaitForApproval

_PATH = f"{WaitForApproval.__module__}.{WaitForApproval.__qualname__}"


def check() -> list[CheckMessage]:
    """Return why nobody waits, though MAX_WAIT says that callers may."""
    try:
        config = conf.get()
    except ImproperlyConfigured:
        return []  # E009 says so
    return [*_middleware(), *_transactions()] if config.MAX_WAIT else []


def _middleware() -> Iterator[CheckMessage]:
    listed = [
        number for number, path in enumerate(settings.MIDDLEWARE) if _is_ours(import_string(path))
    ]
    if not listed:
        yield Warning(
            "JIT_APPROVAL['MAX_WAIT'] lets callers wait on the line, and no middleware keeps them there: gated "
            "calls are answered at once.",
            hint=f"List {_PATH!r} first in MIDDLEWARE.",
            id="jit_approval.W040",
        )
    elif listed[0] > 0:
        yield Warning(
            f"{_PATH} is not the first in MIDDLEWARE: what stands before it is not asked again when the call of "
            "one who waited is made, and may keep a thread or a connection meanwhile. Behind sessions and "
            "authentication nobody waits at all.",
            hint="List it first.",
            id="jit_approval.W041",
        )


def _is_ours(listed: object) -> bool:
    return isinstance(listed, type) and issubclass(listed, WaitForApproval)


def _transactions() -> Iterator[CheckMessage]:
    aliases = [
        alias for alias, database in connections.settings.items() if database["ATOMIC_REQUESTS"]
    ]
    if aliases:
        yield Warning(
            "JIT_APPROVAL['MAX_WAIT'] lets callers wait on the line, but under ATOMIC_REQUESTS "
            f"({', '.join(aliases)}) none does: all are answered at once.",
            hint="Turn ATOMIC_REQUESTS off and mark views that need it @transaction.atomic, or leave MAX_WAIT 0.",
            id="jit_approval.W042",
        )
