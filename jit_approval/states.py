"""The words for where a held call stands, and the only moves between them."""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """Approval status. What became of the run is `Outcome`, and the two are never mixed."""

    PENDING = "pending", _("pending")
    APPROVED = "approved", _("approved")
    REJECTED = "rejected", _("rejected")
    EXPIRED = "expired", _("expired")
    CANCELLED = "cancelled", _("cancelled")
    CONSUMED = "consumed", _("consumed")
    REVOKED = "revoked", _("revoked")


class Outcome(TextChoices):
    """Execution status of a consumed call."""

    RUNNING = "running", _("running")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    UNKNOWN = "unknown", _("unknown")


class Verdict(TextChoices):
    """What one person decided."""

    APPROVE = "approve", _("approve")
    REJECT = "reject", _("reject")


class Effect(TextChoices):
    """What a policy does with a call it matches."""

    REQUIRE = "require", _("require approval")
    ALLOW = "allow", _("allow at once")
    DENY = "deny", _("deny")
    # Shadow mode: evaluated beside the match, never part of it.
    OBSERVE = "observe", _("observe only")


class Execution(TextChoices):
    """Who runs the call once it is approved."""

    CALLER = "caller", _("the requester, who repeats it")
    SERVER = "server", _("the server, at once, as the requester")


class Severity(TextChoices):
    """How much harm the call could do, in the security team's words; shown first to who decides."""

    LOW = "low", _("low")
    NORMAL = "normal", _("normal")
    HIGH = "high", _("high")
    CRITICAL = "critical", _("critical")


OPEN = frozenset({Status.PENDING, Status.APPROVED})
"""A call in one of these may still run."""

LEGAL_MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.APPROVED, Status.REJECTED, Status.EXPIRED, Status.CANCELLED}),
    Status.APPROVED: frozenset({Status.CONSUMED, Status.EXPIRED, Status.REVOKED}),
    Status.REJECTED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.CONSUMED: frozenset(),
    Status.REVOKED: frozenset(),
}


def is_legal(source: str, target: str) -> bool:
    """Tell whether a request may go from `source` to `target`."""
    return target in LEGAL_MOVES[Status(source)]
