"""Rows of the trail, written as somebody could who has all rights on the database; and any column of any of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import models

from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal, TreeHead

TRAIL: tuple[type[models.Model], ...] = (AuditEvent, Seal, Checkpoint)


Act = Callable[[random.Random], str]


class CannotHere(Exception):
    """There is nothing that this could be done to."""


def some(random_: random.Random, rows: Iterable[Any]) -> Any:
    """Return any of the rows."""
    found = list(rows)
    if not found:
        raise CannotHere
    return random_.choice(found)


def sealed() -> models.QuerySet[AuditEvent]:
    """Return the events that a checkpoint covers, in their order."""
    size = Checkpoint.objects.latest("number").size
    return AuditEvent.objects.filter(seal__lt=size).order_by("seal")


def write(model: type[models.Model], pk: Any, **values: Any) -> None:
    """Overwrite columns of one row."""
    model._base_manager.filter(pk=pk).update(**values)


def remove(rows: models.QuerySet[Any]) -> None:
    """Delete rows, and nothing that hangs on them: there is nobody to ask about references."""
    rows._raw_delete("default")


def column(random_: random.Random) -> str:
    """Change a column, any of any row: a bit of it, or its value for another."""
    model = some(random_, TRAIL)
    row = some(random_, model._base_manager.all())
    field = some(random_, model._meta.concrete_fields)
    before = getattr(row, field.attname)
    after = another(field, before, random_)
    if is_unseen(row, field.name, after):
        raise CannotHere
    write(model, row.pk, **{field.attname: after})
    return f"{model.__name__}.{field.name} of {row.pk}: {before!r} -> {after!r}"


def another(field: models.Field[Any, Any], value: Any, random_: random.Random) -> Any:
    """Return another value that the column can hold."""
    if field.null and value is not None and random_.random() < 0.2:
        return None
    if isinstance(value, memoryview | bytes):
        return flipped(bytes(value), random_)
    if isinstance(value, datetime):
        steps = [timedelta(microseconds=1), timedelta(seconds=1), timedelta(hours=1)]
        return value + some(random_, steps) * some(random_, [-1, 1])
    if isinstance(value, int):
        return value ^ (1 << random_.randrange(12))
    if isinstance(value, str):
        return changed(value, random_)
    keys = list(field.related_model._base_manager.values_list("pk", flat=True))  # type: ignore[union-attr]
    return some(random_, [key for key in keys if key != value])


def flipped(value: bytes, random_: random.Random) -> bytes:
    """Return bytes with a bit changed, or one more or less."""
    place = random_.randrange(len(value))
    how = random_.random()
    if how < 0.1:
        return value[:place] + value[place + 1 :]
    if how < 0.2:
        return value[:place] + b"\0" + value[place:]
    return value[:place] + bytes([value[place] ^ (1 << random_.randrange(8))]) + value[place + 1 :]


def changed(value: str, random_: random.Random) -> str:
    """Return text with a character changed by a bit, put in or taken out."""
    if not value:
        return some(random_, ["x", "eve", "approved", " "])
    place, how = random_.randrange(len(value)), random_.random()
    if how < 0.15:
        return value[:place] + value[place + 1 :]
    if how < 0.3:
        return value[:place] + some(random_, "0x \n") + value[place:]
    other = chr(ord(value[place]) ^ (1 << random_.randrange(5)))
    other = "x" if other == "\0" or "\ud800" <= other <= "\udfff" else other
    return value[:place] + other + value[place + 1 :]


# Of what was erased no signature covers these any more: docs/audit.md, "Erasing and pruning".
UNCOVERED = ("kind", "at", "source", "target")


def is_unseen(row: models.Model, name: str, after: Any) -> bool:
    """Tell whether nothing that was hashed or signed says this column: those of `UNSEEN`, and no others."""
    if isinstance(row, Checkpoint):
        return name == "at" and int(after.timestamp()) == int(row.at.timestamp())
    if not isinstance(row, AuditEvent):
        return False
    if name == "actor":
        # As the removal of an account leaves it; or as it was before that.
        said = json.loads(row.body)["by"] if row.body else None
        return after is None or (bool(said) and str(after) == said["pk"])
    if name == "id":
        return not hasattr(row, "seal")
    return not row.body and name in UNCOVERED


def snapshot() -> str:
    """Return all that a verification of the database reads, to tell whether an act has changed anything."""
    rows = [sorted(map(repr, model._base_manager.values_list())) for model in TRAIL]
    heads = sorted(map(repr, ApprovalRequest.objects.values_list("pk", "audit_seq", "audit_head")))
    return json.dumps([*rows, heads, list(TreeHead.objects.values_list("size", flat=True))])
