"""Where the key that signs the trail is kept: a file of its own, or the environment. Never the database.

Whoever can write to the database must not be able to sign what they have written.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from jit_approval.audit import notes
from jit_approval.audit.checkpoints import ROTATION
from jit_approval.audit.notes import Signer, Verifier

ENVIRONMENT = "JIT_APPROVAL_AUDIT_KEY"
"""The variable that may hold the private key itself, where there is no file."""

_MAX_FILE = 4096
_MAX_NAME = 255


class KeyUnavailable(Exception):
    """There is no key to sign with, or none that is fit to be used. The text holds nothing of the key."""


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Signer:
    """Return the key to sign with: from the file `path`, or where that is empty, from the environment.

    Raises:
        KeyUnavailable: there is none, there are two, or somebody else may read the file.
    """
    given = (os.environ if environ is None else environ).get(ENVIRONMENT, "")
    if given and os.fspath(path):
        raise KeyUnavailable(
            f"There are two keys: JIT_APPROVAL['AUDIT_KEY_FILE'] and the environment's {ENVIRONMENT}. "
            "Remove one."
        )
    if not given and not os.fspath(path):
        raise KeyUnavailable(
            "There is no key: set JIT_APPROVAL['AUDIT_KEY_FILE'] to the file that `approval_audit keygen` "
            f"wrote, or {ENVIRONMENT} in the environment."
        )
    text = given or _read(Path(path))
    try:
        signer = notes.parse_signer(text)
        _ensure_trail(signer.name)
        return signer
    except notes.KeyFormatError as error:
        where = f"{ENVIRONMENT} in the environment" if given else f"the file {os.fspath(path)}"
        raise KeyUnavailable(f"The key in {where} cannot be read: {error}.") from None
    except notes.LibraryMissing as error:
        raise KeyUnavailable(str(error)) from None


def generate(name: str, path: Path) -> Verifier:
    """Write a new private key to a new file that nobody else may read; return the public one.

    Raises:
        KeyFormatError: the name is not one for a key, or not for a trail.
        LibraryMissing: nothing can be signed here.
        FileExistsError: there is such a file: a key is never overwritten.
        OSError: the file cannot be written.
    """
    _ensure_trail(name)
    if len(name) > _MAX_NAME:
        raise notes.KeyFormatError(f"a trail's name has {_MAX_NAME} characters at most")
    signer = Signer(name, secrets.token_bytes(32))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{signer.as_text()}\n")
        file.flush()
        os.fsync(file.fileno())
    return signer.verifier


def _ensure_trail(name: str) -> None:
    if name == ROTATION:
        raise notes.KeyFormatError(f"no trail may be named {ROTATION}: so begins a change of keys")


def _read(path: Path) -> str:
    try:
        # What is looked at and what is read must be one file, whatever happens to the name.
        with path.open("rb") as file:
            _ensure_private(path, os.fstat(file.fileno()))
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise KeyUnavailable(
            f"The key file {path} cannot be read: {error.strerror or error}."
        ) from None


def _ensure_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyUnavailable(f"The key file {path} is not a file.")
    if os.name != "posix":
        return  # there, a mode says nothing about who may read
    if found.st_mode & 0o077:
        raise KeyUnavailable(
            f"The key file {path} may be read or written by others (mode {found.st_mode & 0o777:04o}). "
            f"Make it yours alone: chmod 600 {path}. If they may have read it, make a new key."
        )
    if found.st_uid not in (0, os.geteuid()):
        raise KeyUnavailable(f"The key file {path} belongs to another user.")
