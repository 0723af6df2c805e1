"""Random tampering with exports: all of it is found, by the package and by a second implementation; honest ones pass.

`JIT_TEST_TAMPERINGS` sets how many cases are tried (300 by default; the slow test tries 10,000).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from os import environ
from pathlib import Path

import pytest

from jit_approval.audit import checking, checkpoints, folder, links, merkle, notes
from jit_approval.audit.checkpoints import Checkpoint, Rotation
from jit_approval.audit.records import Record
from tests import audit_checker
from tests.audit_histories import ORIGIN, History, Writer, honest, signer, some_origin

KEY = signer().verifier
ATTACKER = signer("an attacker's")
CASES = int(environ.get("JIT_TEST_TAMPERINGS", "300"))


def status(path: Path, kept: str) -> int:
    export = folder.Folder(path)
    report = checking.verify(export.events(), export.statements(), [KEY], kept)
    report.unfinished += export.unfinished
    return report.status()


# --- what an attacker does: each changes a history, and may say that it could not ---------------------------------


def body_of(event: Record) -> dict[str, object]:
    return json.loads(event.body or "{}")


def changed_body(event: Record, random_: random.Random) -> str:
    """A body in which one field is another, or gone, or new."""
    body = body_of(event)
    name = random_.choice([*body, "new"])
    if name != "new" and random_.random() < 0.2:
        del body[name]
    else:
        body[name] = random_.choice([None, 0, 1, 2, "x", "2026-11-24", {"label": "eve"}])
    return links.canonical(body)


def change_content(history: History, random_: random.Random) -> None:
    place = some_content(history, random_)
    event = history.events[place]
    history.events[place] = replace(event, body=changed_body(event, random_))


def change_content_and_hash(history: History, random_: random.Random) -> None:
    place = some_content(history, random_)
    event = history.events[place]
    body = changed_body(event, random_)
    history.events[place] = replace(event, body=body, hash=links.digest(event.previous, body))


def rewrite_from_one_on(history: History, random_: random.Random) -> None:
    """Change one event, and every later one of its request so that the chain is whole again."""
    place = some_content(history, random_)
    request = body_of(history.events[place]).get("request")
    old, new = history.events[place].hash, ""
    event = history.events[place]
    body = links.canonical({**body_of(event), "data": {"forged": random_.random().hex()}})
    new = links.digest(event.previous, body)
    history.events[place] = replace(event, body=body, hash=new)
    for later in range(place + 1, len(history.events)):
        event = history.events[later]
        if (
            event.body is not None
            and event.previous == old
            and body_of(event)["request"] == request
        ):
            old = event.hash
            new = links.digest(new, event.body)
            previous = history.events[place].hash
            history.events[later] = replace(event, previous=previous, hash=new)
            place = later


def change_field(history: History, random_: random.Random) -> None:
    place = random_.randrange(len(history.events))
    event = history.events[place]
    another = random_.choice(history.events)
    history.events[place] = random_.choice(
        [
            replace(event, index=random_.randrange(100)),
            replace(event, hash=another.hash),
            replace(event, previous=another.hash),
            replace(event, body=another.body),
            replace(another, index=event.index),
        ]
    )


def drop(history: History, random_: random.Random) -> None:
    begin = random_.randrange(len(history.events))
    del history.events[begin : begin + random_.choice([1, 1, 2, 5])]
    maybe_renumber(history, random_)


def swap(history: History, random_: random.Random) -> None:
    a, b = (random_.randrange(len(history.events)) for _ in range(2))
    history.events[a], history.events[b] = history.events[b], history.events[a]
    maybe_renumber(history, random_)


def insert(history: History, random_: random.Random) -> None:
    place = random_.randrange(len(history.events) + 1)
    body = links.canonical({"request": None, "sequence": 1, "kind": "allowed", "data": {}})
    forged = Record(place, links.digest("", body), "", body)
    history.events.insert(place, random_.choice([forged, random_.choice(history.events)]))
    maybe_renumber(history, random_)


def blank(history: History, random_: random.Random) -> None:
    place = some_content(history, random_)
    history.events[place] = Record(place, history.events[place].hash, "", None)


def change_origin(history: History, random_: random.Random) -> None:
    """Change the address that goes with an event, leave it out, take that of another, or give one to who has none."""
    place = some_content(history, random_)
    text = history.events[place].origin
    others = [None, "{}", some_origin(random_), random_.choice(history.events).origin]
    if text:
        at = random_.randrange(len(text))
        others += [text[:at] + "x" + text[at + 1 :], f"{text} "]
    history.events[place] = replace(history.events[place], origin=random_.choice(others))


def cut_off(history: History, random_: random.Random) -> None:
    del history.events[random_.randrange(len(history.events)) :]


def cut_off_with_checkpoints(history: History, random_: random.Random) -> None:
    size = random_.randrange(len(history.events))
    del history.events[size:]
    history.notes[:] = [note for note in history.notes if size_of(note) <= size]


def cut_off_checkpoints(history: History, random_: random.Random) -> None:
    del history.notes[random_.randrange(len(history.notes)) :]


def drop_checkpoint(history: History, random_: random.Random) -> None:
    del history.notes[random_.randrange(len(history.notes))]


def replay_checkpoint(history: History, random_: random.Random) -> None:
    old = random_.choice(history.notes)
    place = random_.randrange(len(history.notes) + 1)
    if place < len(history.notes) and random_.random() < 0.5:
        history.notes[place] = old
    else:
        history.notes.insert(place, old)


def swap_checkpoints(history: History, random_: random.Random) -> None:
    a, b = (random_.randrange(len(history.notes)) for _ in range(2))
    history.notes[a], history.notes[b] = history.notes[b], history.notes[a]


def change_checkpoint(history: History, random_: random.Random) -> None:
    place = random_.randrange(len(history.notes))
    text, _ = notes.split(history.notes[place])
    lines = text.splitlines()
    row = random_.randrange(len(lines))
    lines[row] = random_.choice([random_.choice(lines), "0", "999", f"time {row}", "example.com/x"])
    tail = history.notes[place].rpartition("\n\n")[2]
    history.notes[place] = "\n".join(lines) + f"\n\n{tail}"


def sign_again(history: History, random_: random.Random) -> None:
    """Sign all of it, or what comes after something, with a key of one's own; the events may be others."""
    if random_.random() < 0.5:
        rewrite_from_one_on(history, random_)
    tree, after, time = merkle.Frontier(), None, 1_764_000_000
    events, begin = iter(history.events), random_.randrange(len(history.notes))
    if random_.random() < 0.5:
        begin = 0
    for place, note in enumerate(history.notes):
        size = size_of(note)
        while tree.size < size:
            tree.append(merkle.leaf_hash(next(events).leaf))
        if place >= begin:
            statement = Checkpoint(ORIGIN, tree.size, tree.root(), time + place, after)
            history.notes[place] = checkpoints.sign(statement, ATTACKER)
        after = checkpoints.digest(notes.split(history.notes[place])[0])


