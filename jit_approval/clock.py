"""The database clock: every deadline is written and compared by it, so that web hosts need not agree.

Django's `Now()` will not do: on MariaDB/MySQL it is session-zone time while Django stores UTC, so that a grant
four hours expired was once consumed; on PostgreSQL it is the transaction's start, which a lock wait ages.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import connections
from django.db.models import DateTimeField, Func
from django.db.models.sql.compiler import SQLCompiler
from django.utils.dateparse import parse_datetime

_NOW_SQL = {
    "postgresql": "STATEMENT_TIMESTAMP()",
    "mysql": "UTC_TIMESTAMP(6)",
    # Milliseconds are all SQLite has; padded, because its datetimes are compared as text.
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW')",
}

_AGO_SQL = {
    "postgresql": "(STATEMENT_TIMESTAMP() - INTERVAL '{} seconds')",
    "mysql": "(UTC_TIMESTAMP(6) - INTERVAL {} SECOND)",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW', '-{} seconds')",
}


class DatabaseNow(Func):
    """The time of this statement by the database's own clock, in UTC."""

    template = ""
    output_field = DateTimeField()

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: Any, **extra: Any
    ) -> tuple[str, tuple[()]]:
        """Render for the vendor at hand; an unknown vendor is an error, never a guess."""
        return _NOW_SQL[connection.vendor], ()


def now_sql(alias: str) -> str:
    """Return the SQL text of the database's time on `alias`, to be executed with parameters, if only `()`."""
    return _NOW_SQL[connections[alias].vendor]


def from_database(value: datetime | str) -> datetime:
    """Return what a raw cursor gave for `now_sql` as an aware UTC datetime."""
    moment = parse_datetime(value) if isinstance(value, str) else value
    if moment is None:
        raise ValueError(f"not a time: {value!r}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def now(alias: str) -> datetime:
    """Ask the database on `alias` for the time (one query)."""
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT {now_sql(alias)}", ())
        return from_database(cursor.fetchone()[0])


def ago_sql(alias: str, seconds: int) -> str:
    """Return the SQL text of the database's time `seconds` ago on `alias`."""
    return _AGO_SQL[connections[alias].vendor].format(int(seconds))
