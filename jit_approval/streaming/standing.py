"""How the tasks of the trail stand, and what the last verification found: for health, the admin and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jit_approval import conf
from jit_approval.audit import places
from jit_approval.models import Checkpoint, TrailTask, Verification
from jit_approval.streaming.targets import configured

DIRECTORY = "directory"


@dataclass(frozen=True)
class Standing:
    """Where one target stands. `behind`: sealed events that it has not taken; None where that is not known."""

    name: str
    behind: int | None
    done_at: datetime | None
    failing_since: datetime | None
    error: str


def targets() -> list[Standing]:
    """Return the targets of the settings, the directory among them."""
    alias = places.database()
    names = [target.name for target in configured()]
    if conf.get().AUDIT_EXPORT_DIR:
        names.append(DIRECTORY)
    if not names:
        return []
    rows = {row.pk: row for row in TrailTask.objects.using(alias).filter(pk__in=names)}
    size = _sealed(alias)
    return [_standing(rows.get(name) or TrailTask(name=name), size) for name in names]


def trouble(name: str) -> TrailTask | None:
    """Return a task that failed the last time it was tried; None where it did not."""
    rows = TrailTask.objects.using(places.database())
    return rows.filter(pk=name, failures__gt=0).first()


def last_verification() -> Verification | None:
    """Return what came out last."""
    return Verification.objects.using(places.database()).order_by("-id").first()


def _standing(row: TrailTask, size: int) -> Standing:
    # How far a directory is, its own files say.
    behind = None if row.name == DIRECTORY else max(0, size - row.index)
    return Standing(row.name, behind, row.done_at, row.failing_since, row.error)


def _sealed(alias: str) -> int:
    rows = Checkpoint.objects.using(alias).order_by("-number")
    return rows.values_list("size", flat=True).first() or 0
