"""What a decider saw is what an approval covers; what they are shown is what was sent, made fit to show."""

from __future__ import annotations

import json

import pytest
from django.test import override_settings

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.states import Status
from tests import bindapp, callers
from tests.bindapp import RUNS, SEEN
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.bindapp")]


@pytest.fixture
def caller():
    bindapp.reset()
    return callers.Caller()


@pytest.fixture
def ada():
    return Customer.objects.create(name="Ada", email="ada@example.test", balance="10.00")


def delete(caller, customer, kind: str = "customers"):
    return caller.send(f"/{kind}/{customer.pk}/", method="DELETE")


# --- the object ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("name", "Eve"), ("balance", "99.75")])
def test_an_object_edited_after_approval_voids_it(caller, ada, field, value):
    row = caller.approve(delete(caller, ada))
    Customer.objects.update(**{field: value})
    stale = delete(caller, ada)
    assert (stale.status_code, stale.json()["code"]) == (412, "approval_stale")
    assert stale.json()["differs"] == [field]
    assert value not in stale.content.decode()
    assert str(row.pk) == stale.json()["approval_id"]
    row.refresh_from_db()
    assert row.status == Status.REVOKED
    anew = delete(caller, ada)
    assert anew.json()["code"] == "approval_pending"
    assert anew["Approval-Id"] != str(row.pk)
    assert RUNS == []


def test_an_object_edited_and_edited_back_while_approved_is_the_one_approved(caller, ada):
    caller.approve(delete(caller, ada))
    Customer.objects.update(name="Eve")
    Customer.objects.update(name="Ada")
    assert delete(caller, ada).status_code == 204


def test_an_object_edited_while_pending_is_asked_about_anew(caller, ada):
    first = delete(caller, ada)
    Customer.objects.update(balance="11.00")
    second = delete(caller, ada)
    assert second.json()["code"] == "approval_pending"
    assert second["Approval-Id"] != first["Approval-Id"]
    old = ApprovalRequest.objects.get(pk=first["Approval-Id"])
    assert old.status == Status.CANCELLED
    with pytest.raises(services.IllegalTransition):
        services.approve(old, by=caller.bob)
    caller.approve(second)
    assert delete(caller, ada).status_code == 204


def test_an_object_replaced_by_another_of_its_key_is_not_the_one_approved(caller, ada):
    caller.approve(delete(caller, ada))
    key = ada.pk
    ada.delete()
    Customer.objects.create(pk=key, name="Eve")
    answer = caller.send(f"/customers/{key}/", method="DELETE")
    assert answer.json()["code"] == "approval_stale"
    assert Customer.objects.count() == 1


def test_an_object_that_is_gone_is_404_and_spends_nothing(caller, ada):
    row = caller.approve(delete(caller, ada))
    url = f"/customers/{ada.pk}/"
    ada.delete()
    assert caller.send(url, method="DELETE").status_code == 404
    row.refresh_from_db()
    assert row.status == Status.APPROVED


def test_a_view_may_narrow_the_version(caller, ada):
    SEEN.version = lambda obj: obj.balance
    caller.approve(delete(caller, ada, "with-version"))
    Customer.objects.update(name="Eve")
    assert delete(caller, ada, "with-version").status_code == 204


def test_a_narrowed_version_still_binds(caller, ada):
    SEEN.version = lambda obj: obj.balance
    caller.approve(delete(caller, ada, "with-version"))
    Customer.objects.update(balance="11.00")
    assert delete(caller, ada, "with-version").json()["differs"] == ["version"]


def test_a_view_may_drop_the_version(caller, ada):
    SEEN.version = lambda obj: None
    caller.approve(delete(caller, ada, "with-version"))
    Customer.objects.update(name="Eve", balance="99.00")
    assert delete(caller, ada, "with-version").status_code == 204


def test_a_version_of_several_names_says_which_differ(caller, ada):
    SEEN.version = lambda obj: {"owner": obj.name, "saldo": obj.balance, "fixed": 1}
    caller.approve(delete(caller, ada, "with-version"))
    Customer.objects.update(name="Eve", balance="99.00")
    assert delete(caller, ada, "with-version").json()["differs"] == ["owner", "saldo"]


@pytest.mark.parametrize("pair", [(1, "1"), ("a", b"a"), (None, ""), (b"1", "bytes:1")])
def test_versions_of_different_types_differ(caller, ada, pair):
    SEEN.version = lambda obj: pair[0]
    caller.approve(delete(caller, ada, "with-version"))
    SEEN.version = lambda obj: {"version": pair[1]}
    assert delete(caller, ada, "with-version").json()["code"] == "approval_stale"
    assert RUNS == []


def test_on_a_route_without_an_object_the_hooks_are_asked_with_none(caller):
    caller.send("/context/", b"{}")
    assert SEEN.asked_with == [None, None]


# --- the context -----------------------------------------------------------------------------------------


