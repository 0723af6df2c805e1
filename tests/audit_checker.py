"""A second, small implementation of what an auditor checks, from the documents alone: RFC 9162 §2.1, docs/audit.md.

It shares no code with the package and is written as the definitions read: recursive, all in memory, slow.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


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


def verified(vkey: str, text: bytes, lines: list[str]) -> bool:
    """Whether the key with this text form signed, by one of the signature lines of a note."""
    name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    public = base64.b64decode(encoded)[1:]
    assert sha(name.encode() + b"\n\x01" + public)[:4].hex() == key_id
    for line in lines:
        dash, who, signature = line.split(" ")
        raw = base64.b64decode(signature, validate=True)
        if dash == "\u2014" and who == name and raw[:4].hex() == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text)
            except InvalidSignature:
                return False
            return base64.b64encode(raw).decode() == signature
    return False


def is_sound(folder: Path, vkey: str, kept: str) -> bool:
    """Whether an export is whole, to the event and to the bit, and no older than the checkpoint `kept`."""
    try:
        leaves = events_of(folder)
        return leaves is not None and signed(folder, vkey, kept, leaves)
    except (ValueError, KeyError, TypeError, AssertionError, OSError):
        return False


def lines_of(path: Path) -> list[str]:
    text = path.read_bytes().decode()
    assert text.endswith("\n")
    return text[:-1].split("\n")


def events_of(folder: Path) -> list[bytes] | None:
    """The contents of the leaves; None where an event is not what it should be."""
    lines = [line for path in sorted(folder.glob("events-*.jsonl")) for line in lines_of(path)]
    leaves: list[bytes] = []
    heads: dict[str, tuple[int, str]] = {}
    bare, hashes, allowed = set(), set(), set()
    for number, line in enumerate(lines):
        event = json.loads(line)
        assert re.fullmatch("[0-9a-f]{64}", event["hash"])
        if event["body"] is None:
            again = {"index": number, "hash": event["hash"], "body": None}
            bare.add(number)
            hashes.add(event["hash"])
        else:
            again = {name: event[name] for name in ("index", "previous", "hash", "body")}
            if "origin" in event:
                again["origin"] = event["origin"]
            assert event["index"] == number
            assert sha(f"{event['previous']}\n{event['body']}".encode()).hex() == event["hash"]
            body = json.loads(event["body"])
            if body["request"] is None:
                assert (body["sequence"], event["previous"]) == (1, "")
            else:
                last, head = heads.get(body["request"], (0, ""))
                assert (body["sequence"], event["previous"]) == (last + 1, head) or (
                    body["sequence"] > last + 1 and event["previous"] in hashes
                )
                heads[body["request"]] = (body["sequence"], event["hash"])
            committed = body["by"].get("origin") if isinstance(body.get("by"), dict) else None
            origin = again.get("origin")
            assert committed == (None if origin is None else sha(origin.encode()).hex())
            if body["kind"] == "erased":
                for begin, end in body["data"]["leaves"]:
                    allowed.update(range(begin, min(end, number)))
        assert json.dumps(again, separators=(",", ":"), ensure_ascii=False) == line
        leaves.append(bytes.fromhex(event["hash"]))
    return leaves if bare <= allowed else None


def signed(folder: Path, vkey: str, kept: str, leaves: list[bytes]) -> bool:
    """Whether every statement is signed, follows the one before, and is true of the leaves."""
    after, size, was_kept = "", 0, False
    for line in lines_of(folder / "checkpoints.jsonl"):
        note = json.loads(line)["note"]
        assert json.dumps({"note": note}, separators=(",", ":"), ensure_ascii=False) == line
        was_kept = was_kept or note == kept
        body, _, tail = note.rpartition("\n\n")
        assert tail.endswith("\n")
        text = (body + "\n").encode()
        assert verified(vkey, text, tail[:-1].split("\n"))
        rows = body.split("\n")
        assert rows[3].startswith("time ")
        assert rows[4:] == ([f"after {after}"] if after else [])
        after = base64.b64encode(sha(text)).decode()
        if rows[0] == "jit-approval/key-rotation/v1":
            vkey = rows[2]
            assert verified(vkey, text, tail[:-1].split("\n"))
            continue
        assert rows[0] == vkey.partition("+")[0]
        assert size <= int(rows[1]) <= len(leaves)
        size = int(rows[1])
        assert base64.b64decode(rows[2]) == mth(leaves[:size])
    _, kept_size, root = kept.split("\n")[:3]
    assert int(kept_size) <= size == len(leaves)
    return was_kept and base64.b64decode(root) == mth(leaves[: int(kept_size)])
