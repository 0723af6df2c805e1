"""The sealed trail in the database: places, hashes of subtrees, and what waits for a place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from django.db import router
from django.db.models import Exists, OuterRef, QuerySet

from jit_approval.audit import merkle
from jit_approval.audit.records import Record, is_hash
from jit_approval.models import AuditEvent, Seal, TreeHead

_HASH = merkle.HASH_BYTES
_CHUNK = 1000


class Damaged(Exception):
    """The sealed trail is not whole: a row is missing, or is not what it was."""


def database() -> str:
    """Return the alias of the database that the trail is written to."""
    return router.db_for_write(AuditEvent)


class Nodes:
    """Hashes of complete subtrees, by level and position, from the rows of the leaves that completed them."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._known: dict[int, bytes] = {}

    def load(self, ranges: Iterable[tuple[int, int]]) -> Nodes:
        """Read, in one query, what the hashes over these stretches of leaves need."""
        wanted = {
            _completing(level, position)
            for begin, end in ranges
            for level, position in merkle.subtrees(begin, end)
        }
        rows = Seal.objects.using(self._alias).filter(pk__in=wanted - self._known.keys())
        self._known |= {row.index: bytes(row.nodes) for row in rows}
        return self

    def __call__(self, level: int, position: int) -> bytes:
        """Return the hash of a complete subtree.

        Raises:
            Damaged: its row is not there, or holds less.
        """
        index = _completing(level, position)
        if index not in self._known:
            self.load([(position << level, (position + 1) << level)])
        found = self._known.get(index, b"")[level * _HASH : (level + 1) * _HASH]
        if len(found) != _HASH:
            raise Damaged(f"The seal of event {index} is missing, or was cut short.")
        return found


def _completing(level: int, position: int) -> int:
    """Return the leaf with which a subtree was complete."""
    return ((position + 1) << level) - 1


def frontier(alias: str, size: int) -> merkle.Frontier:
    """Return the tree of the first `size` events, ready to grow on."""
    return merkle.frontier(size, Nodes(alias).load([(0, size)]))


def inclusion_proof(alias: str, index: int, size: int) -> list[bytes]:
    """Return the proof that event `index` is in the tree of the first `size` (one query)."""
    nodes = Nodes(alias).load(merkle.inclusion_ranges(index, size))
    return merkle.inclusion_proof(index, size, nodes)


def inclusion_proofs(alias: str, indices: Sequence[int], size: int) -> list[list[bytes]]:
    """Return the proofs that these events are in the tree of the first `size` (one query for all)."""
    ranges = [merkle.inclusion_ranges(index, size) for index in indices]
    nodes = Nodes(alias).load(itertools.chain.from_iterable(ranges))
    return [merkle.inclusion_proof(index, size, nodes) for index in indices]


def sealed(alias: str, begin: int, end: int) -> Iterator[Seal]:
    """Return the places from `begin` to before `end`, with their events, in little memory.

    Raises:
        Damaged: one of them is not there.
    """
    for first in range(begin, end, _CHUNK):
        last = min(first + _CHUNK, end)
        rows = Seal.objects.using(alias).filter(pk__gte=first, pk__lt=last)
        expected = first
        for row in rows.select_related("event").order_by("pk"):
            if row.index != expected:
                break
            yield row
            expected += 1
        if expected != last:
            raise Damaged(f"The seal of event {expected} is missing.")


def record(seal: Seal) -> Record:
    """Return an event as an export has it.

    Raises:
        Damaged: it cannot be one.
    """
    event = seal.event
    leaf(event)
    # What was erased has left an empty body, which no event has ever had.
    body, origin = event.body or None, event.origin or None
    return Record(seal.index, event.hash, event.previous_hash, body, origin)


def leaf(event: AuditEvent) -> bytes:
    """Return the hash of the event's leaf.

    Raises:
        Damaged: the event has no hash.
    """
    if not is_hash(event.hash):
        raise Damaged(f"Event number {event.pk} of the database has no hash.")
    return merkle.leaf_hash(bytes.fromhex(event.hash))


def head(alias: str) -> TreeHead:
    """Return how far the trail is sealed."""
    rows = TreeHead.objects.using(alias)
    found = rows.first()
    if found is None:
        # Another may be first: either makes the same.
        rows.bulk_create([TreeHead()], ignore_conflicts=True)
        found = rows.get()
    return found


def waiting(alias: str, after: int = 0) -> QuerySet[AuditEvent]:
    """Return the events without a place, oldest first, of those with a key beyond `after`."""
    # By its condition, not by a join: so that indexes alone tell, and only their end is read where `after` is near it.
    has_place = Seal.objects.using(alias).filter(event=OuterRef("pk"))
    rows = AuditEvent.objects.using(alias)
    if after:
        has_place, rows = has_place.filter(event_id__gt=after), rows.filter(pk__gt=after)
    rows = rows.filter(~Exists(has_place))
    return rows.order_by("pk").defer("body", "origin")


def next_waiting(alias: str, after: int, most: int) -> list[AuditEvent]:
    """Return the first events without a place, at most so many, of those with a key beyond `after`."""
    keys = list(waiting(alias, after).values_list("pk", flat=True)[:most])
    rows = AuditEvent.objects.using(alias).filter(pk__in=keys).order_by("pk")
    return list(rows.defer("body", "origin")) if keys else []
