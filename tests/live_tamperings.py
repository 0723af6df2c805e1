"""What somebody with all rights on the database can do to a trail, at random. Triggers are lifted where tests run.

Each act changes the rows of a history and returns what was done; `CannotHere` where there is nothing to do it to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import models

from jit_approval import clock
from jit_approval.audit import chain, checkpoints, links, merkle, notes, origins, places
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal, TreeHead
from tests.live_histories import NAME

ATTACKER = notes.Signer(NAME, b"an attacker's key, 32 bytes long")
TRAIL: tuple[type[models.Model], ...] = (AuditEvent, Seal, Checkpoint)


class CannotHere(Exception):
    """There is nothing that this could be done to."""


def some(random_: random.Random, rows: Iterable[Any]) -> Any:
    """Return any of the rows."""
    found = list(rows)
    if not found:
        raise CannotHere
    return random_.choice(found)


def sealed() -> models.QuerySet[AuditEvent]:
    """Return the events that a checkpoint covers, in their order."""
    size = Checkpoint.objects.latest("number").size
    return AuditEvent.objects.filter(seal__lt=size).order_by("seal")


def write(model: type[models.Model], pk: Any, **values: Any) -> None:
    """Overwrite columns of one row."""
    model._base_manager.filter(pk=pk).update(**values)


def remove(rows: models.QuerySet[Any]) -> None:
    """Delete rows, and nothing that hangs on them: there is nobody to ask about references."""
    rows._raw_delete("default")


# --- one column of one row --------------------------------------------------------------------------------------


def column(random_: random.Random) -> str:
    """Change a column, any of any row: a bit of it, or its value for another."""
    model = some(random_, TRAIL)
    row = some(random_, model._base_manager.all())
    field = some(random_, model._meta.concrete_fields)
    before = getattr(row, field.attname)
    after = another(field, before, random_)
    if is_unseen(row, field.name, after):
        raise CannotHere
    write(model, row.pk, **{field.attname: after})
    return f"{model.__name__}.{field.name} of {row.pk}: {before!r} -> {after!r}"


def another(field: models.Field[Any, Any], value: Any, random_: random.Random) -> Any:
    """Return another value that the column can hold."""
    if field.null and value is not None and random_.random() < 0.2:
        return None
    if isinstance(value, memoryview | bytes):
        return flipped(bytes(value), random_)
    if isinstance(value, datetime):
        steps = [timedelta(microseconds=1), timedelta(seconds=1), timedelta(hours=1)]
        return value + some(random_, steps) * some(random_, [-1, 1])
    if isinstance(value, int):
        return value ^ (1 << random_.randrange(12))
    if isinstance(value, str):
        return changed(value, random_)
    keys = list(field.related_model._base_manager.values_list("pk", flat=True))  # type: ignore[union-attr]
    return some(random_, [key for key in keys if key != value])


def flipped(value: bytes, random_: random.Random) -> bytes:
    """Return bytes with a bit changed, or one more or less."""
    place = random_.randrange(len(value))
    how = random_.random()
    if how < 0.1:
        return value[:place] + value[place + 1 :]
    if how < 0.2:
        return value[:place] + b"\0" + value[place:]
    return value[:place] + bytes([value[place] ^ (1 << random_.randrange(8))]) + value[place + 1 :]


def changed(value: str, random_: random.Random) -> str:
    """Return text with a character changed by a bit, put in or taken out."""
    if not value:
        return some(random_, ["x", "eve", "approved", " "])
    place, how = random_.randrange(len(value)), random_.random()
    if how < 0.15:
        return value[:place] + value[place + 1 :]
    if how < 0.3:
        return value[:place] + some(random_, "0x \n") + value[place:]
    other = chr(ord(value[place]) ^ (1 << random_.randrange(5)))
    other = "x" if other == "\0" or "\ud800" <= other <= "\udfff" else other
    return value[:place] + other + value[place + 1 :]


# Of what was erased no signature covers these any more: docs/audit.md, "Erasing and pruning".
UNCOVERED = ("kind", "at", "source", "target")


def is_unseen(row: models.Model, name: str, after: Any) -> bool:
    """Tell whether nothing that was hashed or signed says this column: those of `UNSEEN`, and no others."""
    if isinstance(row, Checkpoint):
        return name == "at" and int(after.timestamp()) == int(row.at.timestamp())
    if not isinstance(row, AuditEvent):
        return False
    if name == "actor":
        # As the removal of an account leaves it; or as it was before that.
        said = json.loads(row.body)["by"] if row.body else None
        return after is None or (bool(said) and str(after) == said["pk"])
    if name == "id":
        return not hasattr(row, "seal")
    return not row.body and name in UNCOVERED


# --- events -----------------------------------------------------------------------------------------------------


def drop_events(random_: random.Random) -> str:
    """Remove some events, with their seals or without."""
    rows = list(sealed())
    begin = random_.randrange(len(rows))
    gone = rows[begin : begin + random_.choice([1, 1, 2, 5])]
    return _drop([event.pk for event in gone], random_)


def drop_request(random_: random.Random) -> str:
    """Remove all that happened to a request, perhaps the request itself too."""
    request = some(random_, sealed().exclude(approval_request=None)).approval_request_id
    gone = list(AuditEvent.objects.filter(approval_request=request).values_list("pk", flat=True))
    done = _drop(gone, random_)
    if random_.random() < 0.5:
        remove(ApprovalRequest.objects.filter(pk=request))
        done += ", and the request"
    return done


def drop_request_alone(random_: random.Random) -> str:
    """Remove a request, and leave its events."""
    request = some(random_, ApprovalRequest.objects.all())
    remove(ApprovalRequest.objects.filter(pk=request.pk))
    return f"request {request.pk}"


def move_an_end(random_: random.Random) -> str:
    """Change how far it is: that of a request, or that of the tree."""
    if random_.random() < 0.3:
        head = TreeHead.objects.get()
        size = another(TreeHead._meta.get_field("size"), head.size, random_)
        write(TreeHead, head.pk, size=size)
        return f"the head, from {head.size} to {size}"
    request = some(random_, ApprovalRequest.objects.all())
    name = some(random_, ["audit_seq", "audit_head"])
    field = ApprovalRequest._meta.get_field(name)
    after = another(field, getattr(request, name), random_)
    write(ApprovalRequest, request.pk, **{name: after})
    return f"request {request.pk}: {name} {after!r}"


def drop_unsealed(random_: random.Random) -> str:
    """Remove an event of a request that was not sealed yet; the request stays."""
    event = some(random_, places.waiting("default").exclude(approval_request=None))
    remove(AuditEvent.objects.filter(pk=event.pk))
    return f"event {event.pk}"


def _drop(gone: list[int], random_: random.Random) -> str:
    how = random_.choice(["with seals", "without seals", "and closing the gap"])
    if how != "without seals":
        remove(Seal.objects.filter(event__in=gone))
    remove(AuditEvent.objects.filter(pk__in=gone))
    if how == "and closing the gap":
        renumber()
    return f"events {gone}, {how}"


def renumber() -> None:
    """Give all that is left the places from 0 on, each with the hashes that it should have then."""
    left = list(Seal.objects.order_by("index").values_list("event_id", flat=True))
    _reseal(left)
    TreeHead.objects.update(size=max(len(left), TreeHead.objects.get().size))


def _reseal(keys: list[int]) -> None:
    events = AuditEvent.objects.in_bulk(keys)
    tree, rows = merkle.Frontier(), []
    for index, pk in enumerate(keys):
        nodes = b"".join(tree.append(places.leaf(events[pk])))
        rows.append(Seal(index=index, event_id=pk, nodes=nodes))
    remove(Seal.objects.all())
    Seal.objects.bulk_create(rows)


def content_columns() -> list[str]:
    """Return the columns of an event but its key."""
    return [field.attname for field in AuditEvent._meta.concrete_fields if not field.primary_key]


def swap_contents(random_: random.Random) -> str:
    """Let two events say what the other one did, in all columns but the key."""
    one, two = some(random_, sealed()), some(random_, sealed())
    if one.pk == two.pk:
        raise CannotHere
    values = [{name: getattr(row, name) for name in content_columns()} for row in (two, one)]
    write(AuditEvent, one.pk, approval_request=None)  # two of one number would not be let be
    write(AuditEvent, two.pk, **values[1])
    write(AuditEvent, one.pk, **values[0])
    return f"{one.pk} and {two.pk}"


def swap_sequences(random_: random.Random) -> str:
    """Let two events of a request have each other's number; perhaps in their content, too, hashed anew."""
    one = some(random_, sealed().exclude(approval_request=None))
    others = sealed().filter(approval_request=one.approval_request_id).exclude(pk=one.pk)
    two = some(random_, others)
    write(AuditEvent, one.pk, sequence=9999)
    write(AuditEvent, two.pk, sequence=one.sequence)
    write(AuditEvent, one.pk, sequence=two.sequence)
    return f"{one.pk} and {two.pk}"


