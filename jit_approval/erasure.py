"""Erasure: contents of the trail, and of the rows beside it, go; hashes stay, and what was done is itself an event.

Of an event that was sealed the body goes, and with it the salt without which nobody guesses it from its hash. An event
of the kind `erased` names the places; a verifier believes it once it is sealed itself, so acts of erasure are never
erased. Where it is gated, erasing is a held call that another person approves, like a change of policies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import Error, IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import ngettext

from jit_approval import (
    clearing,
    clock,
    conf,
    facts,
    fingerprint,
    policies,
    prepared,
    services,
    signals,
    verdicts,
)
from jit_approval.audit import chain, mentions, places
from jit_approval.audit.checking import ERASED
from jit_approval.audit.ranges import Ranges
from jit_approval.calls import Call, Origin, Shown
from jit_approval.clearing import UNENDED
from jit_approval.exceptions import ApprovalDenied, IllegalTransition
from jit_approval.models import (
    ApprovalRequest,
    AuditEvent,
    Checkpoint,
    Decision,
)
from jit_approval.redaction import visible
from jit_approval.states import OPEN, Effect, Outcome

logger = logging.getLogger(__name__)

ACTION = "jit_approval.trail.erase"
MAY_ERASE = "jit_approval.erase_auditevent"

# Events emptied, and named by one act, in one transaction.
_BATCH = 2000


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


def is_gated() -> bool:
    """Tell whether erasing waits for another person's approval."""
    config = conf.get()
    return config.GATE_ERASURE or config.GATE_POLICY_CHANGES


def ensure_may(by: Any) -> None:
    """Refuse who may not erase.

    Raises:
        PermissionDenied: `by` lacks the permission, or is deactivated.
    """
    if not (by.is_active and by.has_perm(MAY_ERASE)):
        raise PermissionDenied("Erasing needs the permission jit_approval.erase_auditevent.")


def erase(
    scope: Scope,
    *,
    by: Any,
    reason: str = "",
    approval: str = "",
    origin: Origin | None = None,
) -> Erased:
    """Erase it now. What a crash leaves undone, the next call does.

    Raises:
        PermissionDenied: `by` may not.
        ErasureRefused: something of it is not over yet, or not sealed; nothing was erased.
    """
    ensure_may(by)
    found = _Found(scope)
    found.ensure_over()
    found.ensure_sealed()
    said = {"why": "subject" if scope.subject else "age", "before": scope.as_data()["before"]}
    said |= {"reason": visible(reason)[: conf.get().MAX_REASON_LENGTH], "approval": approval}
    origin = (origin or Origin()).of(policies.person_of(by))
    events = sum(_empty(batch, by, said, origin) for batch in found.batches())
    # Last: by these rows the events are found, should this be done twice.
    return Erased(events, *found.clear_rows())


def _empty(batch: Sequence[tuple[int, int]], by: Any, said: dict[str, str], origin: Origin) -> int:
    """Empty some events and write the act that names them, in one transaction."""
    alias, leaves = places.database(), Ranges()
    for _, index in batch:
        leaves.add(index, index + 1)
    with transaction.atomic(using=alias):
        data = {**said, "leaves": [list(each) for each in leaves], "events": len(batch)}
        at = clock.now(alias)
        event = chain.single_event(ERASED, at=at, by=by, data=data, origin=origin)
        prepared.insert(event, using=alias)
        rows = AuditEvent.objects.using(alias).filter(pk__in=[pk for pk, _ in batch])
        rows.update(body="", origin="", actor_label="", actor=None)
    return len(batch)


