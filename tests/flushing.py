"""Emptying a database after a test with transactions of its own, at the cost of what the test left behind.

Django truncates every table and has each app make its content types and permissions again. That takes several times
as long as most tests do; on PostgreSQL, which makes a new file for each table and index, more than a second.
"""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.management.commands import flush
from django.db import connections, transaction

Rows = list[tuple[Any, ...]]


class Flush:
    """One database as migrations left it, and the way back to that."""

    def __init__(self, alias: str) -> None:
        self.connection = connections[alias]
        self.quote = self.connection.ops.quote_name
        tables = self.connection.introspection.django_table_names(only_existing=True)
        self.kept = {table: self._rows(table) for table in tables}
        self.changed: list[str] = []

    def statements(self) -> list[str]:
        """Return what empties the tables that are not as they were."""
        filled = self._with_rows()
        self.changed = [
            table
            for table, rows in self.kept.items()
            if (table in filled or rows) and self._rows(table) != rows
        ]
        deletes = [f"DELETE FROM {self.quote(table)}" for table in self.changed]
        if deletes and self.connection.vendor == "mysql":
            return ["SET FOREIGN_KEY_CHECKS = 0", *deletes, "SET FOREIGN_KEY_CHECKS = 1"]
        return deletes

    def put_back(self) -> None:
        """Insert what migrations made, where it was emptied."""
        with (
            transaction.atomic(using=self.connection.alias),
            self.connection.constraint_checks_disabled(),
            self.connection.cursor() as cursor,
        ):
            for table in self.changed:
                rows = self.kept[table]
                if rows:
                    places = ", ".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO {self.quote(table)} VALUES ({places})", rows)

    def _rows(self, table: str) -> Rows:
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {self.quote(table)}")
            return sorted(map(tuple, cursor.fetchall()), key=repr)

    def _with_rows(self) -> list[str]:
        names = list(self.kept)
        asked = " UNION ALL ".join(
            f"SELECT {number} WHERE EXISTS (SELECT 1 FROM {self.quote(name)})"
            for number, name in enumerate(names)
        )
        with self.connection.cursor() as cursor:
            cursor.execute(asked)
            return [names[number] for (number,) in cursor.fetchall()]


def by_what_is_there() -> None:
    """Have `flush`, which Django's TransactionTestCase calls, go this way from now on."""
    flushes = {alias: Flush(alias) for alias in connections}
    djangos, make_anew = flush.sql_flush, flush.emit_post_migrate_signal

    def sql_flush(style: Any, connection: Any, **options: Any) -> list[str]:
        if connection.alias not in flushes:  # a test's own
            return djangos(style, connection, **options)
        return flushes[connection.alias].statements()

    def put_back(verbosity: int, interactive: bool, db: str, **options: Any) -> None:
        if db not in flushes:
            make_anew(verbosity, interactive, db, **options)
            return
        flushes[db].put_back()
        ContentType.objects.clear_cache()

    flush.sql_flush = sql_flush
    flush.emit_post_migrate_signal = put_back
