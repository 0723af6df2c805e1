"""What is to be erased, by whom it may be, and why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied

MAY_ERASE = "jit_approval.erase_auditevent"


class ErasureRefused(Exception):
    """Nothing is erased, for the reason that it says."""


@dataclass(frozen=True)
class Scope:
    """What is to go: all about a person, by the name of an account; or all that ended before a moment."""

    subject: str = ""
    before: datetime | None = None

    def as_data(self) -> dict[str, str]:
        """Return it as it is bound, and kept until it is done."""
        moment = self.before.isoformat() if self.before is not None else ""
        return {"subject": self.subject, "before": moment}

    @classmethod
    def of(cls, data: Any) -> Scope:
        """Return the scope that this was made of.

        Raises:
            ErasureRefused: it is none.
        """
        try:
            subject, before = str(data["subject"]), str(data["before"])
            return cls(subject, datetime.fromisoformat(before) if before else None)
        except (KeyError, TypeError, ValueError):
            raise ErasureRefused("What was to be erased is not on record.") from None


@dataclass(frozen=True)
class Erased:
    """How much went."""

    events: int = 0
    requests: int = 0
    still_in: tuple[str, ...] = ()
    """Slugs of policies that name the person as they stand: their versions were left alone."""


def ensure_may(by: Any) -> None:
    """Refuse who may not erase.

    Raises:
        PermissionDenied: `by` lacks the permission, or is deactivated.
    """
    if not (by.is_active and by.has_perm(MAY_ERASE)):
        raise PermissionDenied("Erasing needs the permission jit_approval.erase_auditevent.")
