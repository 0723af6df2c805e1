"""The page "Explain a call": the same as the command, for those who may see policies, and without a trace."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.utils import timezone

from jit_approval.models import (
    ApprovalRequest,
    AuditEvent,
    Delegation,
    PolicyChange,
    PolicyGroupRequirement,
)
from jit_approval.states import Effect
from tests import factories
from tests.test_admin_browser import SIZES, browser, open_as, overflows, picture, strictly
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import client_of

__all__ = ["browser"]

pytestmark = pytest.mark.django_db
POLICIES = "/admin/jit_approval/approvalpolicy/"
EXPLAIN = f"{POLICIES}explain/"
LARGE = "request.data.amount > 10000"
ACTION = "transfer.post"


@pytest.fixture
def viewer() -> Any:
    """One who may see policies and nothing else."""
    made = factories.user("viewer", is_staff=True)
    made.user_permissions.add(Permission.objects.get(codename="view_approvalpolicy"))
    return made


def ask(viewer: Any, status: int = 200, /, **fields: Any) -> str:
    factories.user("erin") if not _exists("erin") else None
    data = {"action": ACTION, "user": "erin"} | fields
    response = client_of(viewer).post(EXPLAIN, data)
    assert response.status_code == status, text_of(response)
    return text_of(response)


def _exists(name: str) -> bool:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.filter(username=name).exists()


def test_page_says_which_policy_applies_and_why_the_others_do_not(viewer) -> None:
    factories.decider("bob")
    factories.policy(name="Large ones", condition=LARGE, priority=1)
    factories.policy(name="Small ones", condition="request.data.amount < 10", priority=2)
    factories.policy(name="Elsewhere", actions="customers.*")
    text = ask(viewer, payload='{"amount": 50000}')
    assert "Held until it is approved" in text
    assert "Large ones" in text
    assert "condition is false" in text
    assert "Its globs do not name transfer.post." in text
    assert "bob" in text
    assert "Too few could decide" not in text


@pytest.mark.parametrize(
    ("effect", "said"),
    [(Effect.ALLOW, "Runs at once"), (Effect.DENY, "Denied, whoever asks")],
)
def test_call_that_is_not_held_shows_no_deadline(viewer, effect, said) -> None:
    factories.policy(effect=effect)
    text = ask(viewer)
    assert said in text
    assert "Decide by" not in text


def test_quorum_that_cannot_be_met_is_warned_of(viewer) -> None:
    factories.policy()
    text = ask(viewer)
    assert "Refused: it needs approval, and too few could give it" in text
    assert "Too few could decide" in text
    assert "Nobody" in text


def test_failed_condition_and_unknown_action_are_warned_of(viewer) -> None:
    factories.decider()
    factories.policy(name="Large ones", condition=LARGE)
    assert "The condition of Large ones failed" in ask(viewer, payload='{"amount": "5"}')
    text = ask(viewer, action="transfers.post")
    assert "No route has this action" in text
    assert "transfer.post" in text


def test_change_of_policies_is_explained_though_no_route_has_it(viewer, settings) -> None:
    settings.JIT_APPROVAL = {"GATE_POLICY_CHANGES": True}
    factories.decider()
    factories.user("root", is_superuser=True)
    factories.policy(effect="allow")
    text = ask(viewer, action="jit_approval.policy.change", user="root")
    assert "Held until it is approved" in text
    assert "left out" in text
    assert "No route has this action" not in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"user": "nobody"}, "There is no user of this name."),
        ({"action": ""}, "This field is required."),
        ({"payload": "{amount: 1}"}, "This is not JSON: Expecting property name"),
        ({"payload": "[" * 90_000}, "too deep"),
        ({"payload": '{"a": 1, "a": 2}'}, "A key appears twice"),
        ({"payload": '{"a": NaN}'}, "numbers that are too long or none"),
        ({"payload": "1" * 9_000}, "too long"),
        ({"payload": '"' + "x" * 100_000 + '"'}, "at most 100000"),
        ({"context": "[1]"}, "This is a JSON object"),
        ({"headers": "no colon"}, "one per line"),
        ({"method": "BREW"}, "not one of the available choices"),
    ],
)
def test_what_is_unknown_or_malformed_is_named_at_its_field(viewer, fields, said) -> None:
    text = ask(viewer, 400, **fields)
    assert said in text
    assert "If it were made now" not in text


def test_what_is_typed_is_shown_again_and_never_as_markup(viewer) -> None:
    response = client_of(viewer).post(
        EXPLAIN, {"action": "<b>x</b>", "user": "<script>", "payload": "</textarea><script>"}
    )
    assert b"<script>" not in response.content.replace(b"<script ", b"")
    assert b"&lt;/textarea&gt;" in response.content


# --- who may -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
def test_only_those_who_may_see_policies_may_ask(method) -> None:
    nobody = factories.decider(is_staff=True)
    assert getattr(client_of(nobody), method)(EXPLAIN).status_code == 403
    assert getattr(client_of(factories.user()), method)(EXPLAIN).status_code == 302
    assert getattr(Client(), method)(EXPLAIN).status_code == 302


def test_asking_takes_a_csrf_token(viewer) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(viewer, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(EXPLAIN, {"action": ACTION, "user": "erin"}).status_code == 403


def test_other_methods_are_refused(viewer) -> None:
    assert client_of(viewer).delete(EXPLAIN).status_code == 405


def test_list_of_policies_leads_there_for_those_who_only_look(viewer) -> None:
    assert EXPLAIN in client_of(viewer).get(POLICIES).content.decode()
    response = client_of(viewer).get(EXPLAIN, {"action": ACTION})
    assert f'value="{ACTION}"' in response.content.decode()


@pytest.mark.parametrize("is_gated", [False, True])
def test_asking_writes_nothing(viewer, settings, is_gated) -> None:
    settings.JIT_APPROVAL = {"GATE_POLICY_CHANGES": is_gated}
    factories.policy(effect=Effect.OBSERVE)
    factories.policy(effect=Effect.DENY, condition=LARGE)
    before = AuditEvent.objects.count()
    text = ask(viewer, payload='{"amount": 50000}')
    assert "Nothing to approve" not in text
    assert AuditEvent.objects.count() == before
    assert not ApprovalRequest.objects.exists()
    assert not PolicyChange.objects.exists()


# --- in a browser ------------------------------------------------------------------------------------------


def a_night() -> None:
    """Policies as a bank may have them."""
    now = timezone.now()
    security, finance = (Group.objects.create(name=name) for name in ("Security", "Finance"))
    people = {
        name: factories.decider(name, is_staff=name != "olga")
        for name in ("bob", "carol", "dmitri", "olga")
    }
    security.user_set.add(people["bob"], people["carol"])
    finance.user_set.add(people["dmitri"])
    zed = factories.user("zed", is_staff=True)
    Delegation.objects.create(
        delegator=people["carol"],
        stand_in=zed,
        starts_at=now - timedelta(days=1),
        ends_at=now + timedelta(days=9),
    )
    factories.user("erin")
    factories.policy(
        name="Sanctioned countries",
        slug="sanctions",
        priority=5,
        actions="transfer.*",
        effect=Effect.DENY,
        condition='has(request.data.country) && request.data.country in ["KP", "IR"]',
    )
    large = factories.policy(
        name="Large transfers",
        slug="large-transfers",
        priority=10,
        actions="transfer.*",
        condition='request.data.amount > 10000 && !("treasury" in user.groups)',
        required_approvals=3,
        reason_pattern=r"\b(INC|CHG)-\d{4,}\b",
        require_approval_id=True,
        severity="high",
    )
    PolicyGroupRequirement.objects.create(policy=large, group=security, count=2)
    PolicyGroupRequirement.objects.create(policy=large, group=finance, count=1)
    factories.policy(
        name="Shadow: transfers at night",
        slug="night",
        priority=20,
        actions="transfer.*",
        effect=Effect.OBSERVE,
        condition='now.getHours("Europe/Berlin") >= 0',
    )
    factories.policy(
        name="Small transfers run",
        slug="small",
        priority=30,
        actions="transfer.*",
        effect=Effect.ALLOW,
        condition="request.data.amount < 100",
    )
    factories.policy(name="Everything else", slug="rest", priority=100)
    factories.policy(name="Customer data", slug="customers", actions="customers.*")
    factories.policy(name="Old transfers", slug="old", actions="transfer.*", enabled=False)


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_page_fits_the_screen_and_runs_nothing_inline(
    browser, live_server, viewer, size, scheme
) -> None:
    a_night()
    width, height = SIZES[size]
    tab = open_as(
        browser,
        live_server,
        viewer,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
    )
    strictly(tab, "**/explain/")
    tab.goto(POLICIES)
    picture(tab, f"explain-list-{size}-{scheme}")
    tab.click("text=Explain a call")
    tab.wait_for_selector("#id_action")
    picture(tab, f"explain-empty-{size}-{scheme}")
    assert not overflows(tab)
    tab.fill("#id_action", ACTION)
    tab.fill("#id_user", "erin")
    tab.fill("#id_payload", '{"amount": 50000, "country": "DE"}')
    tab.click("button:has-text('Explain')")
    tab.wait_for_selector(".jit-outcome-require")
    picture(tab, f"explain-held-{size}-{scheme}")
    assert not overflows(tab)
    tab.fill("#id_payload", '{"amount": "50000", "country": "IR"}')
    tab.fill("#id_action", "transfers.post")
    tab.click("button:has-text('Explain')")
    tab.wait_for_selector(".jit-warning")
    picture(tab, f"explain-doubt-{size}-{scheme}")
    tab.fill("#id_payload", "{amount: 1}")
    tab.click("button:has-text('Explain')")
    tab.wait_for_selector(".jit-error")
    picture(tab, f"explain-error-{size}-{scheme}")
    assert not overflows(tab)
    assert not [text for text in tab.complaints if "Content Security Policy" in text]
