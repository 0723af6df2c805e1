"""What one racer does, in its own process or thread, once the barrier lets it go."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.exceptions import ApprovalError
from jit_approval.models import ApprovalRequest
from jit_approval.states import OPEN
from tests import factories

# Rounds are raced one after another; within a round everybody starts within this many seconds.
SPREAD = 0.02


def client(token: str) -> APIClient:
    """A client with this token; an error of the server's is an error here."""
    made = APIClient()
    made.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return made


def call(caller: APIClient, grant: Any, **headers: str) -> Any:
    """The gated call that belongs to one grant."""
    return caller.post("/counted/", {"grant": grant}, headers=headers)


def consume(barrier: Any, runs: str, token: str, grants: int) -> Counter[str]:
    """Make the call of each grant at the same instant as everybody else; count the answers."""
    os.environ["JIT_TEST_RUNS"] = runs
    caller = client(token)
    answers: Counter[str] = Counter()
    for grant in range(grants):
        barrier.wait()
        response = call(caller, grant)
        answers[str(response.data.get("code", response.status_code))] += 1
    return answers


def open_same(barrier: Any, token: str, rounds: int) -> list[str]:
    """Make the same call as everybody else, for the first time; return the ids it was held under."""
    caller = client(token)
    ids = []
    for number in range(rounds):
        barrier.wait()
        ids.append(call(caller, number)["Approval-Id"])
    return ids


def vote(barrier: Any, decider_pk: int, requests: list[Any]) -> int:
    """Approve each request at the same instant as the other; return how many votes were taken."""
    decider = get_user_model().objects.get(pk=decider_pk)
    taken = 0
    for pk in requests:
        row = ApprovalRequest(pk=pk)
        barrier.wait()
        services.approve(row, by=decider)
        taken += 1
    return taken


def meddle(
    barrier: Any, role: str, who: int, token: str, runs: str, requests: list[Any], seed: int
) -> list[str]:
    """Play one role on each request; return, per request, "" or the error that says somebody was first."""
    os.environ["JIT_TEST_RUNS"] = runs
    user = get_user_model().objects.get(pk=who)
    caller = client(token)
    chance = random.Random(f"{seed}{role}")
    answers = []
    for grant, pk in enumerate(requests):
        barrier.wait()
        time.sleep(chance.uniform(0, SPREAD))
        try:
            answers.append(_ROLES[role](ApprovalRequest(pk=pk), user, caller, grant) or "")
        except ApprovalError as error:
            answers.append(type(error).__name__)
    return answers


def _approve(row: ApprovalRequest, user: Any, caller: APIClient, grant: int) -> None:
    services.approve(row, by=user)


def _reject(row: ApprovalRequest, user: Any, caller: APIClient, grant: int) -> None:
    services.reject(row, by=user)


def _cancel(row: ApprovalRequest, user: Any, caller: APIClient, grant: int) -> None:
    services.cancel(row, by=user)


def _expire(row: ApprovalRequest, user: Any, caller: APIClient, grant: int) -> str:
    """Let its time be over, again and again, until the request is closed by whomever."""
    while True:
        late = {"due_at": factories.fresh(row).now - timedelta(seconds=1)}
        if not ApprovalRequest.objects.filter(pk=row.pk, status__in=OPEN).update(**late):
            return ""
        try:
            services.expire(row)
        except ApprovalError:
            continue  # approved just now: it has a new deadline


def _consume(row: ApprovalRequest, user: Any, caller: APIClient, grant: int) -> str:
    """Repeat the call while it is pending, as a client does, but faster."""
    while True:
        response = call(caller, grant, **{"Approval-Id": str(row.pk)})
        code = str(response.data.get("code", response.status_code))
        if code != "approval_pending":
            return code


_ROLES = {
    "approve": _approve,
    "reject": _reject,
    "cancel": _cancel,
    "expire": _expire,
    "consume": _consume,
}
