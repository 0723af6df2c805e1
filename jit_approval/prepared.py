"""The statements every held, decided or approved call makes, as SQL that is put together once per database.

The ORM compiles a statement anew each time, which for a row of forty columns takes longer than the database does.
Values go to and from the database through the model's own fields, as the ORM passes them. Everything here
takes names from models and never from a caller; what a caller sends travels as parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar

from django.db import connections, models, transaction
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_save, pre_save

Row = TypeVar("Row", bound=models.Model)

_TEXT = (models.CharField, models.TextField)

Extra = tuple[str, str, Any]
"""A further column of a SELECT: its name, its SQL, and the field that says of what type it is."""


Along = tuple[str, tuple[Any, ...]]
"""An expression to be evaluated by a statement that is made anyway, and its parameters."""


def insert(row: models.Model, *, using: str, along: Along | None = None) -> None:
    """Write a new row, as `save(force_insert=True)` does; by that, where the host listens to the model's signals.

    `along` is evaluated by the same statement, on a database that knows RETURNING.
    """
    model = type(row)
    if pre_save.has_listeners(model) or post_save.has_listeners(model):
        row.save(using=using, force_insert=True)
        if along is not None:
            _evaluate(along, using)
        return
    connection = connections[using]
    values = [_to_save(field, row, connection) for field in _insert_fields(model)]
    sql = _insert_sql(model, using, tuple(map(_place, values)))
    values = [value for value in values if _place(value) == "%s"]
    if along is not None:
        sql, values = f"{sql}, {along[0]}", [*values, *along[1]]
    with transaction.mark_for_rollback_on_error(using=using), connection.cursor() as cursor:
        cursor.execute(sql, values)
        if model._meta.auto_field is not None:
            returned = connection.features.can_return_columns_from_insert
            row.pk = cursor.fetchone()[0] if returned else cursor.lastrowid
    row._state.db, row._state.adding = using, False


def _evaluate(along: Along, using: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {along[0]}", along[1])


@cache
def _insert_fields(model: type[models.Model]) -> tuple[Any, ...]:
    meta = model._meta
    return tuple(field for field in meta.concrete_fields if field is not meta.auto_field)


def _to_save(field: Any, row: models.Model, connection: Any) -> Any:
    value = field.pre_save(row, True)
    # As the field would give it back: a third of a row is text, or nothing.
    if value is None or (type(value) is str and type(field) in _TEXT):
        return value
    return field.get_db_prep_save(value, connection)


def _place(value: Any) -> str:
    """Return what stands for the value in the SQL: what is empty is written there, the rest are parameters.

    psycopg does not remember how it takes apart a statement of over 50 parameters, and quotes each.
    """
    if value is None:
        return "NULL"
    return "''" if type(value) is str and not value else "%s"


@lru_cache(maxsize=512)
def _insert_sql(model: type[models.Model], using: str, places: tuple[str, ...]) -> str:
    connection, meta = connections[using], model._meta
    quote = connection.ops.quote_name
    columns = ", ".join(quote(field.column) for field in _insert_fields(model))
    sql = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({', '.join(places)})"  # noqa: S608
    if meta.auto_field is not None and connection.features.can_return_columns_from_insert:
        sql += f" RETURNING {quote(_field(model, 'pk').column)}"
    return sql


def update(
    model: type[models.Model],
    changes: Mapping[str, Any],
    *,
    using: str,
    where: Mapping[str, Any],
    guards: tuple[str, ...] = (),
) -> int:
    """Change the rows that equal `where` and pass every guard (SQL without parameters); return how many."""
    sql = _update_sql(model, using, tuple(changes), tuple(where), guards)
    connection = connections[using]
    values = [
        _field(model, name).get_db_prep_save(value, connection) for name, value in changes.items()
    ]
    values += _prepared(model, where, using)
    with transaction.mark_for_rollback_on_error(using=using), connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)


@cache
def _update_sql(
    model: type[models.Model],
    using: str,
    changed: tuple[str, ...],
    where: tuple[str, ...],
    guards: tuple[str, ...],
) -> str:
    quote = connections[using].ops.quote_name
    columns = ", ".join(f"{quote(_field(model, name).column)} = %s" for name in changed)
    condition = _condition(model, using, where, guards)
    return f"UPDATE {quote(model._meta.db_table)} SET {columns} WHERE {condition}"  # noqa: S608


def _field(model: type[models.Model], name: str) -> Any:
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def _condition(
    model: type[models.Model], using: str, where: tuple[str, ...], guards: tuple[str, ...]
) -> str:
    quote = connections[using].ops.quote_name
    equal = [f"{quote(_field(model, name).column)} = %s" for name in where]
    return " AND ".join([*equal, *(f"({guard})" for guard in guards)])


def _prepared(model: type[models.Model], where: Mapping[str, Any], using: str) -> list[Any]:
    connection = connections[using]
    return [
        _field(model, name).get_db_prep_value(value, connection) for name, value in where.items()
    ]


class Select(Generic[Row]):
    """A SELECT of whole rows, which remembers its SQL and how each column is converted.

    `extras` are further columns, read as attributes; `without` names fields that stay behind.
    """

    def __init__(
        self,
        model: type[Row],
        *,
        extras: Callable[[str], tuple[Extra, ...]] = lambda using: (),
        without: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self._extras = extras
        self._without = without
        self._columns = cache(self._make_columns)

    def rows(
        self,
        *,
        using: str,
        where: Mapping[str, Any],
        guards: tuple[str, ...] = (),
        tail: str = "",
        extras_params: tuple[Any, ...] = (),
        params: tuple[Any, ...] = (),
    ) -> list[Row]:
        """Return the rows that equal `where` and pass every guard. `tail` is SQL: ORDER BY, LIMIT, FOR UPDATE.

        Each `%s` in the extras takes one of `extras_params`, each in the guards or the tail one of `params`.
        """
        head, names, extras, converters = self._columns(using)
        condition = _condition(self.model, using, tuple(where), guards) or "1 = 1"
        values = (*extras_params, *_prepared(self.model, where, using), *params)
        connection = connections[using]
        with connection.cursor() as cursor:
            cursor.execute(f"{head} WHERE {condition} {tail}", values)
            found = cursor.fetchall()
        return [
            self._row(using, names, extras, _converted(line, converters, connection))
            for line in found
        ]

    def _row(
        self, using: str, names: tuple[str, ...], extras: tuple[str, ...], values: list[Any]
    ) -> Row:
        row = self.model.from_db(using, names, values[: len(names)])
        for name, value in zip(extras, values[len(names) :], strict=True):
            setattr(row, name, value)
        return row

    def _make_columns(
        self, using: str
    ) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[Any, ...]]:
        connection, meta = connections[using], self.model._meta
        quote = connection.ops.quote_name
        table = quote(meta.db_table)
        fields: list[Any] = [
            field for field in meta.concrete_fields if field.name not in self._without
        ]
        extras = self._extras(using)
        expressions: list[Any] = [field.get_col(meta.db_table) for field in fields]
        expressions += [RawSQL("", (), output_field=kind) for _, _, kind in extras]
        columns = [quote(field.column) for field in fields]
        columns += [sql for _, sql, _ in extras]
        return (
            f"SELECT {', '.join(columns)} FROM {table}",  # noqa: S608 - names alone
            tuple(field.attname for field in fields),
            tuple(name for name, _, _ in extras),
            _converters(expressions, connection),
        )


def _converters(expressions: list[Any], connection: Any) -> tuple[Any, ...]:
    """Return (position, converter, expression) for every column that does not arrive as it is meant."""
    return tuple(
        (position, convert, expression)
        for position, expression in enumerate(expressions)
        for convert in (
            *connection.ops.get_db_converters(expression),
            *expression.get_db_converters(connection),
        )
    )


def _converted(values: Any, converters: tuple[Any, ...], connection: Any) -> list[Any]:
    converted = list(values)
    for position, convert, expression in converters:
        converted[position] = convert(converted[position], expression, connection)
    return converted
