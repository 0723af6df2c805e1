"""Triggers that keep the trail as it was written: nothing is removed or changed, but for what erasure takes away.

They stop mistakes, and whoever may only write rows. Who owns the tables can drop them: that is what signatures are for.
An event may lose its content, its origin and the name of its actor, for good and only once it is sealed, and the
reference to an account that was removed. See docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core import mail

from jit_approval import conf

EVENTS, SEALS, CHECKPOINTS = (
    "jit_approval_auditevent",
    "jit_approval_seal",
    "jit_approval_checkpoint",
)
TABLES = (EVENTS, SEALS, CHECKPOINTS)

_FUNCTION = "jit_approval_append_only"
_SAID = "jit_approval: the audit trail is append-only"
_TEXTS = ("kind", "source", "target", "previous_hash", "hash")
_OTHERS = ("id", "approval_request_id", "sequence", "at")
# What is unique, and so what an INSERT could replace (SQLite: INSERT OR REPLACE fires no trigger of DELETE).
_UNIQUE = {
    EVENTS: (("id",), ("approval_request_id", "sequence")),
    SEALS: (("index",), ("event_id",)),
    CHECKPOINTS: (("number",),),
}


def is_lifted() -> bool:
    """Tell whether `AUDIT_APPEND_ONLY` is off where that is heeded: while tests run, or where DEBUG is on."""
    return not conf.get().AUDIT_APPEND_ONLY and is_for_tests()


def is_for_tests() -> bool:
    """Tell whether this process develops or tests; Django's own runner, and pytest's, turn DEBUG off."""
    return bool(settings.DEBUG) or hasattr(mail, "outbox")


def install(connection: Any) -> None:
    """Make the triggers, anew where they are there."""
    with connection.cursor() as cursor:
        for statement in (*_removal(connection), *_creation(connection)):
            cursor.execute(statement)


def uninstall(connection: Any) -> None:
    """Remove the triggers."""
    with connection.cursor() as cursor:
        for statement in _removal(connection):
            cursor.execute(statement)


def missing(connection: Any) -> list[str]:
    """Return the names of the triggers that are not there, are switched off, or do something else than they should."""
    wanted = {pair for table in TABLES for pair in _triggers(connection, table)}
    functions = dict(_functions(connection))
    with connection.cursor() as cursor:
        cursor.execute(_LISTS[connection.vendor])
        found = {
            (name, made)
            for name, made, function, source in cursor.fetchall()
            if functions.get(function or "", "") == source
        }
    return sorted(name for name, _ in wanted - found)


# The name of each that is switched on, the statement that made it, the function that it calls, and its source.
_LISTS = {
    "postgresql": "SELECT tgname, pg_get_triggerdef(pg_trigger.oid, true), proname, prosrc "
    "FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON pg_proc.oid = tgfoid "
    "WHERE tgname LIKE 'jit_trail_%' AND pg_table_is_visible(pg_class.oid) AND (tgenabled = 'A' "
    "OR tgenabled = 'O' AND current_setting('session_replication_role') <> 'replica')",
    "sqlite": "SELECT name, sql, '', '' FROM sqlite_master "
    "WHERE type = 'trigger' AND name LIKE 'jit_trail_%'",
    "mysql": "SELECT trigger_name, CONCAT('CREATE TRIGGER ', trigger_name, ' ', action_timing, ' ', "
    "event_manipulation, ' ON ', event_object_table, ' FOR EACH ROW ', action_statement), '', '' "
    "FROM information_schema.triggers "
    "WHERE trigger_schema = DATABASE() AND trigger_name LIKE 'jit_trail_%'",
}


def _name(table: str, when: str) -> str:
    return f"jit_trail_{table.removeprefix('jit_approval_')}_{when}"


def _removal(connection: Any) -> Iterator[str]:
    for table in TABLES:
        for name, _ in _triggers(connection, table):
            on = f" ON {table}" if connection.vendor == "postgresql" else ""
            yield f"DROP TRIGGER IF EXISTS {name}{on}"
    if connection.vendor == "postgresql":
        yield f"DROP FUNCTION IF EXISTS {_FUNCTION}()"
        yield f"DROP FUNCTION IF EXISTS {_FUNCTION}_erase()"


def _creation(connection: Any) -> Iterator[str]:
    for name, source in _functions(connection):
        yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${source}$$"
    for table in TABLES:
        for _, statement in _triggers(connection, table):
            yield statement


def _functions(connection: Any) -> Iterator[tuple[str, str]]:
    """Return the functions that triggers call, where they call any: the name, and the source."""
    if connection.vendor == "postgresql":
        refuse = f"RAISE EXCEPTION '{_SAID}' USING ERRCODE = 'restrict_violation'"
        yield _FUNCTION, f" BEGIN {refuse}; END "
        erasure = f"IF NOT ({_erasure(connection)}) THEN {refuse}; END IF"
        yield f"{_FUNCTION}_erase", f" BEGIN {erasure}; RETURN NEW; END "


def _triggers(connection: Any, table: str) -> Iterator[tuple[str, str]]:
    """Return each trigger of a table: its name, and the statement that makes it."""
    make = {"postgresql": _on_postgresql, "sqlite": _on_sqlite, "mysql": _on_mysql}
    return make[connection.vendor](connection, table)


def _on_postgresql(connection: Any, table: str) -> Iterator[tuple[str, str]]:
    update = f"{_FUNCTION}_erase" if table == EVENTS else _FUNCTION
    for when, scope, function in (
        ("update", "ROW", update),
        ("delete", "ROW", _FUNCTION),
        ("truncate", "STATEMENT", _FUNCTION),
    ):
        name = _name(table, when)
        yield (
            name,
            (
                f"CREATE TRIGGER {name} BEFORE {when.upper()} ON {table} "
                f"FOR EACH {scope} EXECUTE FUNCTION {function}()"
            ),
        )


def _on_sqlite(connection: Any, table: str) -> Iterator[tuple[str, str]]:
    quote = connection.ops.quote_name
    same = " OR ".join(
        f"({' AND '.join(f'{quote(name)} = NEW.{quote(name)}' for name in names)})"
        for names in _UNIQUE[table]
    )
    conditions = {
        "update": f" WHEN NOT ({_erasure(connection)})" if table == EVENTS else "",
        "delete": "",
        "insert": f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})",  # noqa: S608 - names
    }
    for when, condition in conditions.items():
        name = _name(table, when)
        yield (
            name,
            (
                f"CREATE TRIGGER {name} BEFORE {when.upper()} ON {table}{condition} "
                f"BEGIN SELECT RAISE(ABORT, '{_SAID}'); END"
            ),
        )


def _on_mysql(connection: Any, table: str) -> Iterator[tuple[str, str]]:
    refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{_SAID}'"
    erasure = f"IF NOT ({_erasure(connection)}) THEN {refuse}; END IF"
    for when, body in (("update", erasure if table == EVENTS else refuse), ("delete", refuse)):
        name = _name(table, when)
        yield (
            name,
            (
                f"CREATE TRIGGER {name} BEFORE {when.upper()} ON {table} "
                f"FOR EACH ROW BEGIN {body}; END"
            ),
        )


def _erased(connection: Any) -> tuple[str, ...]:
    """Return the columns that erasure empties; the migration that first made the triggers knew one less."""
    with connection.cursor() as cursor:
        there = {
            each.name for each in connection.introspection.get_table_description(cursor, EVENTS)
        }
    return tuple(name for name in ("body", "actor_label", "origin") if name in there)


def _erasure(connection: Any) -> str:
    """Return the condition under which an event may change: its content goes, its actor goes, nothing else."""
    vendor, quote = connection.vendor, connection.ops.quote_name
    equal = {"postgresql": "IS NOT DISTINCT FROM", "sqlite": "IS", "mysql": "<=>"}[vendor]

    def side(row: str, name: str, *, text: bool) -> str:
        column = f"{row}.{quote(name)}"
        # There, letters compare without their case.
        return f"CAST({column} AS BINARY)" if text and vendor == "mysql" else column

    def unchanged(names: Iterable[str], *, text: bool) -> str:
        return " AND ".join(
            f"{side('OLD', each, text=text)} {equal} {side('NEW', each, text=text)}"
            for each in names
        )

    erased = _erased(connection)
    gone = " AND ".join(f"NEW.{name} = ''" for name in erased)
    sealed = f"EXISTS (SELECT 1 FROM {SEALS} WHERE event_id = OLD.id)"  # noqa: S608 - names
    return (
        f"{unchanged(_OTHERS, text=False)} AND {unchanged(_TEXTS, text=True)} "
        f"AND (NEW.actor_id IS NULL OR NEW.actor_id {equal} OLD.actor_id) "
        f"AND (({unchanged(erased, text=True)}) "
        f"OR (OLD.body <> '' AND {gone} AND {sealed}))"
    )
