"""Merkle trees as RFC 9162 §2.1 has them, over SHA-256: roots, inclusion proofs, consistency proofs.

Pure. A tree grows in logarithmic memory (`Frontier`); proofs are made from the hashes of complete subtrees, which
whoever keeps a tree looks up where it keeps them (`Lookup`). A complete subtree is named by its level (0: a leaf)
and its position among those of its level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Lookup = Callable[[int, int], bytes]
"""From level and position to the hash of a complete subtree."""


class ProofError(ValueError):
    """A proof does not prove what it is said to."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf with this content (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two others (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows, of which no more is kept than is needed to grow on: one hash for each bit of its size."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Go on from `size` leaves; `hashes` are those of `subtrees(0, size)`."""
        if len(hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees")
        self.size = size
        self._hashes = list(hashes)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add the hash of a leaf; return the hashes of the subtrees it completes, by level, the leaf itself first."""
        completed = [leaf]
        for _ in range(_trailing_ones(self.size)):
            completed.append(node_hash(self._hashes.pop(), completed[-1]))
        self._hashes.append(completed[-1])
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        return _joined(self._hashes) if self._hashes else EMPTY_ROOT


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1


def _joined(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over adjacent complete subtrees, from left to right, each smaller than the one before."""
    return reduce(lambda right, left: node_hash(left, right), reversed(hashes))


def subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Split a subtree's leaves, `begin` to before `end`, into complete subtrees: (level, position), left to right."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def _hash_over(begin: int, end: int, lookup: Lookup) -> bytes:
    return _joined([lookup(level, position) for level, position in subtrees(begin, end)])


def frontier(size: int, lookup: Lookup) -> Frontier:
    """Return the tree of the first `size` leaves, ready to grow on."""
    return Frontier(size, [lookup(level, position) for level, position in subtrees(0, size)])


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return the leaves under each hash of an inclusion proof, as (begin, end), from the leaf up (§2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    begin, end = 0, size
    ranges = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """Return the leaves under each hash of a consistency proof, as (begin, end) (§2.1.4.1)."""
    if not 0 < first <= second:
        raise ValueError(f"there is no proof from {first} leaves to {second}")
    begin, end = 0, second
    ranges = []
    while end > first:
        middle = begin + _split(end - begin)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    if begin:
        # Else it is the whole old tree, whose root whoever checks has.
        ranges.append((begin, end))
    return ranges[::-1]


def inclusion_proof(index: int, size: int, lookup: Lookup) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of the first `size` leaves (RFC 9162 §2.1.3.1)."""
    return [_hash_over(begin, end, lookup) for begin, end in inclusion_ranges(index, size)]


def consistency_proof(first: int, second: int, lookup: Lookup) -> list[bytes]:
    """Return the proof that the tree of `first` leaves is the beginning of that of `second` (RFC 9162 §2.1.4.1)."""
    return [_hash_over(begin, end, lookup) for begin, end in consistency_ranges(first, second)]


def check_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check an inclusion proof for a leaf's hash, as RFC 9162 §2.1.3.2 does it.

    Raises:
        ProofError: the proof does not lead from this leaf, at this place, to this root.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    place, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ProofError("the proof is too long")
        if place & 1 or place == last:
            found = node_hash(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    if found != root:
        raise ProofError("the proof leads to another root")


def check_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a tree is the beginning of a later one, as RFC 9162 §2.1.4.2 does it.

    Raises:
        ProofError: the proof does not show it.
    """
    if not 0 <= first <= second:
        raise ProofError(f"{first} leaves are not the beginning of {second}")
    if first == second or first == 0:
        _check_trivial(first, second, first_root, second_root, proof)
        return
    steps = list(proof)
    if first & (first - 1) == 0:
        steps.insert(0, first_root)
    if not steps:
        raise ProofError("the proof is too short")
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if place & 1 or place == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, step)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    if old != first_root or new != second_root:
        raise ProofError("the proof leads to other roots")


def _check_trivial(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    if proof:
        raise ProofError("the proof is too long")
    if first == 0 and first_root != EMPTY_ROOT:
        raise ProofError("the root of no leaves is another")
    if first == second and first_root != second_root:
        raise ProofError("the same size, and two roots")
