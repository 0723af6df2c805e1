"""Events removed, swapped, rewritten, emptied and put in, with their places and the requests they belong to."""

from __future__ import annotations

import json
import random

from jit_approval import clock
from jit_approval.audit import chain, links, merkle, origins, places
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal, TreeHead
from tests.tampering.rows import (
    CannotHere,
    another,
    remove,
    sealed,
    some,
    write,
)


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
    reseal(left)
    TreeHead.objects.update(size=max(len(left), TreeHead.objects.get().size))


def reseal(keys: list[int]) -> None:
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
        reseal(order)
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
    rechain(event, links.canonical(said))
    if random_.random() < 0.7:
        reseal(list(Seal.objects.order_by("index").values_list("event_id", flat=True)))
    return f"event {event.pk}"


def rechain(event: AuditEvent, body: str) -> None:
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
        reseal(order)
        TreeHead.objects.update(size=len(order))
    return how


def forged(
    request: ApprovalRequest | None, kind: str = "approved", target: str = "approved"
) -> AuditEvent:
    """Write an event as the package would; the request's own row is left as it was."""
    at = clock.now("default")
    if request is None:
        event = chain.single_event("allowed", at=at, label="eve", data={"forged": True})
    else:
        event = chain.next_event(request, kind, at=at, target=target, data={})
    event.save(force_insert=True)
    return event
