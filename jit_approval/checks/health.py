"""What `approval_health` finds, as warnings of `check --deploy`."""

from __future__ import annotations

from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from jit_approval import health

_IDS = {
    "sweeper": "jit_approval.W020",
    "overdue": "jit_approval.W021",
    "undelivered": "jit_approval.W022",
    "dead_letters": "jit_approval.W023",
    "unknown_outcomes": "jit_approval.W024",
    "queue": "jit_approval.W025",
    "trail": "jit_approval.W026",
    "export": "jit_approval.W027",
    "verification": "jit_approval.W028",
    "steps": "jit_approval.W029",
}


def check() -> list[CheckMessage]:
    """Return what is not as it should be. Where there is no database yet, as in a build, nothing can be said."""
    try:
        troubles = health.report().troubles
    except (Error, ImproperlyConfigured):
        return []
    return [
        Warning(finding.message, hint=finding.hint or None, id=_IDS[finding.name])
        for finding in troubles
    ]
