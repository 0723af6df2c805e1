"""A call that waits, as far as its caller knows: one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jit_approval.client.errors import printable


@dataclass(frozen=True)
class Pending:
    """A call that waits, as far as its caller knows. `print` shows it."""

    approval_id: str
    action: str = ""
    policy: str = ""
    match_code: str = ""
    status: str = "pending"
    status_url: str = ""
    approvals_given: int = 0
    approvals_required: int = 1
    told: tuple[str, ...] = ()
    expires_at: str = ""
    expires_in: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Return one line for people."""
        words = [f"[{self.match_code}]" if self.match_code else self.approval_id, self.action]
        words.append("waits for approval" if self.status == "pending" else self.status)
        if self.approvals_required > 1:
            words.append(f"({self.approvals_given} of {self.approvals_required})")
        line = " ".join(filter(None, words))
        if self.told:
            line += f"; told: {', '.join(self.told)}"
        if self.status == "pending" and self.expires_in is not None:
            line += f"; {clock_face(self.expires_in)} left"
        return printable(line)


def clock_face(seconds: float) -> str:
    """Return a duration as `4:59` or `2:04:59`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def pending_of(known: Mapping[str, Any], status: str, before: Pending | None, pk: str) -> Pending:
    """Return what is known now: what an answer says, and what was known before of the same request."""
    last = before if before is not None and before.approval_id == pk else Pending(pk)
    told = known.get("told")
    names = [str(name) for name in told] if isinstance(told, list | tuple) else last.told
    return Pending(
        approval_id=pk,
        action=str(known.get("action") or last.action),
        policy=str(known.get("policy") or last.policy),
        match_code=str(known.get("match_code") or last.match_code),
        status=status,
        status_url=str(known.get("status_url") or last.status_url),
        approvals_given=int(number(known.get("approvals_given", last.approvals_given), 0, 1000)),
        approvals_required=int(
            number(known.get("approvals_required", last.approvals_required), 1, 1000)
        ),
        told=tuple(names),
        expires_at=str(known.get("expires_at") or last.expires_at),
        expires_in=number(known["expires_in"], 0, 1e8)
        if "expires_in" in known
        else last.expires_in,
    )


def number(value: Any, low: float, high: float) -> float:
    """Return a number that a server gave, within bounds; `low` where it is none."""
    try:
        return min(max(float(value), low), high)
    except (TypeError, ValueError):
        return low
