"""What no verification of the database can find, and why: the list is in docs/audit.md, too."""

from __future__ import annotations

import json
import random

from jit_approval import clock
from jit_approval.audit import chain, links, notes, places
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Decision, Seal
from tests.tampering.events import forged, rechain
from tests.tampering.rows import (
    UNCOVERED,
    Act,
    CannotHere,
    another,
    remove,
    sealed,
    some,
    write,
)


def lose_account(random_: random.Random) -> str:
    event = some(random_, AuditEvent.objects.exclude(actor=None))
    write(AuditEvent, event.pk, actor_id=None)
    return f"event {event.pk}"


def change_key(random_: random.Random) -> str:
    event = some(random_, AuditEvent.objects.all())
    Seal.objects.filter(event=event.pk).update(event_id=event.pk + 100_000)
    AuditEvent.objects.filter(pk=event.pk).update(id=event.pk + 100_000)
    return f"event {event.pk}"


def change_the_fraction(random_: random.Random) -> str:
    row = some(random_, Checkpoint.objects.all())
    write(Checkpoint, row.pk, at=row.at.replace(microsecond=random_.randrange(10**6)))
    return f"statement {row.number}"


def change_what_was_erased(random_: random.Random) -> str:
    # Of those of a request, most of it is compared with the request.
    event = some(random_, AuditEvent.objects.filter(body="", approval_request=None))
    field = AuditEvent._meta.get_field(some(random_, UNCOVERED))
    after = another(field, getattr(event, field.attname), random_)
    write(AuditEvent, event.pk, **{field.attname: after})
    return f"event {event.pk}: {field.name}"


def sign_besides(random_: random.Random) -> str:
    row = some(random_, Checkpoint.objects.all())
    more = notes.Signer("a.witness", random_.randbytes(32)).sign(notes.split(row.note)[0])
    write(Checkpoint, row.pk, note=row.note + more)
    return f"statement {row.number}"


def write_an_event(random_: random.Random) -> str:
    request = some(random_, [None, *ApprovalRequest.objects.all()])
    event = forged(request, kind="noted", target="")
    if request is not None:
        write(ApprovalRequest, request.pk, audit_seq=event.sequence, audit_head=event.hash)
    return f"event {event.pk} of {request}"


def rewrite_unsealed(random_: random.Random) -> str:
    rows = AuditEvent.objects.filter(seal=None).exclude(body="").exclude(kind="erased")
    event = some(random_, rows)
    rows = AuditEvent.objects.filter(approval_request=event.approval_request_id)
    if event.approval_request_id and rows.filter(body="").exists():
        raise CannotHere
    said = json.loads(event.body)
    said["data"] = {**said["data"], "forged": True}
    rechain(event, links.canonical(said))
    return f"event {event.pk}"


def drop_unsealed_alone(random_: random.Random) -> str:
    rows = places.waiting("default").filter(approval_request=None).exclude(kind="erased")
    event = some(random_, rows)
    remove(AuditEvent.objects.filter(pk=event.pk))
    return f"event {event.pk}"


def drop_unsealed_request(random_: random.Random) -> str:
    rows = ApprovalRequest.objects.exclude(
        pk__in=AuditEvent.objects.exclude(seal=None)
        .exclude(approval_request=None)
        .values("approval_request")
    )
    request = some(random_, rows)
    remove(AuditEvent.objects.filter(approval_request=request.pk))
    remove(Decision.objects.filter(approval_request=request.pk))
    remove(ApprovalRequest.objects.filter(pk=request.pk))
    return f"request {request.pk}"


def announce_an_erasure(random_: random.Random) -> str:
    event = some(random_, sealed().exclude(body="").exclude(kind="erased"))
    data = {"leaves": [[event.seal.index, event.seal.index + 1]], "why": "forged"}
    chain.single_event("erased", at=clock.now("default"), label="eve", data=data).save()
    write(AuditEvent, event.pk, body="", origin="", actor_label="", actor_id=None)
    return f"event {event.pk}"


def put_back(random_: random.Random) -> str:
    event = some(random_, sealed().exclude(body="").exclude(kind="erased"))
    data = {"leaves": [[event.seal.index, event.seal.index + 1]], "why": "subject"}
    chain.single_event("erased", at=clock.now("default"), label="alice", data=data).save()
    return f"event {event.pk}"


UNSEEN: dict[str, tuple[Act, str]] = {
    "AuditEvent.actor is NULL": (
        lose_account,
        "so the removal of an account leaves it; the body names who it was",
    ),
    "AuditEvent.id and Seal.event": (
        change_key,
        "a number of the database's own: what an event is known by is its hash and its place",
    ),
    "Checkpoint.at within its second": (
        change_the_fraction,
        "what is signed is the time in whole seconds",
    ),
    "AuditEvent.kind, at, source, target of what was erased and belonged to no request": (
        change_what_was_erased,
        "the content that said it is gone, by authority",
    ),
    "Checkpoint.note with one more signature": (
        sign_besides,
        "signed notes may have those of strangers, which nobody believes",
    ),
    "an event written as the package would": (
        write_an_event,
        "as the application could, of what changes no request; it is sealed and stays",
    ),
    "an event rewritten before it was sealed, with its chain": (
        rewrite_unsealed,
        "nothing was signed yet",
    ),
    "an event of no request removed before it was sealed": (
        drop_unsealed_alone,
        "nothing was signed yet, and nothing follows it",
    ),
    "a request removed with its votes and events before they were sealed": (
        drop_unsealed_request,
        "nothing was signed yet",
    ),
    "an event emptied, and an act of erasure written": (
        announce_an_erasure,
        "as the application could: not called verified until it is signed, and then it stays",
    ),
    "content that was erased, put back": (
        put_back,
        "it is what was hashed; exports made before the erasure have it, too",
    ),
}
"""By what it is: an act that no verification of this database can find, and why."""