def swap_seals(random_: random.Random) -> str:
    """Let two events have each other's place; perhaps with the hashes of the tree as they should be then."""
    order = list(Seal.objects.order_by("index").values_list("event_id", flat=True))
    a, b = random_.randrange(len(order)), random_.randrange(len(order))
    order[a], order[b] = order[b], order[a]
    if random_.random() < 0.5:
        _reseal(order)
        return f"places {a} and {b}, hashes too"
    nodes = dict(Seal.objects.values_list("index", "nodes"))
    remove(Seal.objects.all())
    Seal.objects.bulk_create(
        Seal(index=index, event_id=pk, nodes=nodes[index]) for index, pk in enumerate(order)
    )
    return f"places {a} and {b}"


def rewrite(random_: random.Random) -> str:
    """Change what an event says, and all that hangs on it: its chain, the request, the tree, but no signature."""
    event = some(random_, sealed().exclude(body=""))
    said = json.loads(event.body)
    said["data"] = {"forged": random_.random().hex()}
    _rechain(event, links.canonical(said))
    if random_.random() < 0.7:
        _reseal(list(Seal.objects.order_by("index").values_list("event_id", flat=True)))
    return f"event {event.pk}"


def _rechain(event: AuditEvent, body: str) -> None:
    """Write a body, and let all later events of the request follow it."""
    previous, head = event.previous_hash, links.digest(event.previous_hash, body)
    write(AuditEvent, event.pk, body=body, hash=head)
    if event.approval_request_id is None:
        return
    rows = AuditEvent.objects.filter(approval_request=event.approval_request_id)
    for later in rows.filter(sequence__gt=event.sequence).order_by("sequence"):
        previous, head = head, links.digest(head, later.body) if later.body else later.hash
        write(AuditEvent, later.pk, previous_hash=previous, hash=head)
    write(ApprovalRequest, event.approval_request_id, audit_head=head)