def name_oneself_successor(history: History, random_: random.Random) -> None:
    """Go on with the trail under a key of one's own."""
    writer = Writer(ATTACKER, 1_774_000_000)
    for event in history.events:
        writer.append(event)
    writer.history.events, writer.history.notes = history.events, history.notes
    writer.after = checkpoints.digest(notes.split(history.notes[-1])[0])
    if random_.random() < 0.7:
        rotation = Rotation(ORIGIN, ATTACKER.verifier, writer.time, writer.after)
        history.notes.append(checkpoints.sign(rotation, ATTACKER))
        writer.after = checkpoints.digest(rotation.text())
    writer.event(None, "allowed", {"forged": True})
    writer.checkpoint()


def allow_oneself_to_erase(history: History, random_: random.Random) -> None:
    place = some_content(history, random_)
    history.events[place] = Record(place, history.events[place].hash, "", None)
    body = links.canonical(
        {"request": None, "sequence": 1, "kind": "erased", "data": {"leaves": [[0, 1000]]}}
    )
    history.events.append(Record(len(history.events), links.digest("", body), "", body))


def some_content(history: History, random_: random.Random) -> int:
    return random_.choice([each.index for each in history.events if each.body is not None])


def maybe_renumber(history: History, random_: random.Random) -> None:
    if random_.random() < 0.5:
        history.events[:] = [replace(event, index=n) for n, event in enumerate(history.events)]


def size_of(note: str) -> int:
    lines = note.split("\n")
    return 0 if lines[0] == checkpoints.ROTATION else int(lines[1])


