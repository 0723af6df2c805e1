"""Secrets at rest: AES-256-GCM under a key ring from the settings, never from the database.

The first of `SECRET_KEYS` seals, any of them opens; that is how keys are changed. A sealed text is bound to what it
belongs to: moved to another row it does not open. It needs the extra `crypto`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Any

from jit_approval import conf

_VERSION = "v1"
_NONCE = 12


class SecretError(Exception):
    """A secret could not be sealed or opened. The text says why, and nothing of the secret."""


def is_ready() -> bool:
    """Tell whether anything can be sealed: there is a key, and the library."""
    try:
        _cipher(_ring()[0])
    except SecretError:
        return False
    return True


def seal(text: str, *, bound_to: str) -> str:
    """Return `text` encrypted under the first key. `bound_to` names the row it belongs to.

    Raises:
        SecretError: there is no key, or the extra is not installed.
    """
    key = _ring()[0]
    nonce = os.urandom(_NONCE)
    sealed = _cipher(key).encrypt(nonce, text.encode(), _context(bound_to))
    return f"{_VERSION}.{_name(key)}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"


def unseal(sealed: str, *, bound_to: str) -> str:
    """Return what was sealed for this row.

    Raises:
        SecretError: its key is not among those of the settings, or it was altered, or belongs to another row.
    """
    version, _, rest = sealed.partition(".")
    name, _, data = rest.partition(".")
    if version != _VERSION:
        raise SecretError("The stored secret has a form that is not known here.")
    key = next((key for key in _ring() if _name(key) == name), None)
    if key is None:
        raise SecretError(
            f"The stored secret was encrypted under the key {name[:16]!r}, which is not among JIT_APPROVAL"
            "['SECRET_KEYS']. Put that key back, or enter the secret anew."
        )
    cipher = _cipher(key)
    try:
        raw = base64.b64decode(data, altchars=b"-_", validate=True)
        opened: bytes = cipher.decrypt(raw[:_NONCE], raw[_NONCE:], _context(bound_to))
        return opened.decode()
    except Exception:
        # The library's InvalidTag, or what is no base64: the same to whoever reads it.
        raise SecretError(
            "The stored secret was altered, or belongs to another row. Enter it anew."
        ) from None


def is_sealed_with_newest(sealed: str) -> bool:
    """Tell whether the first key of the ring was used; else it may not be removed from the settings yet."""
    return sealed.startswith(f"{_VERSION}.{_name(_ring()[0])}.")


def _ring() -> tuple[bytes, ...]:
    keys = conf.get().SECRET_KEYS
    if not keys:
        raise SecretError(
            "Secrets are stored encrypted, and JIT_APPROVAL['SECRET_KEYS'] has no key to do it with."
        )
    # One key, one use: what else is ever derived from the same setting must be another key.
    return tuple(
        hmac.digest(key.encode(), b"jit_approval.secrets.aes-256-gcm.v1", "sha256") for key in keys
    )


def _name(key: bytes) -> str:
    """Return what tells keys apart in the database, and tells nothing about them."""
    return hashlib.sha256(b"jit_approval.secrets.name\0" + key).hexdigest()[:16]


def _context(bound_to: str) -> bytes:
    return f"jit_approval.secrets.{_VERSION}\0{bound_to}".encode()


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise SecretError(
            "Secrets are stored encrypted, and that needs a library that is not installed: "
            "pip install django-jit-approval[crypto]"
        ) from None
    return AESGCM(key)
