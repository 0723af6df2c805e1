"""The settings: what is accepted, and that a mistake is named before it does harm."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from jit_approval import conf

MALFORMED = [
    ("DECIDE_WITHIN", "15 minutes"),
    ("DECIDE_WITHIN", None),
    ("DECIDE_WITHIN", True),
    ("DECIDE_WITHIN", 0),
    ("DECIDE_WITHIN", -5),
    ("DECIDE_WITHIN", timedelta(days=31)),
    ("DECIDE_WITHIN", float("nan")),
    ("DECIDE_WITHIN", float("inf")),
    ("DECIDE_WITHIN", 10**30),
    ("USABLE_WITHIN", 0.5),
    ("USABLE_WITHIN", [300]),
    ("REJECTION_COOLDOWN", -1),
    ("REJECTION_COOLDOWN", timedelta(days=10_000)),
    ("RUN_LIMIT", timedelta(seconds=-1)),
    ("RUN_LIMIT", timedelta.max),
    ("REQUIRED_APPROVALS", 0),
    ("REQUIRED_APPROVALS", True),
    ("REQUIRED_APPROVALS", "1"),
    ("REQUIRED_APPROVALS", 1.0),
    ("REQUIRED_APPROVALS", 40_000),
    ("REQUIRE_REASON", 1),
    ("REQUIRE_REASON", "no"),
    ("MAX_OPEN_PER_REQUESTER", 0),
    ("MAX_OPEN_PER_REQUESTER", None),
    ("OPENINGS_PER_REQUESTER", "100"),
    ("OPENINGS_PER_REQUESTER", "0/hour"),
    ("OPENINGS_PER_REQUESTER", "-1/hour"),
    ("OPENINGS_PER_REQUESTER", "1/hour/day"),
    ("OPENINGS_PER_REQUESTER", "1.5/hour"),
    ("OPENINGS_PER_REQUESTER", 100),
    ("OPENINGS_PER_REQUESTER", None),
    ("OPENINGS_PER_POLICY", "100/fortnight"),
    ("OPENINGS_PER_POLICY", conf.Rate(0, timedelta(hours=1))),
    ("OPENINGS_PER_POLICY", conf.Rate(1, timedelta(0))),
    ("MAX_BODY_BYTES", 0),
    ("MAX_BODY_BYTES", "1MB"),
    ("MAX_REASON_LENGTH", 0),
    ("MAX_JSON_DEPTH", 0),
    ("MAX_PREVIEW_CHARS", 0),
    ("REDACT_KEYS", "shoe_size"),
    ("REDACT_KEYS", [1]),
    ("REDACT_KEYS", None),
    ("REDACT_KEYS", [""]),
    ("BIND_HOST", "yes"),
    ("BOUND_HEADERS", "X-Tenant"),
    ("BOUND_HEADERS", [b"X-Tenant"]),
    ("BOUND_HEADERS", [""]),
    ("FINGERPRINT_KEY", b"bytes"),
    ("FINGERPRINT_KEY", None),
    ("PERSON_KEY", None),
    ("REQUEST_PERSONS", print),
    ("POLL_INTERVAL", 0),
    ("REMIND_AT", 100),
    ("REMIND_AT", -1),
    ("MANY_TOLD", 0),
    ("EXPIRING_BEFORE", -1),
    ("POLL_INTERVAL", timedelta(seconds=5)),
    ("BASE_URL", None),
    ("FROM_EMAIL", 7),
    ("DECIDE_WITHN", 60),
    ("decide_within", 60),
]


@pytest.mark.parametrize(
    ("name", "value"),
    MALFORMED,
    ids=[f"{name}-{number}" for number, (name, _) in enumerate(MALFORMED)],
)
def test_a_malformed_value_is_refused_by_its_name(name, value):
    with (
        override_settings(JIT_APPROVAL={name: value}),
        pytest.raises(ImproperlyConfigured, match=name),
    ):
        conf.get()


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_the_settings_are_a_dict(value):
    with (
        override_settings(JIT_APPROVAL=value),
        pytest.raises(ImproperlyConfigured, match="JIT_APPROVAL"),
    ):
        conf.get()


ACCEPTED = [
    ("DECIDE_WITHIN", 90, timedelta(seconds=90)),
    ("DECIDE_WITHIN", 1.5, timedelta(seconds=1.5)),
    ("USABLE_WITHIN", timedelta(days=30), timedelta(days=30)),
    ("REJECTION_COOLDOWN", 0, timedelta(0)),
    ("OPENINGS_PER_REQUESTER", "5/minute", conf.Rate(5, timedelta(minutes=1))),
    ("OPENINGS_PER_POLICY", conf.Rate(5, timedelta(minutes=7)), conf.Rate(5, timedelta(minutes=7))),
    ("REDACT_KEYS", ["a", "b"], ("a", "b")),
    ("BOUND_HEADERS", ("X-Tenant",), ("X-Tenant",)),
]


@pytest.mark.parametrize(("name", "value", "typed"), ACCEPTED)
def test_what_is_accepted_is_typed(name, value, typed):
    with override_settings(JIT_APPROVAL={name: value}):
        assert getattr(conf.get(), name) == typed


def test_without_any_settings_the_defaults_hold():
    with override_settings(JIT_APPROVAL={}):
        assert conf.get() == conf.Settings()


def test_the_settings_are_read_again_when_they_change():
    with override_settings(JIT_APPROVAL={"POLL_INTERVAL": 7}):
        assert conf.get().POLL_INTERVAL == 7
    assert conf.get().POLL_INTERVAL == 5


def test_the_key_is_not_the_secret_key_and_is_never_printed():
    with override_settings(SECRET_KEY="one", JIT_APPROVAL={}):
        derived = conf.get().fingerprint_key
        assert b"one" not in derived
    with override_settings(SECRET_KEY="other", JIT_APPROVAL={}):
        assert conf.get().fingerprint_key != derived
    with override_settings(SECRET_KEY="other", JIT_APPROVAL={"FINGERPRINT_KEY": "one"}):
        assert conf.get().fingerprint_key == derived
        assert "one" not in repr(conf.get())


def test_a_secret_key_of_bytes_will_do():
    with override_settings(SECRET_KEY=b"\xff\x00", JIT_APPROVAL={}):
        assert len(conf.get().fingerprint_key) == 32