def blank(random_: random.Random) -> str:
    """Empty an event as an erasure does, without one; perhaps with an act of one's own, which is not sealed."""
    event = some(random_, AuditEvent.objects.exclude(body=""))
    emptied = {"body": "", "origin": "", "actor_label": "", "actor_id": None}
    write(AuditEvent, event.pk, **some(random_, [emptied, {"body": ""}]))
    return f"event {event.pk}"


def change_origin(random_: random.Random) -> str:
    """Say that somebody acted from elsewhere, from where another did, or from nowhere."""
    event = some(random_, AuditEvent.objects.all())
    texts = [
        "",
        origins.written("198.51.100.1", "eve"),
        some(random_, AuditEvent.objects.all()).origin,
    ]
    write(AuditEvent, event.pk, origin=some(random_, texts))
    return f"event {event.pk}"


def insert(random_: random.Random) -> str:
    """Put in an event of one's own: alone or at the end of a request's chain; with a place, or unannounced."""
    how = random_.choice(["amid the sealed", "beyond the head", "in a chain", "twice the same"])
    if how == "twice the same":
        event = some(random_, AuditEvent.objects.exclude(approval_request=None))
        event.pk, event.sequence = None, 1 + event.approval_request.audit_seq
        event.save(force_insert=True)
        return how
    request = some(random_, ApprovalRequest.objects.all()) if how == "in a chain" else None
    event = forged(request)
    if how == "beyond the head":
        index = TreeHead.objects.get().size + random_.choice([0, 0, 1, 7])
        Seal.objects.create(index=index, event=event, nodes=places.leaf(event))
    elif how == "amid the sealed":
        order = list(Seal.objects.order_by("index").values_list("event_id", flat=True))
        size = Checkpoint.objects.latest("number").size
        order.insert(random_.randrange(size), event.pk)
        _reseal(order)
        TreeHead.objects.update(size=len(order))
    return how


