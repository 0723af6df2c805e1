"""Which headers belong to a call, and not to a question about it."""

from __future__ import annotations

_NAMES = """
accept content-length content-type content-encoding transfer-encoding expect prefer range origin
approval-id approval-reason idempotency-key
if-match if-none-match if-modified-since if-unmodified-since if-range
"""
OF_THE_CALL = frozenset(_NAMES.split())
