"""Secrets at rest: nothing but the right key, and the right row, opens them."""

from __future__ import annotations

import base64
import builtins
import sys
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import override_settings

from jit_approval import conf, secrets
from jit_approval.models import Channel

ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32


def ring(*keys: str) -> override_settings:
    return override_settings(JIT_APPROVAL={"SECRET_KEYS": keys})


def sealed_under(*keys: str) -> str:
    with ring(*keys):
        return secrets.seal("the secret", bound_to="row 1")


def test_what_was_sealed_opens() -> None:
    with ring(ONE):
        assert secrets.unseal(sealed_under(ONE), bound_to="row 1") == "the secret"


def test_nothing_of_the_secret_is_in_what_is_stored() -> None:
    sealed = sealed_under(ONE)
    assert "secret" not in sealed and ONE not in sealed
    assert b"secret" not in base64.urlsafe_b64decode(sealed.split(".")[2])


def test_the_same_secret_is_never_stored_twice_alike() -> None:
    assert len({sealed_under(ONE) for _ in range(50)}) == 50


def test_new_key_in_front_seals_and_older_ones_still_open() -> None:
    old = sealed_under(ONE)
    with ring(TWO, ONE):
        assert secrets.unseal(old, bound_to="row 1") == "the secret"
        assert not secrets.is_sealed_with_newest(old)
        new = secrets.seal("the secret", bound_to="row 1")
        assert secrets.is_sealed_with_newest(new)
    with ring(TWO):
        assert secrets.unseal(new, bound_to="row 1") == "the secret"


def test_key_that_is_missing_is_named_without_the_key() -> None:
    with ring(TWO, THREE), pytest.raises(secrets.SecretError, match="SECRET_KEYS") as caught:
        secrets.unseal(sealed_under(ONE), bound_to="row 1")
    assert not any(key in str(caught.value) for key in (ONE, TWO, THREE))


def test_secret_of_another_row_does_not_open() -> None:
    with ring(ONE), pytest.raises(secrets.SecretError, match="another row"):
        secrets.unseal(sealed_under(ONE), bound_to="row 2")


@pytest.mark.parametrize("where", [0, 11, 12, 20, -1])
def test_altered_secret_does_not_open(where: int) -> None:
    version, name, data = sealed_under(ONE).split(".")
    raw = bytearray(base64.urlsafe_b64decode(data))
    raw[where] ^= 1
    altered = ".".join([version, name, base64.urlsafe_b64encode(raw).decode()])
    with ring(ONE), pytest.raises(secrets.SecretError):
        secrets.unseal(altered, bound_to="row 1")


@pytest.mark.parametrize("text", ["", "plain text", "v1", "v1.", "v2.a.b", "v1..", "..", "v1.é.x"])
def test_what_was_never_sealed_does_not_open(text: str) -> None:
    with ring(ONE), pytest.raises(secrets.SecretError):
        secrets.unseal(text, bound_to="row 1")


@pytest.mark.parametrize("data", ["", "AAAA", "not base64!", "===="])
def test_sealed_text_that_was_cut_does_not_open(data: str) -> None:
    version, name, _ = sealed_under(ONE).split(".")
    with ring(ONE), pytest.raises(secrets.SecretError):
        secrets.unseal(f"{version}.{name}.{data}", bound_to="row 1")


def test_without_a_key_nothing_is_sealed_and_nothing_opens() -> None:
    sealed = sealed_under(ONE)
    with ring():
        assert not secrets.is_ready()
        with pytest.raises(secrets.SecretError, match="SECRET_KEYS"):
            secrets.seal("x", bound_to="row 1")
        with pytest.raises(secrets.SecretError):
            secrets.unseal(sealed, bound_to="row 1")


def test_without_the_library_nothing_is_stored_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    with ring(ONE):
        assert not secrets.is_ready()
        with pytest.raises(secrets.SecretError, match=r"\[crypto\]"):
            secrets.seal("x", bound_to="row 1")


@pytest.mark.parametrize("keys", [["short"], [ONE, "x" * 31], [""]])
def test_key_that_could_be_guessed_is_refused_and_not_repeated(keys: list[str]) -> None:
    with ring(*keys), pytest.raises(ImproperlyConfigured) as caught:
        conf.get()
    assert not any(key and key in str(caught.value) for key in keys if key != ONE)


def test_keys_are_not_shown_with_the_settings() -> None:
    with ring(ONE):
        assert ONE not in repr(conf.get())


# --- channels --------------------------------------------------------------------------------------------


def channel(**fields: Any) -> Channel:
    made = Channel(slug="ops", name="Ops", kind="webhook", **fields)
    made.keep_secrets({"secret": "whsec_abc", "previous_secret": ""})
    return made


@pytest.mark.django_db
def test_no_secret_of_a_channel_is_in_the_database() -> None:
    with ring(ONE):
        channel().save()
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM jit_approval_channel")
            assert "whsec" not in str(cursor.fetchall())
        assert Channel.objects.get().open_secrets() == {"secret": "whsec_abc"}


@pytest.mark.django_db
def test_secret_copied_to_another_channel_does_not_open() -> None:
    with ring(ONE):
        made = channel()
        made.save()
        Channel.objects.create(slug="two", name="Two", kind="webhook", sealed=made.sealed)
        with pytest.raises(secrets.SecretError):
            Channel.objects.get(slug="two").open_secrets()


@pytest.mark.django_db
def test_secret_of_a_channel_that_became_another_kind_does_not_open() -> None:
    with ring(ONE):
        channel().save()
        Channel.objects.update(kind="apprise")
        with pytest.raises(secrets.SecretError):
            Channel.objects.get().open_secrets()


def test_channel_without_secrets_needs_no_key() -> None:
    with ring():
        made = Channel(slug="ops", name="Ops", kind="email")
        made.keep_secrets({"secret": ""})
        assert made.sealed == "" and made.open_secrets() == {}
