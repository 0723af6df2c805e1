"""The key that signs: written where nobody else reads it, and refused where somebody could have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jit_approval.audit import keys, notes


def made(tmp_path: Path) -> Path:
    path = tmp_path / "trail.key"
    keys.generate("example.com/trail", path)
    return path


def test_a_key_is_read_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "trail.key"
    public = keys.generate("example.com/trail", path)
    assert keys.load(path, {}).verifier == public
    assert keys.load("", {keys.ENVIRONMENT: path.read_text()}).verifier == public


def test_every_key_is_another(tmp_path: Path) -> None:
    assert keys.generate("a", tmp_path / "1") != keys.generate("a", tmp_path / "2")


def test_a_new_key_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = made(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = made(tmp_path)
    text = path.read_text()
    with pytest.raises(FileExistsError):
        keys.generate("example.com/trail", path)
    assert path.read_text() == text


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="exist"):
        keys.generate("example.com/trail", tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777, 0o610])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = made(tmp_path)
    path.chmod(mode)
    with pytest.raises(keys.KeyUnavailable, match=f"mode {mode:04o}"):
        keys.load(path, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    os.chown(path, 12345, -1)
    with pytest.raises(keys.KeyUnavailable, match="another user"):
        keys.load(path, {})


def test_without_a_key_it_says_where_one_is_looked_for() -> None:
    with pytest.raises(
        keys.KeyUnavailable, match=r"AUDIT_KEY_FILE.*keygen.*JIT_APPROVAL_AUDIT_KEY"
    ):
        keys.load("", {})


def test_of_two_keys_none_is_chosen(tmp_path: Path) -> None:
    path = made(tmp_path)
    with pytest.raises(keys.KeyUnavailable, match="two keys"):
        keys.load(path, {keys.ENVIRONMENT: path.read_text()})


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(keys.KeyUnavailable, match=str(path)):
            keys.load(path, {})


@pytest.mark.parametrize("text", ["", "secret-nonsense", "PRIVATE+KEY+a+00000000+c2VjcmV0"])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trail.key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(keys.KeyUnavailable) as caught:
        keys.load(path, {})
    assert "secret" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_public_key_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "public"
    path.touch(mode=0o600)
    path.write_text(str(notes.Signer("a", bytes(32)).verifier))
    with pytest.raises(keys.KeyUnavailable, match="begins with"):
        keys.load(path, {})
