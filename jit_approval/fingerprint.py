"""Fingerprint v1: the digests that bind an approval to one exact call, and to what the decider saw.

The inner digest is public and has test vectors (`tests/vectors/fingerprint-v1.json`). What is stored is its
HMAC under a server key, for a body such as `{"amount": 100}` could be guessed from a bare digest.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from django.db import models

from jit_approval.calls import Bound

CALL = b"jit-approval/call/v1"
FUNCTION = b"jit-approval/function/v1"
"""The domain of calls of functions: an approval of one is no good to any HTTP call."""
STATE = b"jit-approval/state/v1"

CALL_FIELDS = (
    "method",
    "action",
    "scheme",
    "host",
    "route",
    "kwargs",
    "path",
    "query",
    "version",
    "media_type",
    "body",
    "headers",
    "language",
    "time_zone",
    "requester",
    "credential",
    "scope",
    "object",
)
"""The fields of the call digest, in the order they are hashed."""

_ABSENT = b"\xff" * 8


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys, no white space and ASCII only; what JSON lacks is taken as text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """Return what JSON lacks in what it has: the same in every process, and another for another value."""
    if isinstance(value, models.Model):
        return [value._meta.label_lower, str(value.pk), str(value)]  # two may bear one name
    if isinstance(value, models.QuerySet):
        return list(value)  # its text ends after twenty
    if isinstance(value, AbstractSet):
        return sorted(value, key=canonical_json)  # its order changes with the process
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def encode(domain: bytes, fields: Mapping[str, bytes | None]) -> bytes:
    """Return the bytes that are hashed: the domain, then each field as it comes.

    A field is the length of its name (4 bytes, big-endian), the name, the length of its value (8 bytes) and
    the value; an absent value (None) has the length 2^64-1 and no bytes. No two lists of fields share one.
    """
    pieces = [len(domain).to_bytes(4, "big"), domain]
    for name, value in fields.items():
        label = name.encode("utf-8", "surrogatepass")
        pieces += [len(label).to_bytes(4, "big"), label]
        pieces += [_ABSENT] if value is None else [len(value).to_bytes(8, "big"), value]
    return b"".join(pieces)


def inner_digest(fields: Mapping[str, bytes | None], domain: bytes = CALL) -> str:
    """Return the public call digest, SHA-256 in hex. `fields` holds every name of `CALL_FIELDS`."""
    ordered = {name: fields[name] for name in CALL_FIELDS}
    return hashlib.sha256(encode(domain, ordered)).hexdigest()


def keyed(key: bytes, purpose: str, message: bytes) -> str:
    """Return the HMAC-SHA-256 in hex under the server key, for one purpose."""
    return hmac.digest(key, purpose.encode() + b"\0" + message, "sha256").hex()


def bind(
    fields: Mapping[str, bytes | None],
    state: Mapping[str, bytes | None],
    *,
    key: bytes,
    domain: bytes = CALL,
) -> Bound:
    """Return the digests to store for a call, and for what was seen around it."""
    ordered_state = dict(sorted(state.items()))
    return Bound(
        fingerprint=keyed(key, "call", bytes.fromhex(inner_digest(fields, domain))),
        parts=_parts(key, "part", fields),
        state_digest=keyed(key, "state", encode(STATE, ordered_state)),
        state_parts=_parts(key, "state-part", ordered_state),
    )


def differing(stored: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that differ. Names only: the values are nobody's business."""
    names = {*stored, *present}
    return sorted(name for name in names if stored.get(name) != present.get(name))


def _parts(key: bytes, purpose: str, fields: Mapping[str, bytes | None]) -> dict[str, str]:
    # 64 bits tell a changed part from an unchanged one; they authorise nothing.
    return {
        name: keyed(key, purpose, encode(b"", {name: value}))[:16] for name, value in fields.items()
    }
