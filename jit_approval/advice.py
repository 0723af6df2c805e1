"""What to do next, in plain words: for people, and for language models that read the refusal and nothing else.

Said by the server alone: nothing that a caller, an approver or an object wrote is quoted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STOP = "Do not repeat it, nor a variant of it; tell whoever asked you."
_ASK_AGAIN = (
    "Tell whoever asked you. Only if it is still wanted, send the call again without Approval-Id, "
    "which asks for approval anew."
)
_INSTRUCTIONS = {
    "approval_rejected": f"Nothing was done, and somebody decided that it should not be. {_STOP}",
    "approval_denied": f"Nothing was done. A rule forbids this call, and nobody is asked. {_STOP}",
    "approval_unavailable": f"Nothing was done. There is nobody who could approve this call. {_STOP}",
    "approval_expired": f"Nothing was done. The time ran out. {_ASK_AGAIN}",
    "approval_cancelled": f"Nothing was done. The request was withdrawn. {_ASK_AGAIN}",
    "approval_revoked": f"Nothing was done. The approval was taken back. {_ASK_AGAIN}",
    "approval_stale": f"Nothing was done. What was approved has changed since. {_ASK_AGAIN}",
    "approval_consumed": (
        "The call ran once under this approval, or is running, and was not run again. Its outcome "
        "is in outcome. Do not repeat it; look at what it was to change before you report."
    ),
    "approval_mismatch": (
        "Nothing was done. The call is not the one that this Approval-Id is for: they differ in "
        "the parts that differs names. Send that call exactly, or leave Approval-Id out to ask for this one."
    ),
    "approval_reason_required": (
        "Nothing was done. Send the same call with the header Approval-Reason: in a sentence, why "
        "it is needed, for the person who decides. Do not make a reason up."
    ),
    "too_many_pending": (
        "Nothing was done. Too many calls wait for approval. Send no others until some are decided, "
        "or until Retry-After has passed."
    ),
    "unbindable_call": (
        "Nothing was done. The request cannot be tied to one meaning, for the reason that detail "
        "gives. Correct that, and send it again."
    ),
    "payload_too_large": "Nothing was done. Send less at once.",
    "not_found": (
        "Nothing was done. This id is unknown, or another account's. Leave out an Approval-Id to ask anew."
    ),
    "gate_unavailable": "Nothing was done. Send the identical call again in a while.",
}
_WAIT = (
    "Nothing was done yet: somebody must approve exactly this call. Do not change it, do not try "
    "another way, and do not report it as done. "
)
_LOOK = "Read status_url every {seconds}, or later"
_REPEAT = "send the identical call again with the header Approval-Id: {approval_id}"
_END = 'If its next is "none" or "ask_again", stop and tell whoever asked you.'


def instructions(problem: Mapping[str, Any]) -> str:
    """Return what to do about a refusal; "" where it is not about a call."""
    code = problem["code"]
    if code != "approval_pending":
        return _INSTRUCTIONS.get(code, "")
    interval = problem["interval"]
    seconds = f"{interval} second{'' if interval == 1 else 's'}"
    if not problem.get("status_url"):
        text = "In {seconds}, or later, " + _REPEAT + "; until it is approved, this is the answer."
    elif problem.get("next") == "server_runs":
        text = (
            "Do not send it again either: the server makes it once it is approved. "
            + _LOOK
            + '; when its next is "fetch_result", the answer is at result_url. '
            + _END
        )
    else:
        text = _LOOK + '; when its next is "repeat_call", ' + _REPEAT + ". " + _END
    return _WAIT + text.format(**problem, seconds=seconds)


NEXT = {
    "approval_pending": "wait",
    "approval_rejected": "none",
    "approval_denied": "none",
    "approval_unavailable": "none",
    "approval_consumed": "none",
    "approval_expired": "ask_again",
    "approval_cancelled": "ask_again",
    "approval_revoked": "ask_again",
    "approval_stale": "ask_again",
}
"""The same for programs, in the words of the status API; a problem that says its own goes before."""
