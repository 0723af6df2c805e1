"""Signed notes, as https://c2sp.org/signed-note has them, with Ed25519 alone.

A note is text and the signatures under it; nothing of the text means anything before one of them, by a key that is
trusted, was verified. Signing and verifying need the extra `audit`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_ED25519 = b"\x01"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_ID_BYTES = 4
_MAX_NOTE = 64 * 1024
_MAX_SIGNATURES = 64
_PRIVATE = "PRIVATE+KEY+"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
# Half a surrogate pair is what a byte that is no UTF-8 becomes on a command line: no text can be made of it.
_BAD_NAME = re.compile(r"[\s+\x00-\x1f\x7f\ufffd\ud800-\udfff]")
_DASH = "\u2014 "


class NoteError(ValueError):
    """It is no note, or none that the trusted keys vouch for."""


class KeyFormatError(ValueError):
    """It is no key in the form of signed notes. The text holds nothing of what was given."""


class LibraryMissing(Exception):
    """The library that signs and verifies is not installed."""


@dataclass(frozen=True)
class Verifier:
    """A public key under a name: what trusts a note."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that, with the name, tell which key signed."""
        return _key_id(self.name, self.public)

    def __str__(self) -> str:
        """Return the key as text, as it is handed to whoever verifies."""
        encoded = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def has_signed(self, text: str, signature: bytes) -> bool:
        """Tell whether this is the key's signature under this text."""
        ed25519, invalid = _library()
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except (invalid, ValueError):
            return False
        return True


class Signer:
    """A private key under a name. It has no text form but `as_text`, lest it be logged."""

    def __init__(self, name: str, seed: bytes) -> None:
        ensure_name(name)
        if len(seed) != _KEY_BYTES:
            raise KeyFormatError("the seed of an Ed25519 key has 32 bytes")
        ed25519, _ = _library()
        self._seed = seed
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """Whose signature it makes."""
        return self.verifier.name

    def sign(self, text: str) -> str:
        """Return the signature line for this text."""
        signed = self.verifier.key_id + self._key.sign(text.encode())
        return f"{_DASH}{self.name} {base64.b64encode(signed).decode()}\n"

    def as_text(self) -> str:
        """Return the private key as text, to be written where it is kept and nowhere else."""
        encoded = base64.b64encode(_ED25519 + self._seed).decode()
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{encoded}"


@dataclass(frozen=True)
class Opened:
    """A note's text, and the trusted keys that signed it: one at least."""

    text: str
    by: tuple[Verifier, ...]


def sign(text: str, *signers: Signer) -> str:
    """Return the note with this text, signed by each.

    Raises:
        NoteError: the text cannot be that of a note.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteError("a note's text ends with a newline and has no other control characters")
    return f"{text}\n" + "".join(signer.sign(text) for signer in signers)


def split(note: str) -> tuple[str, tuple[tuple[str, bytes, bytes], ...]]:
    """Return a note's text and its signatures: (key name, key id, signature). Nothing is verified.

    Raises:
        NoteError: it does not have the form of a note.
    """
    if len(note) > _MAX_NOTE or _CONTROL.search(note):
        raise NoteError("it is too long, or has control characters")
    body, blank, tail = note.rpartition("\n\n")
    if not blank or not body or not tail.endswith("\n"):
        raise NoteError("there is no text, or no signature below an empty line")
    lines = tail[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise NoteError("there are too many signatures")
    return f"{body}\n", tuple(_signature(line) for line in lines)


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signed = _decoded(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or signed is None:
        raise NoteError("a signature line is malformed")
    if len(signed) <= _ID_BYTES:
        raise NoteError("a signature is too short")
    return name, signed[:_ID_BYTES], signed[_ID_BYTES:]


def verify(note: str, trusted: Iterable[Verifier]) -> Opened:
    """Return the text of a note that a trusted key signed. Signatures by other keys are passed over.

    Raises:
        NoteError: it is no note, no trusted key signed it, or a signature by a trusted key is wrong.
    """
    text, signatures = split(note)
    known = {(key.name, key.key_id): key for key in trusted}
    by: dict[Verifier, None] = {}
    for name, key_id, signature in signatures:
        key = known.get((name, key_id))
        if key is None:
            continue
        if not key.has_signed(text, signature):
            raise NoteError(f"the signature by {key} is wrong")
        by[key] = None
    if not by:
        raise NoteError("no trusted key signed it")
    return Opened(text, tuple(by))


def is_signed_by_one_of(note: str, keys: Iterable[Verifier]) -> bool:
    """Tell whether a signature says that it is by one of these keys. It is not verified.

    Raises:
        NoteError: it does not have the form of a note.
    """
    known = {(key.name, key.key_id) for key in keys}
    return any((name, key_id) in known for name, key_id, _ in split(note)[1])


def parse_verifier(text: str) -> Verifier:
    """Read a public key: `name+id+base64`.

    Raises:
        KeyFormatError: it is none, or its id is not that of the key.
    """
    if text.startswith(_PRIVATE):
        raise KeyFormatError("this is the private key; a verifier is given the public one")
    name, key_id, public = _parsed(text.strip())
    found = Verifier(name, public)
    if found.key_id.hex() != key_id:
        raise KeyFormatError("the key's id is that of another key")
    return found


def parse_signer(text: str) -> Signer:
    """Read a private key: `PRIVATE+KEY+name+id+base64`.

    Raises:
        KeyFormatError: it is none, or its id is not that of the key.
        LibraryMissing: nothing can be signed here.
    """
    text = text.strip()
    if not text.startswith(_PRIVATE):
        raise KeyFormatError(f"a private key begins with {_PRIVATE}")
    name, key_id, seed = _parsed(text.removeprefix(_PRIVATE))
    found = Signer(name, seed)
    if found.verifier.key_id.hex() != key_id:
        raise KeyFormatError("the key's id is that of another key")
    return found


def _parsed(text: str) -> tuple[str, str, bytes]:
    # A name has no plus sign, base64 may.
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    key = _decoded(encoded)
    if not _is_name(name) or key is None:
        raise KeyFormatError("a key has the form name+id+base64")
    if key[:1] != _ED25519 or len(key) != 1 + _KEY_BYTES:
        raise KeyFormatError("only Ed25519 keys (type 1) are known here")
    return name, key_id, key[1:]


def ensure_name(name: str) -> None:
    """Refuse what cannot be a key's name.

    Raises:
        KeyFormatError: it is empty, or has spaces, plus signs, control characters, or what is no text.
    """
    if not _is_name(name):
        raise KeyFormatError("a key's name has no spaces and no plus sign, and is not empty")


def _is_name(name: str) -> bool:
    return bool(name) and not _BAD_NAME.search(name)


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_ID_BYTES]


def _decoded(text: str) -> bytes | None:
    """Return what this is the one base64 encoding of; None where it is none, or another one."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if base64.b64encode(found).decode() == text else None


def _library() -> tuple[Any, type[Exception]]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise LibraryMissing(
            "Signatures need a library that is not installed: pip install django-jit-approval[audit]"
        ) from None
    return ed25519, InvalidSignature