def forged(request: ApprovalRequest | None) -> AuditEvent:
    """Write an event as the package would; the request's own row is left as it was."""
    at = clock.now("default")
    if request is None:
        event = chain.single_event("allowed", at=at, label="eve", data={"forged": True})
    else:
        event = chain.next_event(request, "approved", at=at, target="approved", data={})
    event.save(force_insert=True)
    return event


# --- statements -------------------------------------------------------------------------------------------------


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


# --- the end ----------------------------------------------------------------------------------------------------


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


Act = Callable[[random.Random], str]

STRUCTURAL: tuple[Act, ...] = (
    drop_events,
    drop_request,
    drop_request_alone,
    drop_unsealed,
    move_an_end,
    swap_contents,
    swap_sequences,
    swap_seals,
    rewrite,
    blank,
    change_origin,
    insert,
    resign,
    usurp,
    replay,
    drop_statement,
    swap_statements,
    truncate_some,
)
"""Found whatever one has kept elsewhere."""

ENDINGS: tuple[Act, ...] = (roll_back, drop_last_statements)
"""Found with a checkpoint that was kept elsewhere, and with nothing else."""


# --- what nobody can see ----------------------------------------------------------------------------------------


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
    event = some(random_, AuditEvent.objects.filter(body=""))
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
    event = forged(request)
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
    said["data"] = {"forged": True}
    _rechain(event, links.canonical(said))
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
    remove(ApprovalRequest.objects.filter(pk=request.pk))
    return f"request {request.pk}"


def announce_an_erasure(random_: random.Random) -> str:
    event = some(random_, sealed().exclude(body="").exclude(kind="erased"))
    data = {"leaves": [[event.seal.index, event.seal.index + 1]], "why": "forged"}
    chain.single_event("erased", at=clock.now("default"), label="eve", data=data).save()
    write(AuditEvent, event.pk, body="", origin="", actor_label="", actor_id=None)
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
    "AuditEvent.kind, at, source, target of what was erased": (
        change_what_was_erased,
        "the content that said it is gone, by authority",
    ),
    "Checkpoint.note with one more signature": (
        sign_besides,
        "signed notes may have those of strangers, which nobody believes",
    ),
    "an event written as the package would": (
        write_an_event,
        "as the application could; it is sealed and stays",
    ),
    "an event rewritten before it was sealed, with its chain": (
        rewrite_unsealed,
        "nothing was signed yet",
    ),
    "an event of no request removed before it was sealed": (
        drop_unsealed_alone,
        "nothing was signed yet, and nothing follows it",
    ),
    "a request removed with all its events before they were sealed": (
        drop_unsealed_request,
        "nothing was signed yet",
    ),
    "an event emptied, and an act of erasure written": (
        announce_an_erasure,
        "as the application could: not called verified until it is signed, and then it stays",
    ),
}
"""By what it is: an act that no verification of this database can find, and why."""


def snapshot() -> str:
    """Return all that a verification of the database reads, to tell whether an act has changed anything."""
    rows = [sorted(map(repr, model._base_manager.values_list())) for model in TRAIL]
    heads = sorted(map(repr, ApprovalRequest.objects.values_list("pk", "audit_seq", "audit_head")))
    return json.dumps([*rows, heads, list(TreeHead.objects.values_list("size", flat=True))])
