"""A second, small implementation of what an auditor checks, from the documents alone: RFC 9162 §2.1, docs/audit.md.

It shares no code with the package and is written as the definitions read: recursive, all in memory, slow.
"""

from __future__ import annotations

import hashlib


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    """§2.1.1: the Merkle Tree Hash of a list of leaf contents."""
    if not d:
        return sha(b"")
    if len(d) == 1:
        return sha(b"\x00" + d[0])
    k = largest_power_below(len(d))
    return sha(b"\x01" + mth(d[:k]) + mth(d[k:]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    """§2.1.3.1: PATH(m, D_n)."""
    if len(d) == 1:
        return []
    k = largest_power_below(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    """§2.1.4.1: PROOF(m, D_n)."""
    return subproof(m, d, True)


def subproof(m: int, d: list[bytes], whole: bool) -> list[bytes]:
    if m == len(d):
        return [] if whole else [mth(d)]
    k = largest_power_below(len(d))
    if m <= k:
        return [*subproof(m, d[:k], whole), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def root_of(leaf: bytes, m: int, n: int, steps: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to, by walking down as PATH is defined."""
    if n == 1:
        if steps:
            raise ValueError("too long")
        return leaf
    if not steps:
        raise ValueError("too short")
    k = largest_power_below(n)
    if m < k:
        return sha(b"\x01" + root_of(leaf, m, k, steps[:-1]) + steps[-1])
    return sha(b"\x01" + steps[-1] + root_of(leaf, m - k, n - k, steps[:-1]))
