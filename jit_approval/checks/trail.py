"""Whether the database keeps the audit trail as it was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections

from jit_approval import appendonly, conf
from jit_approval.audit import keys, places, seal
from jit_approval.notifications.channels import webhook


def check_setting() -> list[CheckMessage]:
    """Say what of the trail's settings is not heeded, or leaves it unsealed."""
    return [*_switch(), *_key(), *_places()]


def unsafe(config: conf.Settings) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield settings of where the trail is sent that could not work: the name, what is wrong, and what to do."""
    if config.AUDIT_WEBHOOK_URL and (
        problem := _refusal(webhook.check_url, config.AUDIT_WEBHOOK_URL)
    ):
        hint = (
            "Give an address as webhook channels have it, such as https://siem.example.com/trail."
        )
        yield "AUDIT_WEBHOOK_URL", (f"would never be called: {problem.rstrip('.')}", hint)
    if any(_refusal(webhook.check_secret, each) for each in config.AUDIT_WEBHOOK_SECRETS):
        hint = "Give them as the receiver has them: whsec_ and 24 to 64 random bytes in base64."
        yield "AUDIT_WEBHOOK_SECRETS", ("has what is no secret to sign with", hint)
    if config.AUDIT_EXPORT_DIR and not Path(config.AUDIT_EXPORT_DIR).is_absolute():
        hint = "Give the whole path: each process would export to a directory of its own."
        yield "AUDIT_EXPORT_DIR", ("is another directory wherever a process is started", hint)


def _refusal(check: Callable[[str], None], value: str) -> str:
    try:
        check(value)
    except ValidationError as error:
        return " ".join(error.messages)
    return ""


def _places() -> Iterator[CheckMessage]:
    """Say that the key cannot be used here, or that nothing can be exported: it may be a disk that is not mounted."""
    folder = conf.get().AUDIT_EXPORT_DIR
    if seal.is_configured():
        try:
            keys.load(conf.get().AUDIT_KEY_FILE)
        except keys.KeyUnavailable as error:
            hint = "Until then this process seals nothing. See docs/audit.md, The key."
            yield Warning(str(error), hint=hint, id="jit_approval.W032")
    if folder and Path(folder).is_absolute() and not os.access(folder, os.W_OK | os.X_OK):
        yield Warning(
            f"The directory {folder}, JIT_APPROVAL['AUDIT_EXPORT_DIR'], is not there, or cannot be written.",
            hint="Make or mount it: until then nothing is exported, nor sealed where it is not there.",
            id="jit_approval.W033",
        )


def _key() -> list[CheckMessage]:
    if not conf.get().SEAL_BEFORE_EXECUTE or seal.is_configured() or conf.get().AUDIT_PUBLIC_KEY:
        return []
    return [
        Warning(
            "Calls of critical severity run only once the audit trail is sealed, and there is no key here to seal it, "
            "nor to tell that somebody has: none will run.",
            hint="Set AUDIT_KEY_FILE where calls are run; or AUDIT_PUBLIC_KEY, and AUDIT_KEY_FILE where approval_clock "
            "or qcluster runs.",
            id="jit_approval.W019",
        )
    ]


def _switch() -> list[CheckMessage]:
    if conf.get().AUDIT_APPEND_ONLY or appendonly.is_for_tests():
        return []
    return [
        Error(
            "JIT_APPROVAL['AUDIT_APPEND_ONLY'] is off, and DEBUG too: the audit trail could be changed.",
            hint="It is for the settings of tests alone.",
            id="jit_approval.E014",
        )
    ]


def check(databases: Any) -> list[CheckMessage]:
    """Say which triggers are missing in the database, if it is among those to be looked at."""
    alias = places.database()
    # While tests run, or where DEBUG is on, the triggers may be lifted; and settings may be none at all.
    if alias not in (databases or ()) or appendonly.is_for_tests():
        return []
    connection = connections[alias]
    try:
        with connection.cursor() as cursor:
            tables = connection.introspection.table_names(cursor)
        gone = appendonly.missing(connection) if set(appendonly.TABLES) <= set(tables) else []
    except DatabaseError:
        return []
    if not gone:
        return []
    return [
        Warning(
            f"The database lets the audit trail be changed; triggers are missing, off or changed: {', '.join(gone)}.",
            hint="Run `manage.py migrate`, then `manage.py approval_audit protect` if this is said still.",
            id="jit_approval.W018",
        )
    ]
