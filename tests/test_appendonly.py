"""The database itself keeps the trail as it was written; erasure, and the removal of an account, are let through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from jit_approval import appendonly, services
from jit_approval.calls import Origin
from jit_approval.checks import config, trail
from jit_approval.models import AuditEvent, Checkpoint, Seal
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def _triggers(transactional_db: None) -> Iterator[None]:
    appendonly.install(connection)
    yield
    appendonly.uninstall(connection)


@pytest.fixture
def event() -> AuditEvent:
    bob = factories.decider("bob")
    row = factories.held(factories.user("erin"))
    services.approve(row, by=bob, origin=Origin(ip="192.0.2.7", user_agent="curl/8"))
    made = AuditEvent.objects.get(kind="approved")
    Seal.objects.create(index=0, event=made, nodes=b"")
    Checkpoint.objects.create(number=0, kind="checkpoint", size=1, at=made.at, note="note")
    return made


def refused(statement: Any) -> bool:
    """Whether the database refuses it, and says why."""
    try:
        with transaction.atomic():
            statement()
    except DatabaseError as error:
        return "append-only" in str(error)
    return False


def sql(text: str) -> Any:
    return lambda: connection.cursor().execute(text)


@pytest.mark.usefixtures("_triggers")
def test_nothing_of_the_trail_is_changed_or_removed(event: AuditEvent) -> None:
    events = AuditEvent.objects.filter(pk=event.pk)
    for change in (
        {"body": event.body.upper()},
        {"body": event.body.replace("bob", "eve")},
        {"hash": "0" * 64},
        {"previous_hash": ""},
        {"kind": "APPROVED"},
        {"kind": "rejected"},
        {"source": "x"},
        {"target": ""},
        {"sequence": 9},
        {"at": event.approval_request.decide_by},
        {"approval_request": None},
        {"actor": factories.user("eve")},
        {"actor_label": ""},
        {"body": ""},
        {"body": "", "actor_label": "", "hash": "0" * 64},
        {"origin": event.origin.replace("192", "193")},
        {"origin": event.origin.upper()},
        {"origin": ""},
        {"origin": "", "actor_label": ""},
        {"body": "", "actor_label": ""},
        {"body": "", "actor_label": "", "origin": "x"},
    ):
        assert refused(lambda change=change: events.update(**change)), change
    assert refused(lambda: Seal.objects.update(nodes=b"x"))
    assert refused(lambda: Checkpoint.objects.update(note="x"))
    for model in (Seal, Checkpoint):
        assert refused(lambda model=model: model.objects.all()._raw_delete("default"))
    unsealed = AuditEvent.objects.filter(kind="held")
    assert refused(lambda: unsealed._raw_delete("default"))
    assert AuditEvent.objects.get(pk=event.pk).body == event.body


@pytest.mark.usefixtures("_triggers")
def test_a_sealed_event_may_lose_its_content_once_and_one_that_is_not_sealed_may_not(
    event: AuditEvent,
) -> None:
    gone = {"body": "", "origin": "", "actor_label": "", "actor": None}
    assert refused(lambda: AuditEvent.objects.filter(kind="held").update(**gone))
    assert AuditEvent.objects.filter(pk=event.pk).update(**gone) == 1
    for back in ({"body": event.body}, {"origin": event.origin}):
        assert refused(lambda back=back: AuditEvent.objects.filter(pk=event.pk).update(**back))


@pytest.mark.usefixtures("_triggers")
def test_an_account_can_still_be_removed(event: AuditEvent) -> None:
    assert event.actor is not None
    event.actor.delete()
    event.refresh_from_db()
    assert (event.actor, event.actor_label) == (None, "bob")


@pytest.mark.usefixtures("_triggers")
@pytest.mark.skipif(connection.vendor != "postgresql", reason="only there it fires triggers")
def test_nothing_of_the_trail_is_truncated(event: AuditEvent) -> None:
    for table in (*appendonly.TABLES, "jit_approval_approvalrequest"):
        assert refused(sql(f"TRUNCATE {table} CASCADE"))
    assert AuditEvent.objects.exists()


@pytest.mark.usefixtures("_triggers")
@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite knows it")
def test_nothing_of_the_trail_is_replaced(event: AuditEvent) -> None:
    values = "id, approval_request_id, sequence, kind, at, actor_label, source, target, body, "
    values += "previous_hash, hash, origin"
    other = values.replace("body,", "'{}',")
    table = appendonly.EVENTS
    assert refused(sql(f"INSERT OR REPLACE INTO {table} ({values}) SELECT {other} FROM {table}"))
    other = other.replace("id, app", "id + 100, app")
    assert refused(sql(f"INSERT OR REPLACE INTO {table} ({values}) SELECT {other} FROM {table}"))


def test_the_switch_for_tests_is_heeded_in_tests_and_where_debug_is_on_only(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JIT_APPROVAL = {"AUDIT_APPEND_ONLY": False}
    assert appendonly.is_lifted()
    assert config.check() == []
    monkeypatch.delattr(mail, "outbox")
    settings.DEBUG = False
    assert not appendonly.is_lifted()
    assert [found.id for found in config.check()] == ["jit_approval.E014"]
    settings.DEBUG = True
    assert appendonly.is_lifted()
    settings.JIT_APPROVAL = {}
    assert not appendonly.is_lifted()


def test_missing_triggers_are_said_and_made_anew(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JIT_APPROVAL = {}
    assert trail.check(["default"]) == []
    monkeypatch.delattr(mail, "outbox")
    try:
        (found,) = trail.check(["default"])
        assert found.id == "jit_approval.W018"
        assert trail.check([]) == []
        call_command("approval_audit", "protect", verbosity=0)
        assert trail.check(["default"]) == []
        assert appendonly.missing(connection) == []
    finally:
        appendonly.uninstall(connection)


def test_the_migration_makes_them_and_takes_them_away(settings: Any) -> None:
    settings.JIT_APPROVAL = {}
    executor = MigrationExecutor(connection)
    (latest,) = executor.loader.graph.leaf_nodes("jit_approval")
    try:
        executor.migrate([("jit_approval", "0006_trail_tasks")])
        assert len(appendonly.missing(connection)) == (6 if connection.vendor == "mysql" else 9)
        MigrationExecutor(connection).migrate([latest])
        assert appendonly.missing(connection) == []
    finally:
        MigrationExecutor(connection).migrate([latest])
        appendonly.uninstall(connection)


@pytest.mark.usefixtures("_triggers")
def test_triggers_made_before_there_were_origins_are_made_anew_by_the_migration(
    event: AuditEvent, settings: Any
) -> None:
    settings.JIT_APPROVAL = {}
    (latest,) = MigrationExecutor(connection).loader.graph.leaf_nodes("jit_approval")
    events, change = AuditEvent.objects.filter(pk=event.pk), f"UPDATE {appendonly.EVENTS} SET "
    try:
        MigrationExecutor(connection).migrate([("jit_approval", "0009_one_open_index")])
        assert appendonly.missing(connection) == []
        assert refused(sql(f"{change} body = 'x'"))
        MigrationExecutor(connection).migrate([latest])
        assert appendonly.missing(connection) == []
        event.refresh_from_db()
        assert event.origin == ""
        for forged in ({"origin": "x"}, {"body": "", "actor_label": "", "origin": "x"}):
            assert refused(lambda forged=forged: events.update(**forged))
        assert events.update(body="", actor_label="", origin="") == 1
    finally:
        MigrationExecutor(connection).migrate([latest])


_UPDATE = "jit_trail_auditevent_update"
_DISARMED = {
    "postgresql": [
        "CREATE OR REPLACE FUNCTION jit_approval_append_only_erase() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN RETURN NEW; END $$",
        f"ALTER TABLE {appendonly.EVENTS} ENABLE REPLICA TRIGGER {_UPDATE}",
        f"ALTER TABLE {appendonly.EVENTS} DISABLE TRIGGER {_UPDATE}",
        f"DROP TRIGGER {_UPDATE} ON {appendonly.EVENTS}; CREATE TRIGGER {_UPDATE} BEFORE UPDATE ON "
        f"{appendonly.EVENTS} FOR EACH ROW WHEN (NEW.id < 0) EXECUTE FUNCTION jit_approval_append_only_erase()",
        f"DROP TRIGGER {_UPDATE} ON {appendonly.EVENTS}; CREATE TRIGGER {_UPDATE} BEFORE UPDATE OF kind ON "
        f"{appendonly.EVENTS} FOR EACH ROW EXECUTE FUNCTION jit_approval_append_only_erase()",
    ],
    "sqlite": [
        f"CREATE TRIGGER {_UPDATE} BEFORE UPDATE ON {appendonly.EVENTS} BEGIN SELECT 1; END",
        f"CREATE TRIGGER {_UPDATE} BEFORE UPDATE ON {appendonly.EVENTS} WHEN 0 "
        "BEGIN SELECT RAISE(ABORT, 'jit_approval: the audit trail is append-only'); END",
    ],
    "mysql": [
        f"CREATE TRIGGER {_UPDATE} BEFORE UPDATE ON {appendonly.EVENTS} FOR EACH ROW BEGIN END",
        f"CREATE TRIGGER {_UPDATE} BEFORE DELETE ON {appendonly.EVENTS} FOR EACH ROW "
        "BEGIN SIGNAL SQLSTATE '45000'; END",
    ],
}


@pytest.mark.usefixtures("_triggers")
@pytest.mark.parametrize("number", range(5))
def test_a_trigger_that_was_disarmed_is_as_good_as_none(event: AuditEvent, number: int) -> None:
    ways = _DISARMED[connection.vendor]
    if number >= len(ways):
        pytest.skip("another database has more ways")
    assert appendonly.missing(connection) == []
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute(f"DROP TRIGGER {_UPDATE}")
        cursor.execute(ways[number])
    # It does let the change through.
    assert AuditEvent.objects.filter(pk=event.pk).update(actor_label="mallory") == 1
    assert appendonly.missing(connection) == [_UPDATE]
    appendonly.install(connection)
    assert appendonly.missing(connection) == []
    assert refused(lambda: AuditEvent.objects.filter(pk=event.pk).update(actor_label="eve"))


def test_triggers_that_this_session_passes_over_are_as_good_as_none() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a setting of PostgreSQL")
    appendonly.install(connection)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            try:
                with transaction.atomic():
                    cursor.execute("SET LOCAL session_replication_role = replica")
            except DatabaseError:
                pytest.skip("this role may not set that")
            assert len(appendonly.missing(connection)) == 9
    finally:
        appendonly.uninstall(connection)


@pytest.mark.usefixtures("_triggers")
def test_who_owns_the_tables_can_begin_a_new_trail_as_the_docs_have_it(event: AuditEvent) -> None:
    text = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    (block,) = [each for each in text.split("```sql\n") if each.startswith("-- a new trail")]
    statements = [line for line in block.partition("```")[0].splitlines()[1:] if line]
    assert refused(sql("DELETE FROM jit_approval_seal"))
    for statement in statements:
        # MariaDB and SQLite do without the table.
        there = statement if connection.vendor == "postgresql" else statement.partition(" ON ")[0]
        sql(there.rstrip(";"))()
    assert not Seal.objects.exists()
    assert not Checkpoint.objects.exists()
    call_command("approval_audit", "protect", verbosity=0)
    assert appendonly.missing(connection) == []
    assert AuditEvent.objects.filter(pk=event.pk).exists()