def test_the_context_is_shown_redacted_and_bound_as_it_is(caller):
    SEEN.context = {
        "limit": "100",
        "api_token": "s3cret",
        "note": "a\u202eb\x00",
        "n": float("nan"),
    }
    row = caller.approve(caller.send("/context/", b"{}"))
    row.refresh_from_db()
    assert row.context == {
        "limit": "100",
        "api_token": "[redacted]",
        "note": "a\\u202eb\\u0000",
        "n": "nan",
    }
    SEEN.context = {**SEEN.context, "api_token": "other"}
    stale = caller.send("/context/", b"{}")
    assert (stale.status_code, stale.json()["differs"]) == (412, ["context.api_token"])
    assert "other" not in stale.content.decode()
    assert RUNS == []


CONTEXTS = [
    ({"a": 1}, {"a": "1"}),
    ({"a": 1}, {"a": 1, "b": None}),
    ({"a": None}, {}),
    ({"a": {"b": 1}}, {"a": {"b": 2}}),
    ({"a": [1, 2]}, {"a": [2, 1]}),
]


@pytest.mark.parametrize(("seen", "present"), CONTEXTS)
def test_another_context_voids_the_approval(caller, seen, present):
    SEEN.context = seen
    caller.approve(caller.send("/context/", b"{}"))
    SEEN.context = present
    assert caller.send("/context/", b"{}").json()["code"] == "approval_stale"
    assert RUNS == []


def test_every_row_of_a_query_in_the_context_is_bound_and_shown(caller):
    customers = [Customer.objects.create(name=f"Customer {number}") for number in range(30)]
    SEEN.context = {"erased": Customer.objects.order_by("pk")}
    row = caller.approve(caller.send("/context/", b"{}"))
    row.refresh_from_db()
    assert row.context["erased"] == [f"Customer {number}" for number in range(30)]
    Customer.objects.filter(pk=customers[27].pk).update(name="Eve")
    SEEN.context = {"erased": Customer.objects.order_by("pk")}
    assert caller.send("/context/", b"{}").json()["differs"] == ["context.erased"]


def test_of_two_objects_of_one_name_in_the_context_only_the_one_seen_is_approved(caller, ada):
    SEEN.context = {"payee": ada}
    caller.approve(caller.send("/context/", b"{}"))
    SEEN.context = {"payee": Customer.objects.create(name="Ada")}
    assert caller.send("/context/", b"{}").json()["code"] == "approval_stale"


def test_a_context_that_is_no_mapping_runs_nothing(caller):
    SEEN.context = ["a"]
    assert caller.send("/context/", b"{}").status_code == 500
    assert not ApprovalRequest.objects.exists()
    assert RUNS == []


# --- what is shown ---------------------------------------------------------------------------------------


def test_hidden_values_run_as_they_were_sent(caller):
    body = {"password": "p4ss", "amount": 5, "deep": [{"cardNumber": "4111"}]}
    raw = json.dumps(body).encode()
    row = caller.approve(caller.send("/pay/?token=t0ken&a=1", raw))
    shown = row.payload + row.path
    assert not any(secret in shown for secret in ("p4ss", "4111", "t0ken"))
    assert "a=1" in row.path
    assert caller.send("/pay/?token=t0ken&a=1", raw).status_code == 201
    assert RUNS == [body]


def test_another_secret_is_another_call(caller):
    caller.approve(caller.send("/pay/", b'{"password": "one"}'))
    assert caller.send("/pay/", b'{"password": "two"}').json()["code"] == "approval_pending"
    assert RUNS == []


def test_a_long_payload_is_cut_and_says_so(caller):
    with override_settings(JIT_APPROVAL={"MAX_PREVIEW_CHARS": 20}):
        long = caller.row(caller.send("/pay/", b'{"a": "%s"}' % (b"x" * 50)))
        short = caller.row(caller.send("/pay/", b'{"a": 1}'))
    assert (len(long.payload), long.payload_truncated) == (20, True)
    assert short.payload_truncated is False


def test_a_long_path_and_label_are_cut_and_say_so(caller):
    ada = Customer.objects.create(name="\u202e" * 100)
    with override_settings(JIT_APPROVAL={"MAX_PREVIEW_CHARS": 60}):
        row = caller.row(caller.send(f"/customers/{ada.pk}/?q={'x' * 80}", method="DELETE"))
    assert (len(row.path), row.path[-1]) == (60, "…")
    assert (len(row.object_label), row.object_label[-1]) == (200, "…")
    assert row.object_label.startswith("\\u202e")


def test_an_object_without_a_label_is_shown_by_its_key(caller, ada):
    row = caller.approve(caller.send(f"/unspeakable/{ada.pk}/", method="DELETE"))
    assert row.object_label == f"testapp.unspeakable {ada.pk}"


def test_hidden_characters_of_the_path_are_shown_escaped(caller):
    row = caller.row(caller.send("/loose/%00%E2%80%AE?%E2%80%AE=%00", b"{}"))
    assert row.path == "/loose/\\u0000\\u202e?\\u202e=\\u0000"


def test_the_caller_is_shown_escaped_and_in_bounds(caller):
    row = caller.row(
        caller.send("/pay/", b"{}", HTTP_USER_AGENT="a\x00" * 500, REMOTE_ADDR="x\x1b" * 99)
    )
    assert row.user_agent.startswith("a\\u0000")
    assert (len(row.user_agent), len(row.ip)) == (300, 64)
