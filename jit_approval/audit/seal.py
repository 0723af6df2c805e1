"""The sealer: gives new events their places in the tree, and signs how far it is.

Any number may try. One at a time holds a lease, which saves work and nothing else: the head moves on by a conditional
UPDATE on its size, each event has one place, each statement one number, and what is signed was committed before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

from django.db import IntegrityError, transaction

from jit_approval import clock, conf
from jit_approval.audit import (
    checkpoints,
    export,
    keys,
    leases,
    marks,
    merkle,
    newest,
    notes,
    places,
)
from jit_approval.audit.notes import Signer, Verifier
from jit_approval.models import AuditEvent, Checkpoint, Seal, TreeHead

MOST = 1000
"""Events between two checkpoints, at most."""
EVERY = timedelta(minutes=1)
"""From one checkpoint to the next while there are events, at least."""
IDLE = timedelta(hours=1)
"""From one checkpoint to the next where there are none."""

# Seconds: whoever seals by hand waits so long for another that is at it.
_PATIENCE = 10.0
_PAUSE = 0.2

logger = logging.getLogger(__name__)


class SealRefused(Exception):
    """Nothing is sealed, for what is there is not what was signed. Somebody must look. Calls go on."""


class SealBusy(Exception):
    """Another process is sealing, or was when it died: it is still its turn."""


class _Overtaken(Exception):
    """Another sealer was faster."""


def is_configured() -> bool:
    """Tell whether somebody wants the trail sealed: there is a key, good or bad."""
    return bool(conf.get().AUDIT_KEY_FILE or os.environ.get(keys.ENVIRONMENT))


def key_in_use() -> Verifier:
    """Return the public key of this process: that of the key it signs with, or the one it was told.

    Raises:
        KeyUnavailable: there is none, or it cannot be used.
    """
    settings = conf.get()
    if is_configured() or not settings.AUDIT_PUBLIC_KEY:
        return keys.load(settings.AUDIT_KEY_FILE).verifier
    try:
        return notes.parse_verifier(settings.AUDIT_PUBLIC_KEY)
    except notes.KeyFormatError as error:
        raise keys.KeyUnavailable(f"AUDIT_PUBLIC_KEY is no public key: {error}.") from None


def seal(*, at_once: bool = False) -> dict[str, int]:
    """Seal and sign what is due, and export it; return how many events and statements.

    It does nothing where no key is configured, or another process is at it. `at_once`: all there is, due or not.

    Raises:
        KeyUnavailable: the key cannot be used.
        SealRefused: what is there is not what was signed, or what was exported.
        ExportFailed: all is sealed and signed, but could not be exported; the next time tries again.
    """
    counts = {"sealed": 0, "signed": 0, "exported": 0}
    if is_configured():
        # Whoever cannot wait, a call among them, is not kept waiting for a look through all.
        all_of_it = not at_once and marks.must_look_through_all(places.database())
        _seal(counts, at_once, all_of_it)
    return counts


def seal_all() -> dict[str, int]:
    """Seal, sign and export all there is, late commits of any age included; wait a little for others.

    Raises:
        KeyUnavailable, SealRefused, ExportFailed: as for `seal`.
        SealBusy: another is at it. Of what waits, nothing is known to be sealed.
    """
    counts = {"sealed": 0, "signed": 0, "exported": 0}
    until = monotonic() + _PATIENCE
    while not _seal(counts, at_once=True, all_of_it=True):
        if monotonic() >= until:
            held = leases.held(places.database()) or "another process"
            raise SealBusy(f"Nothing is known to be sealed: it is the turn of {held}. Try again.")
        sleep(_PAUSE)
    return counts


def _seal(counts: dict[str, int], at_once: bool, all_of_it: bool) -> bool:
    """Seal if nobody else does, adding to `counts`; tell whether it came to its end."""
    signer = keys.load(conf.get().AUDIT_KEY_FILE)
    alias = places.database()
    with leases.taken(alias) as is_mine:
        if not is_mine:
            return False
        target = _target(alias)
        try:
            _Sealer(alias, signer, counts).run(at_once, all_of_it)
        except _Overtaken:
            return False
        except places.Damaged as error:
            raise SealRefused(str(error)) from None
        if target is not None:
            counts["exported"] += _exported(target)
    return True


def rotate(new: Signer) -> None:
    """State that `new` signs from here on. The key in use until now must still be the one configured.

    Raises:
        KeyUnavailable, SealRefused, ExportFailed, SealBusy: as for `seal_all`. Then the old key signs on.
        KeyFormatError: the new key has the name of another trail.
    """
    signer = keys.load(conf.get().AUDIT_KEY_FILE)
    if new.name != signer.name or new.verifier == signer.verifier:
        raise notes.KeyFormatError("the new key has the same name, and is another")
    alias = places.database()
    seal_all()
    try:
        _Sealer(alias, signer, {"sealed": 0, "signed": 0}).succeed(new)
    except _Overtaken:
        raise SealRefused("Another sealer was at it. Try again.") from None
    except places.Damaged as error:
        raise SealRefused(str(error)) from None


def _target(alias: str) -> export.Exporter | None:
    """Return where to export to, after a look at what is there: it may know more than the database."""
    folder = conf.get().AUDIT_EXPORT_DIR
    if not folder:
        return None
    target = export.Exporter(Path(folder), alias)
    try:
        target.look()
    except export.ExportConflict as error:
        raise SealRefused(str(error)) from None
    return target


def _exported(target: export.Exporter) -> int:
    try:
        return target.run()
    except export.ExportConflict as error:
        raise SealRefused(str(error)) from None


class _Sealer:
    """One run: from the last statement, which must be of this key, to the end of what is due."""

    def __init__(self, alias: str, signer: Signer, counts: dict[str, int]) -> None:
        self._alias, self._signer, self._counts = alias, signer, counts
        # In this order: what was signed was committed before, so the head is never behind it, but for a reason.
        self._last = Checkpoint.objects.using(alias).order_by("-number").first()
        self._head = places.head(alias)
        self._after: bytes | None = None
        self._tree = merkle.Frontier()
        self._resume()

    def run(self, at_once: bool, all_of_it: bool = False) -> None:
        """Seal and sign until there is nothing that is due; `all_of_it`: whatever is noted as settled."""
        if self._last is None or self._tree.size > self._last.size:
            self._sign()  # the first statement, or one whose signer died
        began, started = clock.now(self._alias), monotonic()
        settled = marks.settled(self._alias, began)
        if not self._drain(settled, at_once) or (settled and not all_of_it):
            return
        if settled:
            started = monotonic()
            # What is looked for so seldom is sealed as soon as it is found.
            self._drain(0, at_once=True, settled=settled)
        marks.settle(self._alias, began)
        marks.looked_through_all(self._alias, started)

    def _drain(self, after: int, at_once: bool, *, settled: int = 0) -> bool:
        """Seal and sign what is due, with a key beyond `after`; tell whether nothing was left."""
        while True:
            events = places.next_waiting(self._alias, after, MOST)
            if not self._is_due(len(events), at_once):
                return not events
            if late := sum(event.pk <= settled for event in events):
                logger.warning("Committed more than an hour late, and sealed now: %s events", late)
            if events:
                self._advance(events)
                # What has a lower key, and was committed since, is for the next time.
                after = events[-1].pk
            self._sign()
            if len(events) < MOST:
                return True

    def succeed(self, new: Signer) -> None:
        """State that `new` signs from here on."""
        if self._last is None or self._tree.size > self._last.size:
            self._sign()  # what it hands over is signed: the new key vouches for the checkpoint before it
        now = clock.now(self._alias)
        time = int(now.timestamp())
        statement = checkpoints.Rotation(self._signer.name, new.verifier, time, self._after)
        self._state(statement, Checkpoint.Kind.ROTATION, now, self._signer, new)

    def _resume(self) -> None:
        """Take up the tree where it was signed, and go on to where it was committed."""
        size = 0
        if self._last is not None:
            try:
                signed, self._after = newest.checkpoint(
                    self._alias, self._last, self._signer.verifier
                )
            except newest.NotVouchedFor as error:
                raise SealRefused(str(error)) from None
            size = signed.size
            self._tree = places.frontier(self._alias, size)
            if self._tree.root() != signed.root:
                raise SealRefused(
                    "The sealed events in the database are not those that were signed."
                )
        if self._head.size < size:
            raise SealRefused(
                f"The database has {self._head.size} sealed events, and {size} were signed. Was it restored?"
            )
        for row in places.sealed(self._alias, size, self._head.size):
            self._tree.append(places.leaf(row.event))
        if said := marks.disagree(self._alias):
            raise SealRefused(said)

    def _is_due(self, count: int, at_once: bool) -> bool:
        if count >= MOST or (count and at_once):
            return True
        assert self._last is not None  # noqa: S101 - signed before anything else
        # A clock that was set back must not keep the trail unsigned until it is there again.
        passed = abs(clock.now(self._alias) - self._last.at)
        return passed >= (EVERY if count else IDLE)

    def _advance(self, events: Sequence[AuditEvent]) -> None:
        """Give the events their places, committed before anything is signed."""
        begin, seals = self._tree.size, []
        for event in events:
            index = self._tree.size
            completed = self._tree.append(places.leaf(event))
            seals.append(Seal(index=index, event_id=event.pk, nodes=b"".join(completed)))
        try:
            with transaction.atomic(using=self._alias, durable=True):
                now = clock.now(self._alias)
                heads = TreeHead.objects.using(self._alias).filter(pk=self._head.pk, size=begin)
                if not heads.update(size=self._tree.size, leased_until=now + leases.LONGEST):
                    raise _Overtaken
                Seal.objects.using(self._alias).bulk_create(seals)
        except IntegrityError:
            if said := marks.disagree(self._alias):
                raise SealRefused(said) from None
            raise _Overtaken from None
        self._counts["sealed"] += len(seals)

    def _sign(self) -> None:
        now = clock.now(self._alias)
        statement = checkpoints.Checkpoint(
            self._signer.name,
            self._tree.size,
            self._tree.root(),
            int(now.timestamp()),
            self._after,
        )
        self._state(statement, Checkpoint.Kind.CHECKPOINT, now, self._signer)

    def _state(
        self, statement: checkpoints.Statement, kind: Checkpoint.Kind, now: datetime, *by: Signer
    ) -> None:
        """Write a statement as the next one: if another was faster, this one is never seen."""
        row = Checkpoint(
            number=self._last.number + 1 if self._last else 0,
            kind=kind,
            size=self._tree.size,
            at=now,
            note=_signed(statement, *by),
        )
        try:
            with transaction.atomic(using=self._alias, durable=True):
                row.save(using=self._alias, force_insert=True)
        except IntegrityError:
            raise _Overtaken from None
        self._last, self._after = row, checkpoints.digest(statement.text())
        self._counts["signed"] += 1


def _signed(statement: checkpoints.Statement, *by: Signer) -> str:
    try:
        return checkpoints.sign(statement, *by)
    except notes.NoteError as error:
        # Such as a time before 1970.
        raise SealRefused(
            f"Nothing can be signed: {error}. Is the clock of the database right?"
        ) from None