class _Found:
    """What is in a scope now."""

    def __init__(self, scope: Scope) -> None:
        if bool(scope.subject) == (scope.before is not None):
            raise ErasureRefused("Say whose data, or older than what.")
        self._alias = places.database()
        self._scope = scope
        users = get_user_model()
        rows = users._base_manager.using(self._alias)
        self._user = rows.filter(**{users.USERNAME_FIELD: scope.subject}).first()
        if scope.subject and self._user is None and not self._is_on_record():
            raise ErasureRefused(f"Nobody is called {scope.subject!r}, and nothing is on record.")

    def _is_on_record(self) -> bool:
        """Tell whether somebody of this name, whose account was removed, asked for something, voted or did anything."""
        acts = AuditEvent.objects.using(self._alias).filter(actor_label=self._scope.subject)
        return self.requests().exists() or self.decisions().exists() or acts.exists()

    def requests(self) -> QuerySet[ApprovalRequest]:
        """Return the requests that go as a whole."""
        rows = ApprovalRequest.objects.using(self._alias)
        if self._scope.before is not None:
            ended = rows.exclude(status__in=OPEN).exclude(outcome__in=UNENDED)
            ended = ended.exclude(audit_events__at__gte=self._scope.before)
            return ended.filter(created_at__lt=self._scope.before).exclude(requester_label="")
        by = Q(requester_label=self._scope.subject)
        if self._user is not None:
            person = policies.person_of(self._user)
            by |= Q(requester=self._user.pk) | Q(requester_person=person)
        return rows.filter(by)

    def decisions(self) -> QuerySet[Decision]:
        """Return the votes whose voters go."""
        rows = Decision.objects.using(self._alias)
        if self._scope.before is not None:
            return rows.filter(approval_request__in=self.requests())
        by = Q(decider_label=self._scope.subject)
        return rows.filter(by | Q(decider=self._user.pk) if self._user is not None else by)

    def events(self) -> QuerySet[AuditEvent]:
        """Return the events that go, acts of erasure excepted; those that only mention the person as candidates."""
        rows = AuditEvent.objects.using(self._alias).exclude(body="").exclude(kind=ERASED)
        about = Q(approval_request__in=self.requests().values("pk"))
        if self._scope.before is not None:
            return rows.filter(about | Q(approval_request=None, at__lt=self._scope.before))
        about |= Q(actor_label=self._scope.subject)
        if self._user is not None:
            about |= Q(actor=self._user.pk)
        for text in mentions.texts(self._words()):
            about |= Q(body__contains=text)
        return rows.filter(about)

    def ensure_over(self) -> None:
        """Refuse while something is undecided, or runs: the rules that keep it closed need what would go."""
        if self._scope.before is not None:
            return
        voted = ApprovalRequest.objects.using(self._alias).filter(decisions__in=self.decisions())
        unended = Q(status__in=OPEN) | Q(outcome__in=UNENDED)
        count = self.requests().filter(unended).count() + voted.filter(unended).count()
        if count:
            text = ngettext(
                "%(count)d request by this person, or that they voted on, is open, runs, or has no known outcome.",
                "%(count)d requests by this person, or that they voted on, are open, run, or have no known outcome.",
                count,
            )
            raise ErasureRefused(text % {"count": count})

    def ensure_sealed(self) -> None:
        """Refuse what no signature covers yet: no act of erasure could name it."""
        last = Checkpoint.objects.using(self._alias).order_by("-number").first()
        signed = last.size if last is not None else 0
        for _, index in self._indices():
            if index is None or index >= signed:
                raise ErasureRefused(
                    "Not all of its events are sealed and signed yet: run `approval_audit seal`."
                )

    def batches(self) -> Iterator[list[tuple[int, int]]]:
        """Return keys and places of the events, some at a time, as they stand now."""
        found = [(pk, index) for pk, index in self._indices() if index is not None]
        found.sort(key=lambda pair: pair[1])
        for first in range(0, len(found), _BATCH):
            yield found[first : first + _BATCH]

    def clear_rows(self) -> tuple[int, tuple[str, ...]]:
        """Take away what the rows beside the trail say; return of how many requests, and who still names them."""
        keys = list(self.requests().values_list("pk", flat=True))
        votes = list(self.decisions().values_list("pk", flat=True))
        still: tuple[str, ...] = ()
        with transaction.atomic(using=self._alias):
            clearing.clear_votes(votes, using=self._alias)
            clearing.clear_requests(keys, using=self._alias)
            if self._scope.subject:
                still = clearing.clear_person(self._scope.subject, self._user, using=self._alias)
        return len(keys), still

    def _indices(self) -> Iterator[tuple[int, int | None]]:
        """Return key and place of each event that goes. What was only found by a word is read first."""
        rows = self.events().order_by("pk").select_related("seal")
        if self._scope.before is not None:
            yield from rows.values_list("pk", "seal__index").iterator()
            return
        keys = set(self.requests().values_list("pk", flat=True))
        words, name = self._words(), self._scope.subject
        user_pk = self._user.pk if self._user is not None else None
        for event in rows.iterator():
            is_own = event.approval_request_id in keys or event.actor_label == name
            is_own = is_own or (user_pk is not None and event.actor_id == user_pk)
            if is_own or mentions.is_about(event.body, words):
                yield event.pk, getattr(getattr(event, "seal", None), "index", None)

    def _words(self) -> mentions.Words:
        user = self._user
        address = str(getattr(user, "email", "") or "") if user is not None else ""
        return mentions.Words(
            self._scope.subject, str(user.pk) if user is not None else "", address
        )


# --- gated -------------------------------------------------------------------------------------------------


