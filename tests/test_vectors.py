"""The published digests, by the package and by an implementation that shares nothing with it."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jit_approval import fingerprint

VECTORS = json.loads((Path(__file__).parent / "vectors" / "fingerprint-v1.json").read_text())
CASES = [pytest.param(one, id=one["name"]) for one in VECTORS["vectors"]]
ORDER = [
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
]


def raw(value: str | None) -> bytes | None:
    if value is None:
        return None
    return bytes.fromhex(value[4:]) if value.startswith("hex:") else value.encode()


def independent(fields: dict[str, str | None]) -> str:
    domain = b"jit-approval/call/v1"
    hashed = sha256(struct.pack(">I", len(domain)) + domain)
    for name in ORDER:
        value = raw(fields[name])
        hashed.update(struct.pack(">I", len(name)) + name.encode())
        hashed.update(b"\xff" * 8 if value is None else struct.pack(">Q", len(value)) + value)
    return hashed.hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_published_digests_hold(case):
    fields = {name: raw(value) for name, value in case["fields"].items()}
    assert fingerprint.inner_digest(fields) == case["digest"]


@pytest.mark.parametrize("case", CASES)
def test_an_independent_implementation_agrees(case):
    assert independent(case["fields"]) == case["digest"]


def test_no_two_vectors_share_a_digest():
    assert len({one["digest"] for one in VECTORS["vectors"]}) == len(VECTORS["vectors"])


MAPS = st.dictionaries(st.text(max_size=4), st.none() | st.binary(max_size=12), max_size=4)


@given(MAPS, MAPS)
def test_no_two_calls_encode_alike(one, other):
    same = list(one.items()) == list(other.items())
    assert (fingerprint.encode(b"d", one) == fingerprint.encode(b"d", other)) is same
