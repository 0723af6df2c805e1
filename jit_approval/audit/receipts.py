"""A receipt: what was asked, who approved it and what became of it, with the proof that the signed trail says so.

All that a receipt says in its own words is derived from its events. Whoever verifies derives it anew and compares, so
that nothing in it is believed that was not signed. Pure; see docs/audit.md for the form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jit_approval.audit import proofs
from jit_approval.audit.checkpoints import Checkpoint
from jit_approval.audit.findings import FORGED, Kind, NothingToCheck, Report
from jit_approval.audit.notes import Verifier
from jit_approval.audit.origins import State
from jit_approval.audit.proofs import Proven
from jit_approval.audit.trust import Trust

FORMAT = "jit-approval/receipt/v1"
MOST_BYTES = 64 * 1024 * 1024
"""No receipt is longer; what is, is not read into memory."""

# What has one of these, and cannot be read, is a receipt that was changed.
_NAMES = (b'"receipt"', b'"checkpoint"', b'"rotations"')
_VERDICTS = {"vote": None, "approved": "approve", "rejected": "reject"}


class NoReceipt(ValueError):
    """These events do not tell of a call that was asked for, run and ended."""


def compose(events: Sequence[Proven], checkpoint: str, rotations: Sequence[str]) -> dict[str, Any]:
    """Return the receipt over all events of one request, in order.

    `checkpoint` is the note whose tree they are proven to be in; `rotations` are the notes that led to its key.

    Raises:
        NoReceipt: they tell of no call that ended, or are not those of one request from its first on.
    """
    bodies = [_body(event) for event in events]
    names = {body.get("request") for body in bodies}
    if len(names) != 1 or not isinstance(name := names.pop(), str):
        raise NoReceipt("its events are not those of one request")
    return {
        "receipt": FORMAT,
        "request": name,
        **told(bodies),
        "events": [event.as_dict() for event in events],
        "checkpoint": checkpoint,
        "rotations": list(rotations),
    }


def told(bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what these contents of events say of the call.

    Raises:
        NoReceipt: there is no beginning, no run, or no end of it.
    """
    held = _first(bodies, "held")
    run = _first(bodies, "consumed")
    outcome = _first(bodies, "outcome")
    terms = _data(held).get("terms")
    terms = terms if isinstance(terms, dict) else {}
    settled = [_said(body) for body in bodies if body.get("kind") == "settled"]
    return {
        "action": _data(held).get("action"),
        "fingerprint": _data(held).get("fingerprint"),
        "policy": terms.get("policy_slug"),
        "policy_version": terms.get("policy_version"),
        "asked": _said(held),
        "votes": [_vote(body) for body in bodies if _is_vote(body)],
        "run": _said(run),
        "outcome": _said(outcome),
        # What a person found out where nobody recorded the end.
        "settled": settled[-1] if settled else None,
    }


def as_text(receipt: dict[str, Any]) -> str:
    """Return the receipt as it is handed out."""
    return json.dumps(receipt, indent=2, ensure_ascii=False) + "\n"


def verify(content: bytes, keys: Sequence[Verifier]) -> Report:
    """Check a receipt. `verified` in the report are its events, once nothing is wrong.

    Raises:
        LibraryMissing: no signature can be verified here.
        NothingToCheck: it is something else altogether.
    """
    report = Report(what="receipt")
    receipt = parse(content)
    if receipt is None:
        if not any(name in content for name in _NAMES):
            raise NothingToCheck("it is no receipt" if content else "it is empty")
        report.add(Kind.ALTERED, None, "it cannot be read as a receipt")
        return report
    trust = Trust(report, keys)
    for note in receipt["rotations"]:
        if isinstance(trust.read(note), Checkpoint):
            report.add(Kind.ALTERED, None, "a change of keys is none")
    checkpoint = trust.read(receipt["checkpoint"])
    if not trust.finish() and not isinstance(checkpoint, Checkpoint):
        report.add(Kind.UNSIGNED, None, "no trusted key vouches for its checkpoint")
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else None
    check(report, receipt, checkpoint)
    return report


def check(report: Report, receipt: dict[str, Any], checkpoint: Checkpoint | None) -> None:
    """Check all of a receipt but its signatures, against the checkpoint that is believed, if one is."""
    events = [proofs.from_dict(found) for found in receipt["events"]]
    report.events = len(events)
    sound = [event for event in events if event is not None]
    if len(sound) != len(events):
        report.add(Kind.ALTERED, None, "an event cannot be read")
        return
    _check_events(report, sound, checkpoint)
    try:
        again = compose(sound, receipt["checkpoint"], receipt["rotations"])
    except NoReceipt as error:
        report.add(Kind.MISSING, None, f"it is not whole: {error}")
        return
    for name in [*again, *(set(receipt) - set(again))]:
        if name not in receipt or name not in again or _differ(receipt[name], again[name]):
            report.add(Kind.ALTERED, None, f"what it says of {name!r} is not what its events say")
    if report.is_sound and checkpoint is not None:
        report.verified = len(events)
        report.told = {name: again[name] for name in told([_body(event) for event in sound])}


def parse(content: bytes) -> dict[str, Any] | None:
    """Return a receipt whose outermost members are of the types they should be; None where there is none."""
    try:
        found = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    sound = (
        isinstance(found, dict)
        and found.get("receipt") == FORMAT
        and isinstance(found.get("events"), list)
        and bool(found["events"])
        and isinstance(found.get("checkpoint"), str)
        and isinstance(found.get("rotations"), list)
        and all(isinstance(note, str) for note in found["rotations"])
    )
    return found if sound else None


def _check_events(report: Report, events: Sequence[Proven], checkpoint: Checkpoint | None) -> None:
    previous, last = "", -1
    for number, event in enumerate(events, start=1):
        record = event.record
        if record.index <= last:
            report.add(Kind.REORDERED, record.index, "it comes too late")
        last = max(last, record.index)
        if record.body is None:
            report.add(Kind.MISSING, record.index, "it has no content")
        elif not proofs.is_content_of(record):
            report.add(Kind.ALTERED, record.index, "its content is not what its hash says")
        elif _body(event).get("sequence") != number or record.previous != previous:
            report.add(
                Kind.MISSING, record.index, "the one before it, of the same request, is not there"
            )
        state = proofs.origin_state(record)
        if state is State.FORGED:
            report.add(Kind.ALTERED, record.index, FORGED)
        report.withheld += state is State.WITHHELD
        if checkpoint is not None and (
            event.size != checkpoint.size or not event.is_under(checkpoint.root)
        ):
            report.add(Kind.ALTERED, record.index, "it is not in the tree that was signed")
        previous = record.hash


def _body(event: Proven) -> dict[str, Any]:
    try:
        body = json.loads(event.record.body or "")
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _first(bodies: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    for body in bodies:
        if body.get("kind") == kind:
            return body
    raise NoReceipt(f"there is no event {kind!r}")


def _said(body: dict[str, Any]) -> dict[str, Any]:
    """Return when, by whom, and all that the event says beside."""
    return {"at": body.get("at"), "by": body.get("by"), **_data(body)}


def _vote(body: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": _VERDICTS[body["kind"]], **_said(body)}


def _is_vote(body: dict[str, Any]) -> bool:
    kind = body.get("kind")
    return isinstance(kind, str) and kind in _VERDICTS and body.get("by") is not None


def _data(body: dict[str, Any]) -> dict[str, Any]:
    data = body.get("data")
    return data if isinstance(data, dict) else {}


def _differ(one: Any, other: Any) -> bool:
    # As text: to Python, 1 and true and 1.0 are the same.
    return _plain(one) != _plain(other)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found
