"""Run one approved call: claim it, make it, write down what came of it. At most once, whoever dies in between.

1. The claim moves the stored call on by `LEASE`: of workers that are doubled or late, one goes on at a time. A worker
   that dies here has run nothing, and the next one takes over after the lease.
2. The call meets the gate, which asks everything that is asked of any call, and spends the approval. That deletes
   the stored call in the same transaction: from here on there is nothing left that could be run again.
3. The handler runs. What became of it and its answer are written in one transaction. A worker that dies before leaves
   `running`, which the sweeper turns into `unknown`, and people are told.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from django.core.handlers.wsgi import WSGIRequest
from django.http.response import HttpResponseBase

from jit_approval import policies, replays, secrets, services
from jit_approval.clock import DatabaseNow
from jit_approval.exceptions import IllegalTransition
from jit_approval.execution import answers, handler, keeping, kept
from jit_approval.models import ApprovalRequest, StoredCall
from jit_approval.redaction import visible
from jit_approval.states import Execution, Outcome, Status

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
"""Longer than a call takes to reach the gate. A claim older than this is taken for a crash."""
MAX_ATTEMPTS = 5

# Answers from before the gate that another attempt may be spared, beside those of 5xx.
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


def run(pk: UUID) -> bool:
    """Run the call of this approval request, if it is approved and nobody has; return whether it was run.

    Never in a request of somebody else: the call must not run inside the approver's transaction, time or thread.
    """
    services.ensure_durable(policies.database())
    call = _claim(pk)
    row = next(iter(services.find({"id": pk})), None)
    if call is None or row is None or not _may_run(row):
        return False
    if call.attempts > MAX_ATTEMPTS:
        _give_up(row, f"it was tried {MAX_ATTEMPTS} times in vain")
        return False
    try:
        request = kept.rebuilt(
            kept.of_text(secrets.unseal(call.sealed, bound_to=keeping.bound_to(row)))
        )
    except (secrets.SecretError, ValueError) as error:
        # Perhaps another worker has the key.
        logger.error("The call of %s cannot be opened here: %s", row.pk, error)
        return False
    ticket = replays.Ticket(row.pk)
    replays.mark(request, ticket)
    _make(request, ticket, row)
    return ticket.grant is not None


def _claim(pk: UUID) -> StoredCall | None:
    """Take the stored call for this process, if its time has come."""
    rows = StoredCall.objects.using(policies.database())
    due = rows.filter(pk=pk, next_attempt_at__lte=DatabaseNow())
    found = due.annotate(now=DatabaseNow()).first()
    if found is None:
        return None
    mine = due.filter(attempts=found.attempts)
    found.attempts += 1
    taken = mine.update(attempts=found.attempts, next_attempt_at=found.now + LEASE)
    return found if taken else None


def _may_run(row: ApprovalRequest) -> bool:
    """Tell whether it is worth trying; the gate decides."""
    ours = row.execution == Execution.SERVER and row.status == Status.APPROVED
    return ours and not row.is_overdue(row.now)


def _make(request: WSGIRequest, ticket: replays.Ticket, row: ApprovalRequest) -> None:
    """Make the call, and write down what came of it."""
    try:
        with handler.answered(request) as response:
            _conclude(ticket, row, response)
    except Exception:
        # The project has it that errors come out of the chain; or it was ours.
        logger.exception("The call of %s ended in an error.", row.pk)
        if ticket.grant is not None:
            _record(ticket, None)
    except BaseException:
        # The worker is told to end, or has had enough of it (django-q2's `timeout`): nobody need wait to hear of it.
        if ticket.grant is not None:
            _record(ticket, None)
        raise


def _conclude(ticket: replays.Ticket, row: ApprovalRequest, response: HttpResponseBase) -> None:
    if ticket.grant is not None:
        _record(ticket, _kept_answer(row, response))
    elif ticket.refused:
        _give_up(row, ticket.refused)
    elif response.status_code < 500 and response.status_code not in _WORTH_ANOTHER_TRY:
        _give_up(row, _why(response))
    else:
        logger.warning("The call of %s was answered %s.", row.pk, response.status_code)
        _put_off(row)


def _kept_answer(row: ApprovalRequest, response: HttpResponseBase) -> str | None:
    try:
        return answers.of_response(response)
    except Exception:
        # A stream may end in any error; the handler has run all the same.
        logger.exception("The answer to %s could not be read.", row.pk)
        return None


def _record(ticket: replays.Ticket, answer: str | None) -> None:
    """Write down the outcome, and the answer with it. If that fails, it stays `running` until it is `unknown`."""
    assert ticket.grant is not None  # noqa: S101 - asked before
    ended = ticket.ended or replays.Ended(Outcome.UNKNOWN)

    def also(row: ApprovalRequest, alias: str) -> None:
        if answer is not None:
            answers.store(row, answer, alias)

    try:
        services.record_outcome(
            ticket.grant,
            outcome=ended.outcome,
            response_status=ended.response_status,
            exception=ended.exception,
            elapsed=ended.elapsed,
            also=also,
        )
    except IllegalTransition:
        pass  # the sweeper was faster: its time was up, and it is `unknown`
    except Exception:
        logger.exception("The outcome of %s could not be recorded.", ticket.approval_id)


def _put_off(row: ApprovalRequest) -> None:
    """Try again in a moment rather than after the lease: this worker lives."""
    call = StoredCall.objects.using(policies.database()).filter(pk=row.pk)
    found = call.annotate(now=DatabaseNow()).first()
    if found is not None:
        call.update(next_attempt_at=found.now + timedelta(seconds=2**found.attempts))


def _give_up(row: ApprovalRequest, why: str) -> None:
    """Take the approval back, and tell people: nothing has run, and nothing will."""
    # Over already, in another way: then that is what people were told.
    with suppress(IllegalTransition):
        services.revoke(row, by=None, comment=f"The server could not run it: {why}.")


def _why(response: HttpResponseBase) -> str:
    """Return what was answered before the approval was asked for."""
    data = getattr(response, "data", None)
    said = data.get("detail") if isinstance(data, dict) else None
    text = f"it was answered {response.status_code}"
    return f"{text}, {visible(str(said))[:200].rstrip('.')}" if said else text
