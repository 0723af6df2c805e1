"""A model whose table is not there, for as long as a test needs it gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def missing(model: Any) -> Iterator[None]:
    """Let every query of the model ask for a table called `not_there`."""
    table = model._meta.db_table
    _name(model, "not_there")
    try:
        yield
    finally:
        _name(model, table)


def _name(model: Any, table: str) -> None:
    model._meta.db_table = table
    for field in model._meta.concrete_fields:
        # Django keeps the column with the table's name in it, from its first use on.
        vars(field).pop("cached_col", None)