ON_EVENTS: list[Callable[[History, random.Random], None]] = [
    change_content,
    change_content_and_hash,
    rewrite_from_one_on,
    change_field,
    drop,
    swap,
    insert,
    blank,
    change_origin,
    cut_off,
    cut_off_with_checkpoints,
    cut_off_checkpoints,
    drop_checkpoint,
    replay_checkpoint,
    swap_checkpoints,
    change_checkpoint,
    sign_again,
    name_oneself_successor,
    allow_oneself_to_erase,
]


# --- and on the files themselves ------------------------------------------------------------------------------------


def on_bytes(path: Path, random_: random.Random) -> str:
    """Change a file as bytes; return what was done."""
    file = random_.choice([each for each in sorted(path.iterdir()) if each.stat().st_size])
    raw = bytearray(file.read_bytes())
    place = random_.randrange(len(raw))
    how = random_.choice(
        ["flip", "flip", "flip", "delete", "insert", "cut", "line", "empty", "gone"]
    )
    if how == "flip":
        raw[place] ^= 1 << random_.randrange(8)
    elif how == "delete":
        del raw[place]
    elif how == "insert":
        raw.insert(place, random_.choice(b'0 \n"{}x\x00'))
    elif how == "cut":
        del raw[place:]
    elif how == "line":
        lines = raw.splitlines(keepends=True)
        lines.insert(random_.randrange(len(lines) + 1), random_.choice([b"\n", b"{}\n", lines[0]]))
        raw = bytearray(b"".join(lines))
    elif how == "empty":
        raw.clear()
    file.write_bytes(raw)
    if how == "gone":
        file.unlink()
    return f"{how} {file.name} {place}"


def content_of(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


def tamper(path: Path, history: History, random_: random.Random) -> str:
    if random_.random() < 0.4:
        return on_bytes(path, random_)
    act = random_.choice(ON_EVENTS)
    act(history, random_)
    history.write(path)
    return act.__name__


def ensure_all_is_found(path: Path, cases: int, seed: int) -> None:
    random_, tried = random.Random(seed), 0
    while tried < cases:
        history = honest(random_, 30).history
        kept = history.notes[-1]
        before = content_of(history.write(path))
        done = tamper(path, history, random_)
        if content_of(path) == before:
            continue
        tried += 1
        where = f"case {tried} of seed {seed}: {done}"
        # 4: none of the statements is by the key any more.
        assert status(path, kept) in (1, 3, 4), f"not found: {where}"
        assert not audit_checker.is_sound(path, str(KEY), kept), f"only we found: {where}"


def ensure_none_is_accused(path: Path, cases: int, seed: int) -> None:
    random_ = random.Random(seed)
    for number in range(cases):
        history = honest(random_, 80).history
        kept = random_.choice([note for note in history.notes if "rotation" not in note])
        history.write(path)
        assert status(path, kept) == 0, f"accused: history {number} of seed {seed}"
        assert audit_checker.is_sound(path, str(KEY), kept)


def test_every_tampering_is_found(tmp_path: Path) -> None:
    ensure_all_is_found(tmp_path, CASES, 1)


def test_no_honest_trail_is_accused(tmp_path: Path) -> None:
    ensure_none_is_accused(tmp_path, max(CASES // 10, 30), 2)


@pytest.mark.slow
@pytest.mark.skipif("JIT_TEST_TAMPERINGS" in environ, reason="JIT_TEST_TAMPERINGS says how many")
@pytest.mark.skipif(environ.get("JIT_TEST_SLOW") != "1", reason="JIT_TEST_SLOW=1")
def test_ten_thousand_tamperings_are_found_and_a_thousand_honest_trails_pass(
    tmp_path: Path,
) -> None:
    ensure_all_is_found(tmp_path, 10_000, 3)
    ensure_none_is_accused(tmp_path, 1_000, 4)


@pytest.mark.parametrize("act", ON_EVENTS, ids=lambda act: act.__name__)
def test_each_way_of_tampering_is_found(
    tmp_path: Path, act: Callable[[History, random.Random], None]
) -> None:
    random_, tried = random.Random(5), 0
    while tried < 5:
        history = honest(random_, 30).history
        kept = history.notes[-1]
        before = content_of(history.write(tmp_path))
        act(history, random_)
        if content_of(history.write(tmp_path)) == before:
            continue
        tried += 1
        assert status(tmp_path, kept) in (1, 3)
