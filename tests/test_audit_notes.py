"""Signed notes and checkpoints: published examples are read and made alike, and nothing unsigned is believed."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest

from jit_approval.audit import checkpoints, notes
from jit_approval.audit.checkpoints import Checkpoint, Rotation

# golang.org/x/mod/sumdb/note, the package's documentation and `TestSign`: the implementation the format comes from.
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# C2SP/C2SP signed-note.md at d4c16da5, "Example": a public key and what it signed.
SPEC_PUBLIC = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# C2SP/C2SP signed-note.md at 05528762 and tlog-checkpoint.md at 27938939: examples of the form, without their keys.
SPEC_POEM = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "\u2014 quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
SPEC_CHECKPOINT = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)

ONE = notes.Signer("example.com/trail", hashlib.sha256(b"one").digest())
TWO = notes.Signer("example.com/trail", hashlib.sha256(b"two").digest())
ROOT = hashlib.sha256(b"root").digest()
BEFORE = hashlib.sha256(b"before").digest()
POINT = Checkpoint("example.com/trail", 1000, ROOT, 1_764_000_000, BEFORE)


@pytest.mark.parametrize(("public", "note"), [(GO_PUBLIC, GO_NOTE), (SPEC_PUBLIC, SPEC_NOTE)])
def test_published_notes_verify_under_their_published_keys(public: str, note: str) -> None:
    key = notes.parse_verifier(public)
    assert str(key) == public
    opened = notes.verify(note, [key])
    assert opened.by == (key,)
    assert note.startswith(f"{opened.text}\n\u2014 ")


def test_the_published_private_key_signs_the_published_note_to_the_byte() -> None:
    signer = notes.parse_signer(GO_PRIVATE)
    assert notes.sign(GO_TEXT, signer) == GO_NOTE
    assert signer.as_text() == GO_PRIVATE
    assert str(signer.verifier) == GO_PUBLIC


def test_a_text_may_hold_empty_lines() -> None:
    text, signatures = notes.split(SPEC_POEM)
    assert text.endswith("sole:\n\ned è subito sera.\n")
    assert [(name, len(signature)) for name, _, signature in signatures] == [
        ("quasimodo.example/salvatore", 64)
    ]


def test_the_published_checkpoint_has_the_three_lines_ours_begin_with() -> None:
    text, ((name, _, _),) = notes.split(SPEC_CHECKPOINT)
    origin, size, root = text.splitlines()
    ours = Checkpoint(origin, int(size), base64.b64decode(root), 0).text()
    assert name == origin
    assert ours == f"{text}time 0\n"


def test_signatures_by_other_keys_are_passed_over() -> None:
    note = checkpoints.sign(POINT, ONE, TWO)
    assert notes.verify(note, [TWO.verifier]).by == (TWO.verifier,)
    assert notes.verify(note, [TWO.verifier, ONE.verifier]).by == (ONE.verifier, TWO.verifier)
    # It shares the name with the one, and the id with neither.
    with pytest.raises(notes.NoteError, match="no trusted key"):
        notes.verify(note, [notes.Signer(ONE.name, bytes(32)).verifier])


def test_without_any_trusted_key_nothing_is_believed() -> None:
    with pytest.raises(notes.NoteError, match="no trusted key"):
        notes.verify(checkpoints.sign(POINT, ONE), [])


def test_a_wrong_signature_by_a_trusted_key_refuses_the_note_whatever_else_signed_it() -> None:
    text, _ = notes.split(checkpoints.sign(POINT, ONE, TWO))
    forged = f"{text}\n{ONE.sign('another text')}{TWO.sign(text)}"
    with pytest.raises(notes.NoteError, match="is wrong"):
        notes.verify(forged, [ONE.verifier, TWO.verifier])


def test_the_same_key_under_another_name_is_another_key() -> None:
    other = notes.Signer("example.org/trail", hashlib.sha256(b"one").digest())
    assert other.verifier.key_id != ONE.verifier.key_id
    with pytest.raises(notes.NoteError, match="no trusted key"):
        notes.verify(checkpoints.sign(POINT, other), [ONE.verifier])


def test_a_note_with_any_one_bit_changed_is_refused() -> None:
    note = checkpoints.sign(POINT, ONE).encode()
    refused = 0
    for place in range(len(note) * 8):
        changed = bytearray(note)
        changed[place // 8] ^= 1 << place % 8
        try:
            checkpoints.opened(changed.decode(), [ONE.verifier])
        except (notes.NoteError, UnicodeDecodeError):
            refused += 1
    assert refused == len(note) * 8


MALFORMED = {
    "nothing": "",
    "no signature": "text\n",
    "no empty line": "text\n\u2014 a AAAAAAA=\n",
    "an empty line and no signature": "text\n\n",
    "a hyphen for the dash": "text\n\n- a AAAAAAA=\n",
    "no newline at the end": "text\n\n\u2014 a AAAAAAA=",
    "no name": "text\n\n\u2014  AAAAAAA=\n",
    "a plus in the name": "text\n\n\u2014 a+b AAAAAAA=\n",
    "no base64": "text\n\n\u2014 a !!!!\n",
    "base64 with bits to spare": "text\n\n\u2014 a AAAAAAB=\n",
    "an id alone": "text\n\n\u2014 a AAAAAA==\n",
    "a tab": "te\txt\n\n\u2014 a AAAAAAA=\n",
    "a carriage return": "text\r\n\n\u2014 a AAAAAAA=\n",
    "no text": "\n\n\u2014 a AAAAAAA=\n",
    "a flood of signatures": "text\n\n" + "\u2014 a AAAAAAA=\n" * 65,
    "a flood of text": "x" * 70_000 + "\n\n\u2014 a AAAAAAA=\n",
}


@pytest.mark.parametrize("note", MALFORMED.values(), ids=MALFORMED)
def test_what_has_not_the_form_of_a_note_is_refused(note: str) -> None:
    with pytest.raises(notes.NoteError):
        notes.split(note)


def test_sixteen_signatures_are_not_too_many() -> None:
    others = [
        notes.Signer(f"witness.example/{number}", bytes(31) + bytes([number]))
        for number in range(15)
    ]
    assert notes.verify(checkpoints.sign(POINT, *others, ONE), [ONE.verifier]).by


BAD_KEYS = {
    "nothing": "",
    "no parts": "example.com",
    "an id of another key": GO_PUBLIC.replace("c74f20a3", "c74f20a4"),
    "an id in capitals": GO_PUBLIC.replace("c74f20a3", "C74F20A3"),
    "another name": GO_PUBLIC.replace("Peter", "Piet"),
    "another algorithm": "a+00000000+" + base64.b64encode(b"\x02" + bytes(32)).decode(),
    "too short": "a+00000000+" + base64.b64encode(b"\x01" + bytes(31)).decode(),
    "no base64": "a+00000000+%%%",
    "the private one": GO_PRIVATE,
}


@pytest.mark.parametrize("text", BAD_KEYS.values(), ids=BAD_KEYS)
def test_what_is_no_public_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(notes.KeyFormatError) as caught:
        notes.parse_verifier(text)
    assert len(text) < 12 or text not in str(caught.value)


@pytest.mark.parametrize("text", [GO_PUBLIC, GO_PRIVATE.replace("c74f20a3", "c74f20a4"), ""])
def test_what_is_no_private_key_is_refused(text: str) -> None:
    with pytest.raises(notes.KeyFormatError):
        notes.parse_signer(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\x00b"])
def test_a_name_that_a_note_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(notes.KeyFormatError):
        notes.Signer(name, bytes(32))


def test_a_private_key_does_not_show_itself() -> None:
    assert ONE.as_text().split("+", 4)[4] not in f"{ONE} {ONE!r} {vars(ONE).keys()}"


def test_a_checkpoint_is_read_as_it_was_made() -> None:
    note = checkpoints.sign(POINT, ONE)
    assert checkpoints.opened(note, [ONE.verifier]) == (POINT, (ONE.verifier,))
    first = Checkpoint("example.com/trail", 0, hashlib.sha256(b"").digest(), 1, None)
    assert checkpoints.opened(checkpoints.sign(first, ONE), [ONE.verifier])[0] == first


def test_a_rotation_is_believed_when_the_old_key_and_the_new_one_signed_it() -> None:
    rotation = Rotation("example.com/trail", TWO.verifier, 1_764_000_001, BEFORE)
    both = checkpoints.sign(rotation, ONE, TWO)
    assert checkpoints.opened(both, [ONE.verifier]) == (rotation, (ONE.verifier,))
    with pytest.raises(notes.NoteError):
        checkpoints.opened(checkpoints.sign(rotation, ONE), [ONE.verifier])
    with pytest.raises(notes.NoteError):
        checkpoints.opened(checkpoints.sign(rotation, TWO), [ONE.verifier])


def test_a_trail_cannot_be_named_so_that_its_checkpoint_reads_as_a_rotation() -> None:
    named = Checkpoint(checkpoints.ROTATION, 1000, ROOT, 1, None)
    with pytest.raises(notes.NoteError):
        checkpoints.sign(named, ONE)


HASH = base64.b64encode(ROOT).decode()
STRANGE = {
    "a fourth line of another kind": f"a\n1\n{HASH}\nmore\n",
    "no time": f"a\n1\n{HASH}\n",
    "time twice": f"a\n1\n{HASH}\ntime 1\ntime 1\n",
    "after before time": f"a\n1\n{HASH}\nafter {HASH}\ntime 1\n",
    "a line beyond": f"a\n1\n{HASH}\ntime 1\nafter {HASH}\nmore\n",
    "a leading zero": f"a\n01\n{HASH}\ntime 1\n",
    "a sign": f"a\n+1\n{HASH}\ntime 1\n",
    "a digit of another script": f"a\n\u0661\n{HASH}\ntime 1\n",
    "a huge number": f"a\n{'9' * 30}\n{HASH}\ntime 1\n",
    "a short root": "a\n1\nAAAA\ntime 1\n",
    "another base64": f"a\n1\n{HASH[:-2]}{chr(ord(HASH[-2]) + 1)}=\ntime 1\n",
    "an empty origin": f"\n1\n{HASH}\ntime 1\n",
    "an empty trail with a root": f"a\n0\n{HASH}\ntime 1\n",
    "a rotation to no key": f"{checkpoints.ROTATION}\na\nb\ntime 1\n",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_a_statement_in_another_form_is_refused_even_if_signed(text: str) -> None:
    with pytest.raises(notes.NoteError):
        checkpoints.opened(notes.sign(text, ONE), [ONE.verifier])


def test_random_bytes_are_never_a_note_nor_an_error_of_another_kind() -> None:
    random_ = random.Random(1)
    for _ in range(3000):
        raw = bytes(
            random_.choice(b"\n\n \xe2\x80\x94ab+=AZ09\x00") for _ in range(random_.randrange(60))
        )
        with pytest.raises(notes.NoteError):
            notes.verify(raw.decode("latin-1"), [ONE.verifier])
