"""What became of a call that did not run, as exceptions. In every one of them nothing ran, or not again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PREFIX = "urn:jit-approval:"


class ApprovalError(Exception):
    """The call did not run now. `code` is the server's name for why; `problem` is all that it said."""

    code = "approval_error"

    def __init__(self, detail: str, problem: Mapping[str, Any] | None = None) -> None:
        """Keep what the server said beside the sentence."""
        super().__init__(detail)
        self.problem = dict(problem or {})
        self.code = str(self.problem.get("code") or type(self).code)
        # The HTTP answer (of httpx or requests) that said so, where there was one.
        self.response: Any = None

    @property
    def approval_id(self) -> str | None:
        """The approval request this is about, if one was opened."""
        found = self.problem.get("approval_id") or self.problem.get("id")
        return None if found is None else str(found)


class Rejected(ApprovalError):
    """Somebody said no; `comment` says why. Do not ask again as it is."""

    code = "approval_rejected"

    @property
    def comment(self) -> str:
        """What the decider had to say."""
        return printable(self.problem.get("comment") or "", also="\n\t")


class Expired(ApprovalError):
    """Nobody decided in time, or the approval was not used in time. Making the call again asks anew."""

    code = "approval_expired"


class Cancelled(ApprovalError):
    """The request was withdrawn, or the object changed while it waited."""

    code = "approval_cancelled"


class Revoked(ApprovalError):
    """The approval was taken back before it was used."""

    code = "approval_revoked"


class Consumed(ApprovalError):
    """It ran before: this is no new run. `outcome` says how that one ended, as far as is known."""

    code = "approval_consumed"

    @property
    def outcome(self) -> str:
        """`running`, `succeeded`, `failed` or `unknown`."""
        return str(self.problem.get("outcome") or "unknown")


class Denied(ApprovalError):
    """A policy denies such calls; nobody is asked."""

    code = "approval_denied"


class Unavailable(ApprovalError):
    """Nobody but the caller could approve this; nothing was opened."""

    code = "approval_unavailable"


class _Differs(ApprovalError):
    @property
    def differs(self) -> list[str]:
        """The names of what differs, never values."""
        return [str(name) for name in self.problem.get("differs") or ()]


class Mismatch(_Differs):
    """The `Approval-Id` belongs to another call than this one."""

    code = "approval_mismatch"


class Stale(_Differs):
    """The object changed after the approval, which is void. Making the call again asks anew."""

    code = "approval_stale"


class NotFound(ApprovalError):
    """The `Approval-Id` is unknown, or somebody else's."""

    code = "not_found"


class ReasonRequired(ApprovalError):
    """The call must say why (`Approval-Reason`)."""

    code = "approval_reason_required"


class TooManyPending(ApprovalError):
    """Too many requests are open, or were opened lately."""

    code = "too_many_pending"


class Unbindable(ApprovalError):
    """Such a body cannot be tied to one meaning: chunked, encoded, too large, with duplicate keys."""

    code = "unbindable_call"


class GateUnavailable(ApprovalError):
    """An error before the call started."""

    code = "gate_unavailable"


class TimedOut(ApprovalError):
    """The time to wait is up and nobody has decided. Making the identical call again goes on waiting."""

    code = "approval_pending"


class NotReplayable(ApprovalError):
    """The call is held, and its body, a stream, is used up: the identical call cannot be made from here."""

    code = "approval_pending"


_KINDS: dict[str, type[ApprovalError]] = {"payload_too_large": Unbindable}
_KINDS.update(
    (kind.code, kind)
    for kind in (
        Rejected,
        Expired,
        Cancelled,
        Revoked,
        Consumed,
        Denied,
        Unavailable,
        Mismatch,
        Stale,
        NotFound,
        ReasonRequired,
        TooManyPending,
        Unbindable,
        GateUnavailable,
        TimedOut,
    )
)


def is_problem(body: Any) -> bool:
    """Tell whether a parsed body is a refusal of the gate, and no other error that looks like one."""
    if not isinstance(body, dict) or not isinstance(body.get("code"), str):
        return False
    return str(body.get("type", "")).startswith(_PREFIX) and body["code"] in _KINDS


def from_problem(problem: Mapping[str, Any]) -> ApprovalError:
    """Return the exception for a refusal of the gate."""
    kind = _KINDS.get(str(problem.get("code")), ApprovalError)
    return kind(printable(problem.get("detail") or problem.get("title") or kind.code), problem)


def printable(text: Any, *, also: str = "") -> str:
    """Return text fit for a terminal: what a server sends must not move the cursor."""
    return "".join(
        each if each.isprintable() or each in also else "\N{REPLACEMENT CHARACTER}"
        for each in str(text)
    )
