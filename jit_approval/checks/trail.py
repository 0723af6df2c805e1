"""Whether the database keeps the audit trail as it was written."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, connections

from jit_approval import appendonly, conf
from jit_approval.audit import places, seal


def check_setting() -> list[CheckMessage]:
    """Say that the switch for tests is on where it is not heeded, and that nothing seals what must be sealed."""
    return [*_switch(), *_key()]


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
            f"The database lets the audit trail be changed; triggers are missing: {', '.join(gone)}.",
            hint="Run `manage.py migrate`, then `manage.py approval_audit protect` if this is said still.",
            id="jit_approval.W018",
        )
    ]
