"""One live call against the rows: answered, held, let through, or run on the grant it spends."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import NoReturn

from django.db import IntegrityError
from rest_framework.request import Request

from jit_approval import (
    fingerprint,
    policies,
    prefer,
    problems,
    refusals,
    replays,
    services,
    verdicts,
)
from jit_approval.calls import Call, Terms
from jit_approval.exceptions import ApprovalDenied, CoolingDown, IllegalTransition
from jit_approval.execution import keeping
from jit_approval.models import ApprovalPolicy, ApprovalRequest
from jit_approval.states import Effect, Execution, Outcome, Status

_SPENT = "_jit_approval_spent"
_UNSETTLED = (Outcome.RUNNING, Outcome.UNKNOWN)
# A lost race is looked at again; one that goes on being lost is closed.
_TRIES = 5


class _Allowed(Exception):
    """The call may run without a grant: a policy allows it, or none that could hold it applies."""


class Attempt:
    """One live call on its way through the gate. `candidates`: the policies that name it, if read already."""

    def __init__(
        self, request: Request, call: Call, candidates: list[ApprovalPolicy] | None
    ) -> None:
        self.request = request
        self.http = request._request
        self.call = call
        # Set where the server makes the call itself: then it is about that approval, and no other.
        self.ticket = replays.unspent(self.http)
        self.named = named_id(request) if self.ticket is None else self.ticket.approval_id
        self._candidates = candidates
        self._by_policy_only = candidates is not None
        self._found: policies.Match | None = None
        self._observed = False

    @property
    def is_named(self) -> bool:
        """Whether a policy, or the terms of the settings, apply to the call."""
        return not self._by_policy_only or self._match().policy is not None

    def settle(self) -> ApprovalRequest | None:
        """Return the grant that was spent for this call, None if it needs none, or raise the answer to it."""
        try:
            if self.ticket is None and not self.is_named:
                self._pass()
            return self._settle()
        except _Allowed:
            return None

    def _settle(self) -> ApprovalRequest:
        for _ in range(_TRIES):
            try:
                row = self._find()
                spent = self._open() if row is None else self._advance(row)
            except (IllegalTransition, IntegrityError):
                continue  # somebody else was first: look again
            if spent is not None:
                return spent
        raise problems.unavailable("The request kept changing; nothing ran. Repeat the call.")

    def _find(self) -> ApprovalRequest | None:
        """Return the request this call is about: the one it names, else the newest for this very call."""
        theirs = {"requester": self.call.requester.pk}
        same = services.find(
            {**theirs, "fingerprint": self.call.bound.fingerprint},
            tail="ORDER BY created_at DESC LIMIT 3",
        )
        newest = next((row for row in same if row.open_key), same[0] if same else None)
        if self.named is None or (newest is not None and newest.pk == self.named):
            return newest
        found = services.find({**theirs, "id": self.named})
        if not found:
            raise problems.not_found()
        named = found[0]
        if named.fingerprint != self.call.bound.fingerprint:
            raise problems.mismatch(
                named, fingerprint.differing(named.parts, self.call.bound.parts)
            )
        return named

    def _advance(self, row: ApprovalRequest) -> ApprovalRequest | None:
        """Do what the request's state asks for. None: done, look again."""
        if row.open_key is None:
            self._after(row)
        if self.ticket is not None and not _is_for(self.ticket, row):
            raise problems.unavailable("This is not what the server was to run.")
        if row.is_overdue(row.now):
            services.expire(row)
            return None
        changed = row.state_digest != self.call.bound.state_digest
        if row.status == Status.PENDING and changed:
            services.cancel(row, by=None, comment="Superseded: what it is about has changed.")
            self._forget(row)
            return None
        if row.status == Status.PENDING:
            raise self._held(row, row.now)
        if changed:
            self._refuse_stale(row)
        return self._spend(row)

    def _after(self, row: ApprovalRequest) -> NoReturn:
        """Answer for a closed request where that is due, else open a new one."""
        used = row.status == Status.CONSUMED
        settled = not (row.idempotent or row.outcome in _UNSETTLED or problems.has_answer(row))
        if row.pk == self.named or (used and not settled):
            raise problems.over(row)
        self._open()

    def _forget(self, row: ApprovalRequest) -> None:
        """A superseded request is not answered for: the call goes on to a new one."""
        if row.pk == self.named:
            self.named = None

    def _refuse_stale(self, row: ApprovalRequest) -> NoReturn:
        names = fingerprint.differing(row.state_parts, self.call.bound.state_parts)
        services.revoke(row, by=None, comment=f"The object changed: {', '.join(names)}")
        raise problems.stale(row, names)

    def _spend(self, row: ApprovalRequest) -> ApprovalRequest | None:
        found = self._match()
        now_terms = policies.terms_of(found) if found.effect == Effect.REQUIRE else None
        if now_terms is None or not policies.still_covers(row, now_terms):
            services.revoke(row, by=None, comment="The policy has changed.")
            return None
        if row.execution == Execution.SERVER and self.ticket is None:
            raise self._held(row, row.now, _SERVER_RUNS)
        by_name = row.require_approval_id or now_terms.require_approval_id
        if by_name and self.named != row.pk:
            raise problems.held(row, now=row.now, detail=_NAME_IT)
        # One HTTP request spends one grant, whatever the view does with it.
        if vars(self.http).setdefault(_SPENT, row.pk) != row.pk:
            raise problems.held(row, now=row.now, detail=_ONE_EACH)
        try:
            spent = services.consume(
                row,
                state_digest=self.call.bound.state_digest,
                by=self.call.requester,
                origin=verdicts.origin_of(self.call),
            )
            if self.ticket is not None:
                self.ticket.grant = spent
            return spent
        except IllegalTransition:
            self._revoke_if_votes_are_void(row)
            raise

    def _revoke_if_votes_are_void(self, row: ApprovalRequest) -> None:
        """A grant that is unchanged, in time and yet unspendable has lost the votes it rests on."""
        rows = ApprovalRequest.objects.using(policies.database()).usable()
        if rows.filter(pk=row.pk, audit_seq=row.audit_seq).exists():
            services.revoke(row, by=None, comment="Who approved may not decide any more.")

    def _open(self) -> NoReturn:
        found = self._match()
        if found.effect != Effect.REQUIRE:
            self._answer_without_asking(found)
        self._observe(found)
        terms, store, why_not = self._keep(policies.terms_of(found))
        try:
            row = services.open_request(self.call, terms, troubles=found.troubles, also=store)
        except CoolingDown as error:
            rejected = ApprovalRequest.objects.using(policies.database()).get(pk=error.approval_id)
            same = rejected.fingerprint == self.call.bound.fingerprint
            raise problems.over(rejected, of_this_call=same) from error
        raise self._held(row, row.created_at, _NOT_BY_SERVER.format(why_not) if why_not else "")

    def _keep(self, terms: Terms) -> tuple[Terms, keeping.Store | None, str]:
        """Return the terms that can be kept, what stores the call for the server to run, and why not, if not."""
        return keeping.prepare(self.request, terms)

    def _held(self, row: ApprovalRequest, now: datetime, detail: str = "") -> refusals.Problem:
        """Return the answer to a call that waits: 202 only if the server will run it, and the client knows how."""
        accepted = row.execution == Execution.SERVER and prefer.respond_async(self.http.META)
        return problems.held(row, now=now, detail=detail, accepted=accepted)

    def _answer_without_asking(self, found: policies.Match) -> NoReturn:
        """Let the call run, or refuse it for good, as its policy says; written down before either."""
        policy = found.policy
        assert policy is not None  # noqa: S101 - without one the effect is to ask
        self._observe(found)
        troubles = {"troubles": verdicts.as_data(found.troubles)}
        if policy.effect == Effect.ALLOW:
            verdicts.record(self.call, "allowed", policy, data=troubles)
            raise _Allowed
        verdicts.record(self.call, "denied", policy, data=troubles)
        raise ApprovalDenied(f"Not executed. The policy {policy.slug} denies this call.")

    def _pass(self) -> NoReturn:
        """Let a call run that only policies name which do not apply to it."""
        self._observe(self._match())
        raise _Allowed

    def _observe(self, found: policies.Match) -> None:
        """Record what shadow policies would have done, once: a lost race is not another call."""
        if not self._observed:
            verdicts.observe(self.call, found)
        self._observed = True

    def _match(self) -> policies.Match:
        if self._found is None:
            if self._candidates is None:
                self._candidates = policies.named(self.call.action)
            self._found = policies.choose(
                self._candidates, self.call.facts, or_default=not self._by_policy_only
            )
        return self._found


_NAME_IT = "Not executed. The call is approved; repeat it with its Approval-Id header to run it."
_SERVER_RUNS = "Not executed yet. The call is approved, and the server is about to run it."
_NOT_BY_SERVER = (
    "Not executed. The call waits for approval; repeat the identical call once it is approved. "
    "The server cannot run it itself: {}."
)
_ONE_EACH = (
    "Not executed. One HTTP request spends one approval; send this call in a request of its own."
)


def _is_for(ticket: replays.Ticket, row: ApprovalRequest) -> bool:
    """Tell whether the server may run this, as far as it is known without asking the database again."""
    approved = row.status == Status.APPROVED and row.execution == Execution.SERVER
    return approved and ticket.approval_id == row.pk


def named_id(request: Request) -> uuid.UUID | None:
    """Return the id that the call names, if it names one."""
    text = request.META.get("HTTP_APPROVAL_ID", "").strip()
    if not text:
        return None
    try:
        return uuid.UUID(text)
    except ValueError:
        raise problems.not_found() from None
