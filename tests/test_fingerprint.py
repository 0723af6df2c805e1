"""What an approval is bound to: change any one thing and it is another call."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.test import override_settings
from django.utils import timezone, translation
from hypothesis import given
from hypothesis import strategies as st

from jit_approval import fingerprint
from jit_approval.models import ApprovalRequest
from tests import bindapp, callers, factories
from tests.bindapp import RUNS, SEEN
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.bindapp")]
BODY = b'{"amount": 5}'


@pytest.fixture
def caller():
    bindapp.reset()
    return callers.Caller()


def without_limits(**settings):
    many = {"MAX_OPEN_PER_REQUESTER": 10_000, "OPENINGS_PER_REQUESTER": "100000/hour"}
    return override_settings(
        JIT_APPROVAL={**many, "OPENINGS_PER_POLICY": "100000/hour", **settings}
    )


# --- one thing changed is another call -------------------------------------------------------------------

BASE = {"url": "/pay/", "raw": BODY, "method": "POST", "type": "application/json"}
CHANGES = {
    "method": {"method": "PUT"},
    "route, the same view and action": {"url": "/again/"},
    "keyword of the route": {"url": "/pay/7/"},
    "extra keyword of the route": {"url": "/extra-a/"},
    "query": {"url": "/pay/?a=1"},
    "query without a value": {"url": "/pay/?a"},
    "scheme": {"secure": True},
    "host": {"HTTP_HOST": "localhost"},
    "port": {"HTTP_HOST": "testserver:8443"},
    "space in the body": {"raw": b'{"amount":  5}'},
    "byte of the body": {"raw": b'{"amount": 6}'},
    "type of a value": {"raw": b'{"amount": "5"}'},
    "media type": {"type": "application/x-www-form-urlencoded"},
    "parameter of the media type": {"type": "application/json; charset=utf-8"},
    "parameter without a meaning": {"type": "application/json; x"},
    "boundary where it bounds nothing": {"type": "application/json; boundary=x"},
    "Idempotency-Key": {"HTTP_IDEMPOTENCY_KEY": "k"},
    "If-Match": {"HTTP_IF_MATCH": '"1"'},
    "language": {"HTTP_ACCEPT_LANGUAGE": "de"},
    "script name": {"SCRIPT_NAME": "/app"},
    "path as the server was sent it": {"RAW_URI": "/p%61y/"},
}


@override_settings(
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_call_changed_in_one_thing_is_another(caller, change):
    first = caller.send(**BASE)
    caller.approve(first)
    changed = caller.send(**(BASE | CHANGES[change]))
    assert changed.json()["code"] == "approval_pending"
    assert changed["Approval-Id"] != first["Approval-Id"]
    assert RUNS == []
    assert caller.send(**BASE).status_code == 201


# Behind a server that tells the path as it was sent, these differ in nothing else: what a rewrite did.
SAME_PATH = {"RAW_URI": "/rewritten"}
ALONE = {
    "route": ({"url": "/pay/"}, {"url": "/again/"}),
    "kwargs": ({"url": "/pay/7/"}, {"url": "/pay/8/"}),
    "method": ({"url": "/action/"}, {"url": "/action/", "method": "PUT"}),
    "path": ({"url": "/pay/"}, {"url": "/pay/", "RAW_URI": "/other"}),
}


@pytest.mark.parametrize("part", ALONE)
def test_each_part_is_bound_by_itself(caller, part):
    SEEN.action = "act"
    one, other = (BASE | SAME_PATH | change for change in ALONE[part])
    row = caller.approve(caller.send(**one))
    named = caller.send(**other, HTTP_APPROVAL_ID=str(row.pk))
    assert named.json()["differs"] == [part]
    assert caller.send(**other).json()["code"] == "approval_pending"
    assert RUNS == []


def test_the_object_is_bound_even_where_the_route_does_not_tell_it(caller):
    ada, eve = (Customer.objects.create(name=name) for name in ("Ada", "Eve"))
    SEEN.chosen = ada.pk
    row = caller.approve(caller.send("/chosen/1/", method="DELETE"))
    SEEN.chosen = eve.pk
    named = caller.send("/chosen/1/", method="DELETE", HTTP_APPROVAL_ID=str(row.pk))
    assert named.json()["differs"] == ["object"]
    assert caller.send("/chosen/1/", method="DELETE").json()["code"] == "approval_pending"
    assert Customer.objects.count() == 2


ORDERS = [
    ("/pay/?a=1&b=2", "/pay/?b=2&a=1"),
    ("/pay/?a=1&a=2", "/pay/?a=2&a=1"),
    ("/pay/?a=%20", "/pay/?a=+"),
    ("/pay/?a=1", "/pay/?a=%31"),
]


@pytest.mark.parametrize(("one", "other"), ORDERS)
def test_the_query_is_bound_as_it_was_sent(caller, one, other):
    caller.approve(caller.send(one, BODY))
    assert caller.send(other, BODY).json()["code"] == "approval_pending"
    assert RUNS == []


def test_two_paths_that_match_one_pattern_are_two_calls(caller):
    # "€" in UTF-8 is what "â\x82¬" is in latin-1; the pattern captures neither.
    one, other = "/loose/%E2%82%AC", "/loose/%C3%A2%C2%82%C2%AC"
    caller.approve(caller.send(one, BODY))
    assert caller.send(other, BODY).json()["code"] == "approval_pending"
    assert RUNS == []


def test_an_encoded_slash_is_no_slash_where_the_server_tells(caller):
    plain = {"url": "/loose/a/b", "raw": BODY}
    caller.approve(caller.send(**plain, RAW_URI="/loose/a/b?x=1"))
    encoded = caller.send(**plain, RAW_URI="/loose/a%2Fb?x=1")
    assert encoded.json()["code"] == "approval_pending"
    assert caller.send(**plain, RAW_URI="/loose/a/b?x=1").status_code == 201


def test_under_asgi_path_and_query_are_bound_as_raw_bytes():
    from django.test import AsyncRequestFactory

    from jit_approval import capture

    def bound(raw_path: bytes, query: bytes):
        http = AsyncRequestFactory().post("/x/")
        http.scope.update(raw_path=raw_path, query_string=query)
        return capture._raw_path(http), capture._raw_query(http)

    assert bound(b"/a%2Fb", b"\xe2\x82\xac") == (b"/a%2Fb", b"\xe2\x82\xac")
    assert bound(b"/a/b", b"x") != bound(b"/a%2Fb", b"x")


def test_the_api_version_is_bound(caller):
    def send(version: str):
        return caller.send("/versioned/", BODY, HTTP_ACCEPT=f"application/json; version={version}")

    caller.approve(send("1.0"))
    assert send("2.0").json()["code"] == "approval_pending"
    assert send("1.0").status_code == 201


def test_the_action_is_bound(caller):
    SEEN.action = "one"
    first = caller.send("/action/", BODY)
    SEEN.action = "other"
    assert caller.send("/action/", BODY)["Approval-Id"] != first["Approval-Id"]


def test_a_header_of_the_setting_is_bound(caller):
    first = caller.send("/pay/", BODY, HTTP_X_TENANT="a")
    assert caller.send("/pay/", BODY, HTTP_X_TENANT="b")["Approval-Id"] == first["Approval-Id"]
    with override_settings(JIT_APPROVAL={"BOUND_HEADERS": ["X-Tenant"]}):
        a = caller.send("/pay/", BODY, HTTP_X_TENANT="a")
        b = caller.send("/pay/", BODY, HTTP_X_TENANT="b")
        assert len({answer["Approval-Id"] for answer in (first, a, b)}) == 3


def test_the_host_is_not_bound_where_the_project_says_so(caller):
    with override_settings(JIT_APPROVAL={"BIND_HOST": False}):
        first = caller.send("/pay/", BODY)
        other = caller.send("/pay/", BODY, HTTP_HOST="localhost", secure=True)
    assert first["Approval-Id"] == other["Approval-Id"]


def test_the_time_zone_is_bound(caller):
    first = caller.send("/pay/", BODY)
    with timezone.override("Asia/Kolkata"):
        assert caller.send("/pay/", BODY)["Approval-Id"] != first["Approval-Id"]


def test_the_active_language_is_bound(caller):
    first = caller.send("/pay/", BODY)
    with translation.override("de"):
        assert caller.send("/pay/", BODY)["Approval-Id"] != first["Approval-Id"]


def test_the_requester_is_bound(caller):
    caller.approve(caller.send("/pay/", BODY))
    caller.client.credentials(HTTP_AUTHORIZATION=callers.token_of(factories.user()))
    assert caller.send("/pay/", BODY).json()["code"] == "approval_pending"
    assert RUNS == []


def test_the_kind_of_credential_is_bound(caller):
    caller.approve(caller.send("/either/", BODY))
    caller.client.credentials()
    caller.client.force_login(caller.user)
    assert caller.send("/either/", BODY).json()["code"] == "approval_pending"
    assert RUNS == []


SCOPES = [
    ("a", "b"),
    (1, "1"),
    (None, "null"),
    ({"tenant": 1}, {"tenant": 2}),
    (["a", "b"], ["b", "a"]),
    (["ab"], ["a", "b"]),
    (b"a", b"b"),
]


@pytest.mark.parametrize(("one", "other"), SCOPES)
def test_the_scope_is_bound(caller, one, other):
    SEEN.scope = one
    caller.approve(caller.send("/scoped/", BODY))
    SEEN.scope = other
    assert caller.send("/scoped/", BODY).json()["code"] == "approval_pending"
    SEEN.scope = one
    assert caller.send("/scoped/", BODY).status_code == 201


def test_two_tenants_of_one_name_are_two_scopes(caller):
    one, other = (Customer.objects.create(name="Ada") for _ in range(2))
    SEEN.scope = one
    caller.approve(caller.send("/scoped/", BODY))
    SEEN.scope = {"tenant": other}
    assert caller.send("/scoped/", BODY).json()["code"] == "approval_pending"
    SEEN.scope = other
    assert caller.send("/scoped/", BODY).json()["code"] == "approval_pending"
    assert RUNS == []


def test_a_set_is_the_same_in_every_process():
    names = {f"name{number}" for number in range(50)}
    assert fingerprint.canonical_json(names) == fingerprint.canonical_json(sorted(names))


def test_the_object_is_bound(caller):
    one, other = (Customer.objects.create(name="Ada") for _ in range(2))
    caller.approve(caller.send(f"/customers/{one.pk}/", method="DELETE"))
    answer = caller.send(f"/customers/{other.pk}/", method="DELETE")
    assert answer.json()["code"] == "approval_pending"
    assert Customer.objects.count() == 2


def test_the_same_call_is_the_same_request(caller):
    ids = {caller.send("/pay/?b=2&a=1", BODY)["Approval-Id"] for _ in range(3)}
    assert len(ids) == 1
    assert ApprovalRequest.objects.count() == 1


# --- the encoding ----------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "ab", "", "\ud800"])
VALUES = st.none() | st.binary(max_size=3) | st.sampled_from([b"\xff" * 8, b"\x00" * 8])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4, unique_by=lambda pair: pair[0])


@given(FIELDS, FIELDS)
def test_two_lists_of_fields_never_encode_alike(one, other):
    encoded = [fingerprint.encode(b"d", dict(fields)) for fields in (one, other)]
    assert (encoded[0] == encoded[1]) is (one == other)


def decoded(data: bytes) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    def take(count: int) -> bytes:
        nonlocal data
        piece, data = data[:count], data[count:]
        return piece

    domain, fields = take(int.from_bytes(take(4), "big")), []
    while data:
        name = take(int.from_bytes(take(4), "big")).decode("utf-8", "surrogatepass")
        size = take(8)
        absent = size == b"\xff" * 8
        fields.append((name, None if absent else take(int.from_bytes(size, "big"))))
    return domain, fields


@given(st.binary(max_size=4), FIELDS)
def test_what_was_encoded_can_be_read_back(domain, fields):
    assert decoded(fingerprint.encode(domain, dict(fields))) == (domain, fields)


def test_the_digest_covers_every_field():
    fields = {name: b"x" for name in fingerprint.CALL_FIELDS}
    digests = {fingerprint.inner_digest(fields | {name: b"y"}) for name in fields}
    digests |= {fingerprint.inner_digest(fields | {name: None}) for name in fields}
    assert len(digests) == 2 * len(fields)


def test_what_is_stored_depends_on_the_server_key():
    fields = {name: b"x" for name in fingerprint.CALL_FIELDS}
    one, other = (fingerprint.bind(fields, {"s": b"x"}, key=key) for key in (b"1", b"2"))
    assert one.fingerprint != other.fingerprint
    assert one.state_digest != other.state_digest
    assert not set(one.parts.values()) & set(other.parts.values())
    assert fingerprint.inner_digest(fields) != one.fingerprint


# --- many mutations --------------------------------------------------------------------------------------


def mutations(rng: random.Random):
    """Yield calls that differ from `BASE` in one component, by a random amount."""
    word = "".join(rng.choices("abcdefgh%_-.~0123456789", k=rng.randint(1, 12)))
    raw = bytearray(BODY)
    place = rng.randrange(len(raw))
    raw[place] ^= 1 << rng.randrange(8)
    yield {"raw": bytes(raw)}
    yield {"raw": BODY[:place] + b" " + BODY[place:]}
    yield {"raw": BODY + b"\n" * rng.randint(1, 5)}
    yield {"url": f"/pay/?{word}"}
    yield {"url": f"/pay/{word.replace('%', '')}x/"}
    yield {"method": rng.choice(["PUT", "PATCH", "DELETE", "GET", "TRACE", "PURGE"])}
    yield {"type": f"application/json; {word}=1"}
    yield {"HTTP_IDEMPOTENCY_KEY": word}
    yield {"HTTP_IF_MATCH": f'"{word}"'}
    yield {
        "HTTP_HOST": rng.choice(["localhost", "127.0.0.1", f"testserver:{rng.randint(1, 65000)}"])
    }


@pytest.mark.slow
def test_an_approved_call_changed_in_one_component_never_runs(caller):
    rng = random.Random(20261124)
    with without_limits(USABLE_WITHIN=timedelta(hours=1)):
        first = caller.send(**BASE)
        caller.approve(first)
        for _ in range(200):
            for change in mutations(rng):
                call = BASE | change
                answer = caller.send(**call)
                assert answer.status_code not in (201, 500), call
                assert RUNS == []
        assert caller.send(**BASE).status_code == 201
