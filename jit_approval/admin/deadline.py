"""The time left, by the database's clock, as people read it."""

from __future__ import annotations

from datetime import timedelta

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from jit_approval.models import ApprovalRequest
from jit_approval.states import OPEN, Status

# Less than this is shown as urgent.
SOON = timedelta(minutes=2)


def shown_status(row: ApprovalRequest) -> Status:
    """Return the status in force: an open request whose time is up is expired, swept or not."""
    if row.status in OPEN and row.is_overdue(row.now):
        return Status.EXPIRED
    return Status(row.status)


def left(row: ApprovalRequest) -> timedelta | None:
    """Return how long the deadline in force lies ahead; None when the request is not open."""
    if shown_status(row) not in OPEN or row.due_at is None:
        return None
    return row.due_at - row.now


def as_clock(duration: timedelta) -> str:
    """Return a duration as m:ss, h:mm:ss or with days before it. Rounded down: never later than true."""
    minutes, seconds = divmod(max(int(duration.total_seconds()), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return _("%(days)d d %(clock)s") % {
            "days": days,
            "clock": f"{hours}:{minutes:02}:{seconds:02}",
        }
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def as_words(duration: timedelta) -> str:
    """Return a duration in words: 5 min, 1 h 30 min, 45 s."""
    minutes, seconds = divmod(max(int(duration.total_seconds()), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, _("d")), (hours, _("h")), (minutes, _("min")), (seconds, _("s")))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or f"0 {_('s')}"


def as_words_ago(duration: timedelta) -> str:
    """Return how long ago in its largest unit alone: 2 min, 3 h, 5 d."""
    return " ".join(as_words(duration).split()[:2])


def countdown(row: ApprovalRequest) -> SafeString | str:
    """Return the time left as an element that countdown.js keeps current; a dash when it is closed."""
    remaining = left(row)
    if remaining is None:
        return "-"
    return format_html(
        '<span class="jit-left{}" role="timer" data-jit-left="{}" data-jit-soon="{}" '
        'data-jit-day="{}" data-jit-over="{}">{}</span>',
        " jit-soon" if remaining < SOON else "",
        int(remaining.total_seconds() * 1000),
        int(SOON.total_seconds() * 1000),
        _("d"),
        _("time over"),
        as_clock(remaining),
    )


def badge(row: ApprovalRequest) -> SafeString:
    """Return the status in force as a coloured word, with the outcome of a run beside it."""
    status = shown_status(row)
    word = format_html('<span class="jit-badge jit-{}">{}</span>', status.value, status.label)
    if not row.outcome:
        return word
    return format_html(
        '{} <span class="jit-badge jit-run-{}">{}</span>',
        word,
        row.outcome,
        row.get_outcome_display(),
    )
