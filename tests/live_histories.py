"""Honest histories made up in the database, by the package itself: whatever may happen to a trail, at random."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import override_settings

from jit_approval import clock, erasure, services, verdicts
from jit_approval.audit import chain, keys, notes, places, seal
from jit_approval.calls import COMMAND, Origin
from jit_approval.models import ApprovalPolicy, ApprovalRequest, AuditEvent, Checkpoint, TreeHead
from jit_approval.states import Outcome, Status
from tests import factories

NAME = "approvals.example/trail"
TEXTS = ["", "GDPR erasure #811", 'naïve \u2028 "quoted"\\ and\nlong ' + "x" * 200, "\u202e 💥"]


class Cast:
    """Who takes part in every history, and the keys there are: made once, before the first."""

    def __init__(self, folder: Path) -> None:
        self.keys = [folder / f"trail-{number}.key" for number in range(4)]
        self.public = [keys.generate(NAME, path) for path in self.keys]
        self.bobs = [factories.decider(name) for name in ("bob", "bert")]
        self.askers = [factories.user(name) for name in ("erin", "ezra", "zoë")]
        self.alice = factories.user("alice")
        self.alice.user_permissions.add(Permission.objects.get(codename="erase_auditevent"))
        self.policy: ApprovalPolicy = factories.policy(effect="observe")


class History:
    """One history, as it goes on."""

    def __init__(self, cast: Cast, random_: random.Random) -> None:
        self.cast, self.random = cast, random_
        self.rotations = 0
        self.late: list[AuditEvent] = []

    def live(self, most: int = 16) -> History:
        """Let so much happen, at most, and end sealed, or not quite."""
        if self.random.random() < 0.3:
            self._with_key(lambda: seal.seal())
        names, weights = zip(*WAYS.items(), strict=True)
        for _ in range(self.random.randrange(5, most)):
            act = self.random.choices(names, weights)[0]
            act(self)
        self.seal()
        for _ in range(self.random.choice([0, 0, 1, 3])):
            self.random.choice([History.ask, History.decide, History.allow, History.erase])(self)
        return self

    @property
    def trusted(self) -> list[notes.Verifier]:
        """The first key: it leads to the others."""
        return self.cast.public[:1]

    # --- what happens ---

    def ask(self) -> None:
        """A call is held."""
        terms = {"required_approvals": self.random.choice([1, 1, 2])}
        by, reason = self.random.choice(self.cast.askers), self.random.choice(TEXTS)
        ip = self.random.choice(["", "192.0.2.7", "2001:db8::7"])
        factories.held(by, terms=terms, reason=reason, ip=ip, user_agent=self.random.choice(TEXTS))

    def decide(self) -> None:
        """Somebody votes, for or against."""
        row = self._one(Status.PENDING)
        if row is None:
            return self.ask()
        comment = self.random.choice(TEXTS)
        voted = row.decisions.values_list("decider", flat=True)
        bob = next(bob for bob in self.cast.bobs if bob.pk not in voted)
        if self.random.random() < 0.75:
            origin = self.random.choice(
                [None, COMMAND, Origin("session", "192.0.2.8", "a browser")]
            )
            services.approve(row, by=bob, comment=comment, origin=origin)
        else:
            services.reject(row, by=bob, comment=comment)

    def run(self) -> None:
        """An approved call runs; how it ended is written down, or not yet."""
        row = self._one(Status.APPROVED)
        if row is None:
            return self.decide()
        spent = services.consume(row, state_digest=factories.STATE)
        if self.random.random() < 0.8:
            outcome = self.random.choice([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNKNOWN])
            services.record_outcome(spent, outcome=outcome, elapsed=timedelta(0))

    def end(self) -> None:
        """One is withdrawn, taken back, or its time is over."""
        row = self._one(self.random.choice([Status.PENDING, Status.APPROVED]))
        if row is None:
            return
        if self.random.random() < 0.4:
            past = clock.now("default") - timedelta(seconds=1)
            ApprovalRequest.objects.filter(pk=row.pk).update(due_at=past)
            services.expire(row)
        elif row.status == Status.PENDING:
            services.cancel(row, by=row.requester)
        else:
            services.revoke(row, by=self.random.choice([None, *self.cast.bobs]))

    def allow(self) -> None:
        """A call is let through, or denied: an event that belongs to no request."""
        call = factories.call(self.random.choice(self.cast.askers))
        verdicts.record(call, self.random.choice(["allowed", "denied"]), self.cast.policy)

    def seal(self) -> None:
        """All there is is sealed and signed."""
        self._with_key(lambda: seal.seal(at_once=True))

    def idle(self) -> None:
        """A checkpoint over nothing new, as after an hour."""
        self.seal()
        self._with_key(lambda: self._sealer()._sign())

    def die(self) -> None:
        """A sealer gives places, and dies before it signs."""
        self.seal()
        self.allow()
        self._with_key(lambda: self._sealer()._advance(list(places.waiting("default"))))
        TreeHead.objects.update(leased_until=None)  # as a minute later

    def rotate(self) -> None:
        """The key names its successor."""
        if self.rotations + 1 < len(self.cast.keys):
            new = keys.load(self.cast.keys[self.rotations + 1], {})
            self._with_key(lambda: seal.rotate(new))
            self.rotations += 1

    def commit_late(self) -> None:
        """An event takes its number before others, and is committed after they were sealed."""
        call = factories.call(self.random.choice(self.cast.askers))
        late = verdicts.record(call, "observed", self.cast.policy)
        AuditEvent.objects.filter(pk=late.pk).delete()
        self.allow()
        self.seal()
        late.save(force_insert=True)

    def erase(self) -> None:
        """All about somebody goes, or all that ended; or it is refused, for something is not over, or not sealed."""
        if self.random.random() < 0.8:
            self.seal()
        scope = erasure.Scope(subject=self.random.choice(["erin", "ezra", "zoë", "bob"]))
        if self.random.random() < 0.5:
            scope = erasure.Scope(before=clock.now("default"))
        try:
            erasure.erase(scope, by=self.cast.alice, reason=self.random.choice(TEXTS))
        except erasure.ErasureRefused:
            return

    def lose_account(self) -> None:
        """An account is removed: its name stays, the reference to it becomes NULL."""
        gone = self.random.choice(self.cast.askers + self.cast.bobs)
        AuditEvent.objects.filter(actor=gone).update(actor=None)

    def tell(self) -> None:
        """An event of a command, without an account."""
        at = clock.now("default") - timedelta(microseconds=self.random.randrange(10**6))
        data = {"text": self.random.choice(TEXTS), "n": self.random.randrange(9)}
        chain.single_event("notified", at=at, label=self.random.choice(TEXTS), data=data).save()

    def _one(self, status: Status) -> ApprovalRequest | None:
        rows = list(ApprovalRequest.objects.with_now().filter(status=status).order_by("created_at"))
        return self.random.choice(rows) if rows else None

    def _with_key(self, act: Callable[[], object]) -> None:
        path = str(self.cast.keys[self.rotations])
        with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": path, "AUDIT_APPEND_ONLY": False}):
            act()

    def _sealer(self) -> Any:
        signer = keys.load(self.cast.keys[self.rotations], {})
        return seal._Sealer("default", signer, {"sealed": 0, "signed": 0})


WAYS: dict[Callable[[History], object], float] = {
    History.ask: 4,
    History.decide: 5,
    History.run: 4,
    History.end: 1.5,
    History.allow: 2,
    History.tell: 1,
    History.seal: 2,
    History.idle: 0.7,
    History.die: 0.5,
    History.rotate: 0.5,
    History.commit_late: 0.5,
    History.erase: 1,
    History.lose_account: 0.3,
}


class Undone:
    """What happens inside is taken back: a savepoint, which services take for no transaction around them."""

    _numbers = itertools.count()

    def __enter__(self) -> None:
        # By hand: the names of Django's functions change from version to version.
        self._name = f"undone_{next(self._numbers)}"
        self._execute(f"SAVEPOINT {self._name}")

    def __exit__(self, *_: object) -> None:
        # What a database has refused leaves the transaction marked; all of that is taken back, too.
        transaction.set_rollback(False)
        self._execute(f"ROLLBACK TO SAVEPOINT {self._name}")

    @staticmethod
    def _execute(sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)


def checkpoints() -> list[str]:
    """Return the checkpoints, as they would be kept elsewhere."""
    rows = Checkpoint.objects.filter(kind=Checkpoint.Kind.CHECKPOINT).order_by("number")
    return list(rows.values_list("note", flat=True))
