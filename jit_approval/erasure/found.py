"""What is in a scope now: requests, votes and events, and whether all of them may go."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import ngettext

from jit_approval import policies
from jit_approval.audit import mentions, places
from jit_approval.audit.acts import ERASED
from jit_approval.erasure import beside
from jit_approval.erasure.beside import UNENDED
from jit_approval.erasure.scope import ErasureRefused, Scope
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Decision
from jit_approval.states import OPEN

# Events emptied, and named by one act, in one transaction.
_BATCH = 2000


class Found:
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
            beside.clear_votes(votes, using=self._alias)
            beside.clear_requests(keys, using=self._alias)
            if self._scope.subject:
                still = beside.clear_person(self._scope.subject, self._user, using=self._alias)
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