def propose(
    scope: Scope, *, by: Any, reason: str = "", origin: Origin | None = None
) -> ApprovalRequest:
    """Hold the erasure until another person approves it; return the request, or the open one for it.

    Raises:
        PermissionDenied: `by` may not erase.
        ErasureRefused: it would be refused now.
        ApprovalError: as `services.open_request`; ApprovalDenied where a policy denies it.
    """
    ensure_may(by)
    found = _Found(scope)
    found.ensure_over()
    call = _call(scope, by, reason, found, origin or Origin())
    # What allows everything was not written to let anybody erase alone: it takes no part.
    asked = [policy for policy in policies.named(ACTION) if policy.effect != Effect.ALLOW]
    match = policies.choose(asked, call.facts, or_default=True)
    if match.effect == Effect.DENY and match.policy is not None:
        verdicts.record(call, "denied", match.policy)
        raise ApprovalDenied(f"The policy {match.policy.slug} denies it.")
    verdicts.observe(call, match)
    try:
        return services.open_request(call, policies.terms_of(match), troubles=match.troubles)
    except IntegrityError:
        rows = ApprovalRequest.objects.using(policies.database())
        return rows.get(open_key=call.bound.fingerprint)


def connect() -> None:
    """Erase as soon as it is approved. Called once, when the app is ready."""
    signals.request_approved.connect(_approved, dispatch_uid="jit_approval.erasure")


def _approved(approval_request: ApprovalRequest, **_: Any) -> None:
    if approval_request.action == ACTION:
        make(approval_request)


def make_all() -> int:
    """Do what was approved and is still waiting, for its events were not sealed or its process died."""
    rows = ApprovalRequest.objects.using(policies.database()).usable().filter(action=ACTION)
    done = 0
    for row in rows:
        try:
            done += make(row)
        except Exception:
            logger.exception("The sweep could not do the erasure %s.", row.pk)
    return done


def make(approval_request: ApprovalRequest) -> bool:
    """Spend the approval and erase, if what is stored is what was approved. Return whether it was done."""
    rows = ApprovalRequest.objects.using(policies.database()).with_now()
    row = rows.select_related("requester").get(pk=approval_request.pk)
    try:
        scope = Scope.of(row.context)
        if not _is_as_approved(row, scope):
            services.revoke(row, by=None, comment="It cannot be done as it was approved.")
            return False
        found = _Found(scope)
        found.ensure_over()
        found.ensure_sealed()
    except ErasureRefused as error:
        logger.warning("The erasure %s waits: %s", row.pk, error)
        return False  # perhaps later, while the approval lasts
    except IllegalTransition:
        return False
    try:
        services.consume(row, state_digest=row.state_digest)
    except IllegalTransition:
        return False
    return _make(row, scope)


def _is_as_approved(row: ApprovalRequest, scope: Scope) -> bool:
    requester = row.requester
    if requester is None or not (requester.is_active and requester.has_perm(MAY_ERASE)):
        return False
    bound = _bound(scope, requester)
    return (bound.fingerprint, bound.state_digest) == (row.fingerprint, row.state_digest)


def _make(row: ApprovalRequest, scope: Scope) -> bool:
    try:
        origin = Origin(row.credential, row.ip, row.user_agent)
        erase(scope, by=row.requester, reason=row.reason, approval=str(row.pk), origin=origin)
    except (ErasureRefused, PermissionDenied, Error) as error:
        logger.exception("An approved erasure failed: %s", row.pk)
        services.record_outcome(row, outcome=Outcome.FAILED, exception=type(error).__name__)
        return False
    services.record_outcome(row, outcome=Outcome.SUCCEEDED)
    # Whom it was about was said to the decider alone, here: it goes with the rest.
    done = ApprovalRequest.objects.using(policies.database()).filter(pk=row.pk)
    done.update(payload="", context={})
    return True


def _bound(scope: Scope, by: Any) -> Any:
    return fingerprint.bind(
        dict.fromkeys(fingerprint.CALL_FIELDS)
        | {
            "action": ACTION.encode(),
            "requester": fingerprint.canonical_json([by._meta.label_lower, str(by.pk)]),
            "body": fingerprint.canonical_json(scope.as_data()),
        },
        {},
        key=conf.get().fingerprint_key,
    )


def _call(scope: Scope, by: Any, reason: str, found: _Found, origin: Origin) -> Call:
    said = (
        f"all about {scope.subject}" if scope.subject else f"all that ended before {scope.before}"
    )
    counts = f"requests: {found.requests().count()}, votes: {found.decisions().count()}"
    data = scope.as_data()
    return Call(
        action=ACTION,
        requester=by,
        persons=(policies.person_of(by),),
        credential=origin.credential,
        bound=_bound(scope, by),
        shown=Shown(
            method="ERASE",
            ip=origin.ip,
            user_agent=origin.user_agent,
            # Events keep the path and the object: not whom it is about.
            path="audit trail",
            payload=f"{visible(said)}\n{counts}",
            context=data,
            reason=visible(reason)[: conf.get().MAX_REASON_LENGTH],
        ),
        facts=lambda: {
            "action": ACTION,
            "agent": "",
            "request": {
                "method": "ERASE",
                "path": "",
                "query": {},
                "data": {"why": "subject" if scope.subject else "age"},
                "ip": "",
                "agent": "",
                "headers": {},
            },
            "user": facts.of_user(by),
            "object": {},
            "now": timezone.now(),
        },
    )
