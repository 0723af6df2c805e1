"""What is hidden, and that what hides is shown."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jit_approval.models import ApprovalRequest
from jit_approval.redaction import REDACTED, as_text, is_sensitive, redact, storable, visible
from tests import factories


def words(text: str) -> list[str]:
    return text.split()


SECRET = words(
    """
    password Password PASSWORD passwords password1 password2 new_password newPassword
    newpassword passwordConfirm password-confirm user[password] user.password passwd pwd
    passphrase pin PIN pins secret client_secret clientSecret clientsecret secretKey token
    tokens access_token accessToken accesstoken csrfmiddlewaretoken JWTToken jwt bearer
    x-api-key X-Api-Key apiKey APIKey userAPIKey apikey api_keys authorization Authorization
    auth X-Auth-Token credential credentials cookie Set-Cookie session sessionid session_id
    signature otp totp mfa_code card card_number cardNumber cardnumber creditCard pan cvv
    CVVCode cvc ssn private_key privateKey access-key
    """
)
HARMLESS = words(
    """
    discard spin spinner pinned opinion author authored secretary tokenize tokenizer broken
    cardinal cardiology wildcards_allowed company panel pants expand amount name description
    key keys keyboard monkey assignature_x cookiecutter passage bypass compass order_id
    """
)


@pytest.mark.parametrize("key", SECRET)
def test_a_sensitive_key_hides_its_value(key):
    assert is_sensitive(key)


@pytest.mark.parametrize("key", HARMLESS)
def test_a_harmless_key_does_not(key):
    assert not is_sensitive(key)


def test_the_project_adds_keys():
    assert not is_sensitive("shoeSize")
    for key in ("shoeSize", "shoe-size", "SHOE_SIZE", "left_shoe_size"):
        assert is_sensitive(key, ("shoe_size",))
    assert not is_sensitive("shoe_sizes_x", ("(.*)",))


def test_nothing_below_a_sensitive_key_is_shown():
    value = {"a": [{"token": {"deep": ["x"]}}, ({"b": {"pin": 1}},)], "card": [1, 2]}
    assert redact(value) == {
        "a": [{"token": REDACTED}, [{"b": {"pin": REDACTED}}]],
        "card": REDACTED,
    }


def test_redaction_leaves_the_data_alone():
    value = {"a": {"password": "p"}, "b": ["x\x00"]}
    redact(value)
    as_text(value, limit=100)
    assert value == {"a": {"password": "p"}, "b": ["x\x00"]}


HIDDEN = words(
    """
    0000 0007 001b 007f 0085 00ad 034f 061c 115f 1160 17b4 180e 200b 200d 200e 200f 2028 2029
    202a 202e 2060 2066 2069 2800 3164 d800 dfff e000 fe00 fe0f feff ffa0 fff9 ffff e0001
    e0041 e007f e0100 e01ef f0000 10ffff
    """
)


@pytest.mark.parametrize("number", HIDDEN)
def test_what_hides_or_reorders_is_shown_as_its_escape(number):
    shown = visible(f"a{chr(int(number, 16))}b")
    assert shown in (f"a\\u{number}b", f"a\\U{number:0>8}b")


def test_what_people_write_stays_as_it_is():
    text = "Größe, naïve, 中文, العربية, हिन्दी, ελληνικά, € 5, “quoted”, 👍, Ⅷ"
    assert visible(text) == text
    assert visible("a\nb\tc", keep_lines=True) == "a\nb\tc"
    assert visible("a\nb\r") == "a\\u000ab\\u000d"


def test_no_character_passes_that_unicode_calls_invisible():
    kept = [c for c in map(chr, range(sys.maxunicode + 1)) if visible(c) == c]
    assert {unicodedata.category(c)[0] for c in kept} == set("LMNPSZ")
    assert not {"Zl", "Zp"} & {unicodedata.category(c) for c in kept}


@given(st.text())
def test_what_is_visible_can_be_stored_and_does_not_change_again(text):
    shown = visible(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert "\x00" not in shown
    assert visible(shown) == shown


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
DATA = st.recursive(
    SCALARS | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(DATA, DATA)
def test_two_bodies_that_differ_are_shown_differently(one, other):
    texts = [as_text(value, limit=100_000)[0] for value in (one, other)]
    if json.dumps(one) != json.dumps(other):
        assert REDACTED in texts[0] + texts[1] or texts[0] != texts[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u202e", "\\u202e"),
        ({"to\u200b": 1, "to\\u200b": 2}, {"to\\u200b": 2}),
        (1.5, "1.5"),
        (float("nan"), "NaN"),
        (None, "null"),
        (True, 1),
    ],
)
def test_values_easily_confused_are_told_apart(one, other):
    assert as_text(one, limit=99) != as_text(other, limit=99)


def test_numbers_are_shown_in_full():
    text, _ = as_text({"a": 0.1, "b": 10**30, "c": 1e999}, limit=999)
    assert [line.strip(" ,") for line in text.splitlines()[1:-1]] == [
        '"a": 0.1',
        f'"b": {10**30}',
        '"c": Infinity',
    ]


def test_the_preview_is_capped():
    assert as_text("x" * 10, limit=12) == ('"xxxxxxxxxx"', False)
    assert as_text("x" * 11, limit=12) == ('"xxxxxxxxxxx', True)


def nested(levels: int) -> Any:
    value: Any = "deep\u202e"
    for _ in range(levels):
        value = {"a": [value]}
    return value


@pytest.mark.django_db
@pytest.mark.parametrize("levels", [1, 14, 15, 16, 17, 100])
def test_what_is_storable_is_kept_by_every_database_however_deep(levels):
    factories.decider()
    row = factories.held(context=storable(nested(levels)))
    kept = ApprovalRequest.objects.get(pk=row.pk).context
    assert kept == storable(nested(levels))
    assert "deep" in json.dumps(kept)
    assert "\u202e" not in json.dumps(kept, ensure_ascii=False)


@given(st.dictionaries(st.text(max_size=3), st.floats() | SCALARS, max_size=3))
def test_what_is_storable_is_json_without_nul_or_surrogates(value):
    text = json.dumps(storable(redact(value)), ensure_ascii=False, allow_nan=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    assert text.encode("utf-8")
