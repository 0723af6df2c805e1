"""Statements signed by another key, repeated, removed, swapped; and ends cut off."""

from __future__ import annotations

import random

from jit_approval.audit import checkpoints, merkle, notes, places
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal, TreeHead
from tests.live_histories import NAME
from tests.tampering.events import rewrite
from tests.tampering.rows import (
    remove,
    some,
    write,
)

ATTACKER = notes.Signer(NAME, b"an attacker's key, 32 bytes long")


def resign(random_: random.Random) -> str:
    """Sign a checkpoint with another key, or all from one on, one following the other; perhaps after a rewrite."""
    rows = list(Checkpoint.objects.order_by("number"))
    begin = random_.randrange(len(rows))
    done = rewrite(random_) if random_.random() < 0.4 else "nothing else"
    end = len(rows) if random_.random() < 0.6 else begin + 1
    leaves = [
        places.leaf(seal.event) for seal in Seal.objects.select_related("event").order_by("pk")
    ]
    after = _digest(rows[begin - 1].note) if begin else None
    for row in rows[begin:end]:
        tree = merkle.Frontier()
        for leaf in leaves[: row.size]:
            tree.append(leaf)
        time = int(row.at.timestamp())
        statement = checkpoints.Checkpoint(NAME, row.size, tree.root(), time, after)
        write(Checkpoint, row.pk, kind="checkpoint", note=checkpoints.sign(statement, ATTACKER))
        after = checkpoints.digest(statement.text())
    return f"statements {begin} to {end - 1}, with {done}"


def usurp(random_: random.Random) -> str:
    """Name oneself the successor, or sign on without that."""
    last = Checkpoint.objects.latest("number")
    time, after = int(last.at.timestamp()), _digest(last.note)
    if random_.random() < 0.6:
        rotation = checkpoints.Rotation(NAME, ATTACKER.verifier, time, after)
        _append(checkpoints.sign(rotation, ATTACKER), last, "rotation")
        after = checkpoints.digest(rotation.text())
    tree = merkle.Frontier()
    for seal in Seal.objects.select_related("event").filter(index__lt=last.size).order_by("pk"):
        tree.append(places.leaf(seal.event))
    statement = checkpoints.Checkpoint(NAME, last.size, tree.root(), time, after)
    _append(checkpoints.sign(statement, ATTACKER), last, "checkpoint")
    return "a statement of one's own at the end"


def replay(random_: random.Random) -> str:
    """State again what was stated before: in place of a later statement, or after the last."""
    old = some(random_, Checkpoint.objects.all())
    if random_.random() < 0.5:
        _append(old.note, old, old.kind)
        return f"statement {old.number} at the end"
    later = some(random_, Checkpoint.objects.filter(number__gt=old.number))
    values = {"note": old.note, "size": old.size, "at": old.at, "kind": old.kind}
    write(Checkpoint, later.pk, **some(random_, [values, {"note": old.note}]))
    return f"statement {old.number} for {later.number}"


def drop_statement(random_: random.Random) -> str:
    """Remove a statement amid the others; perhaps closing the gap."""
    last = Checkpoint.objects.latest("number").number
    gone = some(random_, Checkpoint.objects.filter(number__lt=last))
    remove(Checkpoint.objects.filter(pk=gone.pk))
    if random_.random() < 0.5:
        for number in range(gone.number + 1, last + 1):
            Checkpoint.objects.filter(pk=number).update(number=number - 1)
    return f"statement {gone.number}"


def swap_statements(random_: random.Random) -> str:
    """Let two statements have each other's number, or each other's note."""
    one, two = some(random_, Checkpoint.objects.all()), some(random_, Checkpoint.objects.all())
    names = ["note"] if random_.random() < 0.5 else ["note", "kind", "size", "at"]
    values = [{name: getattr(row, name) for name in names} for row in (two, one)]
    write(Checkpoint, one.pk, **values[0])
    write(Checkpoint, two.pk, **values[1])
    return f"statements {one.number} and {two.number}: {names}"


def _append(note: str, like: Checkpoint, kind: str) -> None:
    number = Checkpoint.objects.latest("number").number + 1
    Checkpoint.objects.create(number=number, kind=kind, size=like.size, at=like.at, note=note)


def _digest(note: str) -> bytes:
    return checkpoints.digest(notes.split(note)[0])


def truncate_some(random_: random.Random) -> str:
    """Remove the end of one table, or of two, and leave the rest."""
    last = Checkpoint.objects.latest("number").size
    size = random_.randrange(last)
    how = random_.choice(["seals", "events", "seals and events", "seals and the head"])
    gone = list(Seal.objects.filter(index__gte=size).values_list("event_id", flat=True))
    if "seals" in how:
        remove(Seal.objects.filter(index__gte=size))
    if "events" in how:
        remove(AuditEvent.objects.filter(pk__in=gone))
    if "head" in how:
        TreeHead.objects.update(size=size)
    return f"{how} from {size} on"


def roll_back(random_: random.Random) -> str:
    """Go back to an earlier checkpoint, in all tables: nothing in what remains says that there was more.

    Earlier than the last one, that is: what came after that, such as a change of keys, nobody could have kept.
    """
    *earlier, last = Checkpoint.objects.filter(kind="checkpoint").order_by("number")
    to = some(random_, earlier)
    remove(Checkpoint.objects.filter(number__gt=to.number))
    kept = Seal.objects.filter(index__lt=to.size).values("event")
    for event in AuditEvent.objects.exclude(pk__in=kept).order_by("-pk"):
        if event.approval_request_id is not None:
            values = {"audit_seq": event.sequence - 1, "audit_head": event.previous_hash}
            rows = ApprovalRequest.objects.filter(pk=event.approval_request_id)
            rows.filter(audit_seq__gte=event.sequence).update(**values)
    gone = AuditEvent.objects.exclude(pk__in=kept).values_list("pk", flat=True)
    remove(AuditEvent.objects.filter(pk__in=list(gone)))
    remove(Seal.objects.filter(index__gte=to.size))
    remove(ApprovalRequest.objects.filter(audit_seq=0))
    TreeHead.objects.update(size=to.size)
    return f"from statement {last.number} to {to.number}"


def drop_last_statements(random_: random.Random) -> str:
    """Remove the last statements alone: the events stay, and seem not to be signed yet."""
    rows = list(Checkpoint.objects.filter(kind="checkpoint").order_by("number"))
    begin = random_.randrange(len(rows))
    remove(Checkpoint.objects.filter(number__gte=rows[begin].number))
    return f"statements from {rows[begin].number} on"
