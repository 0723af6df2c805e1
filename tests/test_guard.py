"""Functions and commands behind the gate: held, approved, run once; bound to their arguments with their types."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from enum import Enum
from io import StringIO
from threading import Barrier
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from jit_approval import exceptions, services
from jit_approval.commands import ApprovalCommand
from jit_approval.guard import CallHeld, CallRefused, guard, guarded
from jit_approval.models import ApprovalRequest, AuditEvent
from jit_approval.states import Effect, Outcome, Status
from tests import factories
from tests.testapp.models import Customer

pytestmark = pytest.mark.django_db(transaction=True)

RAN: list[Any] = []
ACTION = "billing.close_year"


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def erin(bob: Any) -> Any:
    return factories.user("erin")


def run(args: Any = None, **options: Any) -> ApprovalRequest | None:
    with guard(options.pop("action", ACTION), args, **options) as grant:
        RAN.append(args)
    return grant.approval_request


def held(args: Any = None, **options: Any) -> ApprovalRequest:
    with pytest.raises(CallHeld) as caught:
        run(args, **options)
    return ApprovalRequest.objects.get(pk=caught.value.approval_id)


def test_a_function_is_held_approved_and_runs_once(erin, bob) -> None:
    row = held({"year": 2026}, by=erin, reason="audit is done")
    assert (row.action, row.method, row.reason, row.requester) == (
        ACTION,
        "CALL",
        "audit is done",
        erin,
    )
    assert '"year": 2026' in row.payload
    assert held({"year": 2026}, by=erin) == row
    services.approve(row, by=bob)
    assert run({"year": 2026}, by=erin) == row
    assert RAN == [{"year": 2026}]
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    assert held({"year": 2026}, by=erin) != row
    assert len(RAN) == 1
    kinds = AuditEvent.objects.filter(approval_request=row).order_by("sequence")
    assert list(kinds.values_list("kind", flat=True)) == ["held", "approved", "consumed", "outcome"]


class Colour(Enum):
    RED = "red"


OTHERS = [
    {"n": "5"},
    {"n": 5.0},
    {"n": Decimal(5)},
    {"n": [5]},
    {"n": {"5": 5}},
    {"n": True},
    {"n": None},
    {"n": date(2026, 1, 5)},
    {"n": b"5"},
    {"n": Colour.RED},
    {"n": ["float", "5.0"]},
    {"n": {5}},
    {"m": 5},
    {"n": 5, "m": None},
    {},
]


def test_no_two_calls_that_differ_in_value_or_type_share_an_approval(erin, bob) -> None:
    found = {held(args, by=erin).fingerprint for args in [{"n": 5}, *OTHERS]}
    assert len(found) == len(OTHERS) + 1


def test_an_approval_is_good_for_nothing_else(erin, bob) -> None:
    services.approve(held({"n": 5}, by=erin), by=bob)
    held({"n": 5}, by=factories.user())
    held({"n": 5}, by=erin, action="billing.open_year")
    held({"n": 5}, by=erin, agent="a-bot")
    held({"n": 5}, by=erin, idempotency_key="k")
    held({"n": 5}, by=erin, obj=Customer.objects.create(name="Ada"))
    assert RAN == []


def test_a_function_and_an_http_call_are_never_the_same() -> None:
    from jit_approval import fingerprint

    fields: dict[str, bytes | None] = dict.fromkeys(fingerprint.CALL_FIELDS)
    domains = (fingerprint.CALL, fingerprint.FUNCTION)
    assert len({fingerprint.inner_digest(fields, domain) for domain in domains}) == 2


@pytest.mark.parametrize("value", [object(), float("nan"), {1: 2}, lambda: 1, Customer(name="new")])
def test_what_cannot_be_bound_is_refused(erin, value: Any) -> None:
    with pytest.raises(exceptions.UnbindableCall):
        run({"n": value}, by=erin)
    assert (RAN, ApprovalRequest.objects.count()) == ([], 0)


@pytest.mark.parametrize("pairs", [[("year", 2026)], [("year", 1999), ("year", 2026)], [], "ab"])
def test_arguments_without_a_name_of_their_own_are_no_approved_call(erin, bob, pairs: Any) -> None:
    services.approve(held({"year": 2026}, by=erin), by=bob)
    with pytest.raises(exceptions.UnbindableCall):
        run(pairs, by=erin)
    assert RAN == []


@pytest.mark.parametrize("as_object", [True, False])
def test_a_row_that_changed_after_the_approval_voids_it(erin, bob, as_object) -> None:
    customer = Customer.objects.create(name="Ada")
    how: dict[str, Any] = {"obj": customer} if as_object else {"args": {"rows": [customer]}}
    services.approve(held(by=erin, **how), by=bob)
    Customer.objects.update(name="Eve")  # the row in memory does not know
    with pytest.raises(exceptions.UnbindableCall, match=r"In memory the customer .*: name"):
        run(by=erin, **how)
    customer.refresh_from_db()
    with pytest.raises(CallRefused) as caught:
        run(by=erin, **how)
    assert caught.value.code == "approval_stale"
    assert RAN == []


@pytest.mark.parametrize("as_object", [True, False])
def test_what_is_changed_in_memory_alone_is_what_nobody_approved(erin, bob, as_object) -> None:
    customer = Customer.objects.create(name="Ada", balance="10.00")
    how: dict[str, Any] = {"obj": customer} if as_object else {"args": {"rows": [customer]}}
    services.approve(held(by=erin, **how), by=bob)
    customer.balance = object()
    with pytest.raises(exceptions.UnbindableCall, match="balance"):
        run(by=erin, **how)
    customer.balance = Decimal(11)
    with pytest.raises(exceptions.UnbindableCall, match="balance"):
        run(by=erin, **how)
    assert RAN == []
    customer.balance = "10.00"  # the same, as it was written
    run(by=erin, **how)
    assert len(RAN) == 1


def test_what_is_not_loaded_is_read_when_it_is_wanted(erin, bob) -> None:
    pk = Customer.objects.create(name="Ada").pk
    services.approve(held(by=erin, obj=Customer.objects.get(pk=pk)), by=bob)
    run(by=erin, obj=Customer.objects.only("name").get(pk=pk))
    assert len(RAN) == 1


def test_a_rejection_is_told_and_cools_down(erin, bob) -> None:
    row = held({"n": 1}, by=erin)
    services.reject(row, by=bob, comment="wait for the audit")
    with pytest.raises(CallRefused, match="wait for the audit") as caught:
        run({"n": 1}, by=erin)
    assert (caught.value.code, caught.value.approval_id) == ("approval_rejected", str(row.pk))
    assert RAN == []


@pytest.mark.parametrize(
    ("effect", "error"), [(Effect.DENY, exceptions.ApprovalDenied), (Effect.ALLOW, None)]
)
def test_policies_decide_of_functions_too(erin, effect, error) -> None:
    factories.policy(actions="billing.*", effect=effect)
    if error is None:
        assert run({}, by=erin) is None
        assert AuditEvent.objects.filter(kind="allowed").exists()
    else:
        with pytest.raises(error):
            run({}, by=erin)
    assert len(RAN) == (error is None)


def test_by_policy_only_what_a_policy_names_is_held(erin) -> None:
    assert run({}, by=erin, by_policy=True) is None
    factories.policy(actions="billing.*")
    held({}, by=erin, by_policy=True)
    assert len(RAN) == 1


def test_conditions_ask_about_arguments_and_agent(erin) -> None:
    pytest.importorskip("cel_expr_python")
    condition = 'request.data.amount > 100 && agent == "bot"'
    factories.policy(actions=ACTION, condition=condition, effect=Effect.DENY)
    with pytest.raises(exceptions.ApprovalDenied):
        run({"amount": Decimal("100.01")}, by=erin, agent="bot")
    held({"amount": Decimal("100.00")}, by=erin, agent="bot")


def test_nobody_to_ask_is_told_and_nothing_runs(erin, bob) -> None:
    bob.delete()
    with pytest.raises(exceptions.ApprovalUnavailable):
        run({}, by=erin)
    assert RAN == []


@pytest.mark.parametrize("kind", ["inactive", "anonymous", "unsaved", "deactivated_since"])
def test_only_an_active_account_may_ask(erin, kind) -> None:
    from django.contrib.auth.models import AnonymousUser, User

    who: Any = {"anonymous": AnonymousUser(), "unsaved": User(username="x")}.get(kind, erin)
    if kind == "inactive":
        erin.is_active = False
        erin.save()
    if kind == "deactivated_since":
        User.objects.filter(pk=erin.pk).update(is_active=False)
    with pytest.raises(CallRefused):
        run({}, by=who)
    assert (RAN, ApprovalRequest.objects.count()) == ([], 0)


def test_inside_a_transaction_nothing_is_promised(erin, bob) -> None:
    services.approve(held({}, by=erin), by=bob)
    with pytest.raises(exceptions.NotDurable), transaction.atomic():
        run({}, by=erin)
    assert RAN == []
    assert ApprovalRequest.objects.get().status == Status.APPROVED


def test_of_calls_at_once_one_runs(erin, bob) -> None:
    services.approve(held({}, by=erin), by=bob)
    barrier = Barrier(4)

    def one(_: int) -> str:
        barrier.wait(30)
        try:
            run({}, by=erin)
        except (CallHeld, CallRefused) as error:
            return error.code
        finally:
            connections.close_all()
        return "ran"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert (found.count("ran"), len(RAN)) == (1, 1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError, Outcome.FAILED), (KeyboardInterrupt, Outcome.UNKNOWN)],
)
def test_what_the_run_raises_is_recorded_and_raised(erin, bob, error, outcome) -> None:
    row = services.approve(held({}, by=erin), by=bob)
    with pytest.raises(error), guard(ACTION, {}, by=erin):
        raise error
    row.refresh_from_db()
    assert (row.outcome, row.exception) == (outcome, f"builtins.{error.__name__}")


def test_without_a_with_the_approval_is_spent_all_the_same(erin, bob) -> None:
    row = services.approve(held({}, by=erin), by=bob)
    grant = guard(ACTION, {}, by=erin)
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.RUNNING)
    with pytest.raises(CallRefused) as caught:
        run({}, by=erin)
    assert caught.value.code == "approval_consumed"
    with grant:
        pass
    with pytest.raises(RuntimeError), grant:
        RAN.append("again")
    assert RAN == []


def test_a_call_that_names_its_request_is_told_what_became_of_it(erin, bob) -> None:
    row = held({"n": 1}, by=erin)
    with pytest.raises(CallRefused) as caught:
        run({"n": 2}, by=erin, approval_id=row.pk)
    assert caught.value.code == "approval_mismatch"
    services.cancel(row, by=erin)
    with pytest.raises(CallRefused) as caught:
        run({"n": 1}, by=erin, approval_id=str(row.pk))
    assert caught.value.code == "approval_cancelled"
    for unknown in ("nonsense", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(CallRefused) as caught:
            run({"n": 1}, by=erin, approval_id=unknown)
        assert caught.value.code == "not_found"


def test_a_call_with_an_idempotency_key_is_never_held_twice(erin, bob) -> None:
    services.approve(held({}, by=erin, idempotency_key="k"), by=bob)
    run({}, by=erin, idempotency_key="k")
    with pytest.raises(CallRefused) as caught:
        run({}, by=erin, idempotency_key="k")
    assert caught.value.code == "approval_consumed"


# --- decorated functions ----------------------------------------------------------------------------------


@guarded(ACTION, obj="customer")
def close(year: int, customer: Customer | None = None, *, by: Any, dry: bool = False) -> str:
    RAN.append((year, dry))
    return f"closed {year}"


def test_a_decorated_function_is_held_with_all_its_arguments(erin, bob) -> None:
    with pytest.raises(CallHeld) as caught:
        close(2026, by=erin, approval_reason="audit is done")
    row = ApprovalRequest.objects.get(pk=caught.value.approval_id)
    assert row.reason == "audit is done"
    services.approve(row, by=bob)
    with pytest.raises(CallHeld):
        close(2026, by=erin, dry=True)
    assert close(year=2026, by=erin) == "closed 2026"
    assert RAN == [(2026, False)]


async def _async(by: Any) -> None: ...


def _generator(by: Any) -> Any:
    yield 1


@pytest.mark.parametrize("function", [_async, _generator, lambda year: year])
def test_functions_that_cannot_be_guarded_are_refused(function: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        guarded(ACTION)(function)


# --- commands ---------------------------------------------------------------------------------------------


class Command(ApprovalCommand):
    approval_action = "command.close_year"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("year", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        RAN.append(options["year"])
        self.stdout.write("closed")


def test_a_command_is_held_approved_and_runs_once(erin, bob) -> None:
    def call(year: str = "2026", **options: Any) -> str:
        out = StringIO()
        call_command(Command(), year, stdout=out, **{"approval_user": "erin", **options})
        return out.getvalue()

    with pytest.raises(CommandError, match="Approval-Id") as caught:
        call(approval_reason="audit is done", verbosity=2)
    assert caught.value.returncode == 3
    services.approve(ApprovalRequest.objects.get(), by=bob)
    with pytest.raises(CommandError):
        call("2027")
    assert call() == "closed\n"
    assert RAN == [2026]


@pytest.mark.parametrize("name", [None, "", "nobody"])
def test_a_command_says_who_asks(erin, name) -> None:
    with pytest.raises(CommandError) as caught:
        call_command(Command(), "2026", approval_user=name)
    assert caught.value.returncode == 2
    assert (RAN, ApprovalRequest.objects.count()) == ([], 0)


def test_a_policy_that_lets_the_server_run_calls_leaves_functions_to_their_callers(
    erin, bob, settings
) -> None:
    settings.JIT_APPROVAL = {"SECRET_KEYS": ["k" * 40]}
    factories.policy(actions="billing.*", execution="server")
    row = held({}, by=erin)
    assert row.execution == "caller"
    services.approve(row, by=bob)
    run({}, by=erin)
    assert len(RAN) == 1
