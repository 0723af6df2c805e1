"""Every rule that can be broken, named. No HTTP here: `problems.py` gives these a status code."""

from __future__ import annotations

from typing import Any
from uuid import UUID


class ApprovalError(Exception):
    """Base of every refusal of this package. `code` is the stable machine-readable name."""

    code = "approval_error"


class IllegalTransition(ApprovalError):
    """The request is not, or no longer, in a state that allows this move; or its time is up."""

    code = "illegal_transition"


class NotSealed(ApprovalError):
    """The call is of the highest severity, and the trail that led to it is not signed yet (`SEAL_BEFORE_EXECUTE`)."""

    code = "gate_unavailable"


class AlreadyDecided(ApprovalError):
    """This person has decided this request before. One decision per person."""

    code = "already_decided"


class RequestRewritten(ApprovalError):
    """The request is not what was asked: it was rewritten in the database. Nobody approves it."""

    code = "request_rewritten"


class MayNotDecide(ApprovalError):
    """The user is not a decider of this request now."""

    code = "may_not_decide"


class SelfApprovalForbidden(MayNotDecide):
    """A person may not decide a call they stand behind, superusers included."""

    code = "self_approval_forbidden"


class NotTheRequester(ApprovalError):
    """Only the person who made the call may withdraw it."""

    code = "not_the_requester"


class CommentTooLong(ApprovalError):
    """The comment is longer than `MAX_REASON_LENGTH` characters."""

    code = "comment_too_long"


class ApprovalDenied(ApprovalError):
    """A policy denies this call: nobody is asked, and it never runs."""

    code = "approval_denied"


class ApprovalUnavailable(ApprovalError):
    """The quorum cannot be met by anyone but the requester: closed, nothing is opened."""

    code = "approval_unavailable"


class TooManyPending(ApprovalError):
    """The requester, or the policy, has opened too many requests.

    `retry_after` is in seconds; None when only a decision on an open request helps.
    """

    code = "too_many_pending"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        """Keep the wait beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class CoolingDown(ApprovalError):
    """A like call was rejected moments ago. `approval_id` names the rejected request."""

    code = "approval_rejected"

    def __init__(self, message: str, *, approval_id: UUID | str) -> None:
        """Keep the id beside the message."""
        super().__init__(message)
        self.approval_id = approval_id


class ReasonRequired(ApprovalError):
    """The policy wants a reason (`Approval-Reason`) and the call gave none, or one without a word."""

    code = "approval_reason_required"


class UnbindableCall(ApprovalError):
    """The call cannot be bound to one meaning, so nobody could approve exactly it.

    `status` is the HTTP status that says why: 400, 411, 413 or 415 (RFC 9110).
    """

    code = "unbindable_call"

    def __init__(self, message: str, *, status: int = 400) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.status = status


class PayloadTooLarge(UnbindableCall):
    """The body is longer than `MAX_BODY_BYTES`. Said before reading it."""

    code = "payload_too_large"


class CallHeld(ApprovalError):
    """A function's call waits for approval: nothing ran. Once approved, the identical call runs, once."""

    code = "approval_pending"

    def __init__(self, message: str, *, approval_id: UUID | str) -> None:
        """Keep the id beside the message."""
        super().__init__(message)
        self.approval_id = approval_id


class CallRefused(ApprovalError):
    """A function's call did not run, or not again. `code` and `problem` are those of the answer to an HTTP call."""

    def __init__(self, message: str, *, problem: dict[str, Any]) -> None:
        """Keep what is known beside the message."""
        super().__init__(message)
        self.problem = problem
        self.code = str(problem.get("code", self.code))
        self.approval_id = problem.get("approval_id")


class NotDurable(ApprovalError):
    """The services were called inside a transaction that could undo what they promise."""

    code = "gate_unavailable"
