"""The admin in a real Chromium: the countdown, the buttons, a phone, a strict content security policy.

`JIT_TEST_SCREENSHOTS=folder` keeps pictures of the pages, for eyes and for docs/images.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.test import Client, override_settings
from django.utils import timezone
from guardian.shortcuts import assign_perm

from jit_approval import keeping, services, tasks
from jit_approval.audit import keys, seal
from jit_approval.models import ApprovalRequest, Delegation
from jit_approval.policies import versions
from jit_approval.states import Outcome
from tests import factories
from tests.test_admin_inbox import INBOX, client_of, page
from tests.test_admin_policy import POLICIES
from tests.test_escalating import climb, held, pass_time, step

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
POLICY = "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
TRANSFER = """{
  "source": "DE-OPS-4411 (Operating account)",
  "target": "Nordwind Logistik GmbH",
  "amount": "250000.00",
  "currency": "EUR",
  "reference": "INV-2026-118",
  "iban": "[redacted]"
}"""


@pytest.fixture
def browser(monkeypatch) -> Iterator[Any]:
    """A Chromium; playwright's loop makes Django believe that this thread is asynchronous."""
    api = pytest.importorskip("playwright.sync_api")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield launched
        launched.close()


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob", is_staff=True, first_name="Bob", last_name="Okafor")


def open_as(browser: Any, live_server: Any, user: Any, **options: Any) -> Any:
    """A tab in which the user is logged in and our content security policy is in force."""
    client: Client = client_of(user)
    context = browser.new_context(base_url=live_server.url, **options)
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies(
        [{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}]
    )
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    tab.complaints = []
    # A 404 is the favicon, which the test project does not have.
    tab.on(
        "console",
        lambda line: (
            line.type == "error" and "404" not in line.text and tab.complaints.append(line.text)
        ),
    )
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    return tab


def strictly(tab: Any, pages: str = "**/decide/") -> None:
    """Serve the pages under a policy that allows nothing inline."""

    def add_policy(route: Any) -> None:
        response = route.fetch(max_redirects=0)
        headers = {**response.headers, "content-security-policy": POLICY}
        route.fulfill(response=response, headers=headers)

    tab.route(pages, add_policy)


def picture(tab: Any, name: str) -> None:
    """Keep what is on the screen, where a folder was named."""
    if folder := os.environ.get("JIT_TEST_SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def an_office() -> dict[str, ApprovalRequest]:
    """A believable night: several calls held, one of them half decided."""
    bob = get_user_model().objects.get(username="bob")
    carol = factories.decider("carol", is_staff=True, first_name="Carol", last_name="Lindqvist")
    erin = factories.user("erin", first_name="Erin", last_name="Marsh")
    deploy = factories.user("deploy-bot")
    group = Group.objects.create(name="Approvers")
    group.user_set.add(bob, carol)
    names = ("Transfers", "Customer data", "Cluster shutdown")
    found = [factories.policy(name=name, slug=name.lower().replace(" ", "-")) for name in names]
    for policy in found:
        assign_perm("jit_approval.decide", group, policy)
    transfers, customers, clusters = (
        {"policy_id": policy.pk, "policy_slug": policy.slug, "policy_version": 3}
        for policy in found
    )
    source = {
        "ip": "203.0.113.24",
        "user_agent": "backoffice-cli/2.4 (python-httpx/0.28)",
    }
    call = _transfer(source)
    tried = call_held(erin, {**call, "reason": "Invoice 2026-118"}, transfers)
    services.reject(tried, by=carol, comment="Which invoice line? Please say in the reason.")
    ApprovalRequest.objects.filter(pk=tried.pk).update(cooldown_until=tried.created_at)
    held = {
        "transfer": call_held(erin, call, transfers | {"required_approvals": 2}),
        "customer": factories.held(
            erin,
            action="customers.destroy",
            path="/api/customers/8123/",
            object_label="Ada Lindholm (customer 8123)",
            reason="GDPR erasure request #811, identity checked by support",
            terms=customers | {"decide_within": timedelta(seconds=100)},
        ),
        "cluster": factories.held(
            deploy,
            action="clusters.shutdown",
            method="POST",
            path="/api/clusters/prod-eu/shutdown/",
            object_label="prod-eu (214 nodes)",
            reason="Change CHG-20417: move to the new data centre",
            terms=clusters | {"required_approvals": 2, "decide_within": timedelta(hours=2)},
        ),
        "dataset": factories.held(
            deploy,
            action="datasets.destroy",
            path="/api/datasets/customers-2019/",
            object_label="customers-2019 (1,204,311 rows)",
            reason="",
            terms={"decide_within": timedelta(minutes=40)},
        ),
        "used": factories.held(
            erin, action="customers.export", object_label="Segment: dormant since 2023"
        ),
    }
    services.approve(held["transfer"], by=carol, comment="Checked against the invoice.")
    services.approve(held["used"], by=carol)
    return {name: factories.fresh(row) for name, row in held.items()}


def _transfer(source: dict[str, str]) -> dict[str, Any]:
    return {
        "body": "the transfer",
        "action": "transfers.create",
        "method": "POST",
        "path": "/api/transfers/",
        "object_label": "250,000.00 EUR to Nordwind Logistik GmbH",
        "object_model": "backoffice.account",
        "object_pk": "4411",
        "payload": TRANSFER,
        "context": {
            "Balance before": "1,204,880.15 EUR",
            "Balance after": "954,880.15 EUR",
            "Supplier known since": "2019-03-04",
        },
        "reason": "Invoice 2026-118, first instalment. Supplier stops delivery at 06:00.",
        **source,
    }


def call_held(requester: Any, call: dict[str, Any], terms: dict[str, Any]) -> ApprovalRequest:
    made = replace(factories.call(requester, **call), credential="TokenAuthentication")
    return services.open_request(made, factories.terms(**terms))


def overflows(tab: Any) -> list[str]:
    """What makes one scroll sideways; an element can be found before the styles and scripts are done."""
    tab.wait_for_load_state("load")
    return tab.evaluate("""() => {
        const wide = (edge) => Math.ceil(edge) > window.innerWidth;
        if (!wide(document.documentElement.scrollWidth)) return [];
        const page = `${document.documentElement.scrollWidth} > ${window.innerWidth}`;
        const found = [...document.querySelectorAll("*")].filter((each) => wide(each.getBoundingClientRect().right));
        return [page, ...found.map((each) => `${each.tagName} ${each.className} #${each.id}`)];
    }""")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_screen_and_run_nothing_inline(browser, live_server, bob, size, scheme):
    held = an_office()
    width, height = SIZES[size]
    tab = open_as(
        browser,
        live_server,
        bob,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
    )
    for name, url in (
        ("inbox", INBOX),
        ("decision", page(held["transfer"])),
        ("urgent", page(held["customer"])),
        ("approved", page(held["used"])),
    ):
        tab.goto(url)
        picture(tab, f"{name}-{size}-{scheme}")
        assert not overflows(tab), name
    tab.goto(INBOX)
    for box in tab.query_selector_all("input.action-select"):
        box.check()
    tab.select_option("select[name=action]", "approve_selected")
    tab.click("button[name=index]")
    tab.wait_for_selector(".jit-approve")
    picture(tab, f"confirm-{size}-{scheme}")
    assert not overflows(tab)
    assert tab.complaints == []


@pytest.mark.parametrize("size", SIZES)
def test_before_several_are_approved_one_sees_which_look_the_same(browser, live_server, bob, size):
    erin = factories.user("erin")
    call = {**_transfer({}), "reason": "Invoice 2026-118"}
    other, row = (factories.held(erin, **{**call, "body": body}) for body in ("one", "another"))
    width, height = SIZES[size]
    tab = open_as(browser, live_server, bob, viewport={"width": width, "height": height})
    strictly(tab, "**/approvalrequest/")
    tab.goto(INBOX)
    tab.check(f"input.action-select[value='{row.pk}']")
    tab.select_option("select[name=action]", "approve_selected")
    tab.click("button[name=index]")
    warning = tab.wait_for_selector(".jit-cards .jit-warning")
    assert "looks the same in another call" in warning.inner_text()
    picture(tab, f"confirm-alike-{size}")
    assert not overflows(tab)
    warning.query_selector("a").click()
    assert tab.url.endswith(page(other))
    assert tab.complaints == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_the_trail_fit_the_screen(browser, live_server, bob, size, scheme, tmp_path):
    keys.generate("approvals.example.com/trail", tmp_path / "trail.key")
    values = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key"), "AUDIT_LOGGER": "nobody.listens"}
    with override_settings(JIT_APPROVAL=values):
        held = an_office()
        used = services.consume(held["used"], state_digest=factories.STATE)
        services.record_outcome(used, outcome=Outcome.SUCCEEDED, response_status=200)
        seal.seal(at_once=True)
        keeping.verify_if_due()
        keeping.keep(1)
        services.approve(held["customer"], by=factories.decider("dora", is_staff=True))
        boss = factories.user("auditor", is_staff=True, is_superuser=True)
        width, height = SIZES[size]
        viewport = {"width": width, "height": height}
        tab = open_as(browser, live_server, boss, viewport=viewport, color_scheme=scheme)
        tab.goto("/admin/jit_approval/auditevent/")
        picture(tab, f"events-{size}-{scheme}")
        assert not overflows(tab)
        assert "As it was signed" in tab.inner_text(".jit-integrity")
        tab.fill("input[name=q]", "carol")
        tab.click(".jit-search button")
        tab.wait_for_url("**/?q=carol*")
        assert set(tab.locator(".jit-list tbody td:nth-child(3)").all_inner_texts()) == {"carol"}
        tab.goto(page(held["used"]))
        picture(tab, f"receipt-{size}-{scheme}")
        assert not overflows(tab)
        with tab.expect_download() as download:
            tab.click(".jit-receipt")
        assert download.value.suggested_filename == f"receipt-{used.pk}.json"
        assert tab.complaints == []


def test_countdown_counts_and_ends_under_a_strict_policy(browser, live_server, bob) -> None:
    row = factories.held(terms={"decide_within": timedelta(seconds=4)})
    tab = open_as(browser, live_server, bob)
    strictly(tab)
    tab.goto(page(row))
    first = tab.inner_text(".jit-clock .jit-left")
    tab.wait_for_function(
        "before => document.querySelector('.jit-clock .jit-left').textContent < before", arg=first
    )
    tab.wait_for_selector(".jit-clock .jit-over")
    tab.click("button[value=approve]")
    tab.wait_for_selector(".errornote")
    assert "Too late" in tab.inner_text(".errornote")
    assert not [text for text in tab.complaints if "Content Security Policy" in text]


@pytest.mark.parametrize(("button", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_buttons_decide_without_javascript(browser, live_server, bob, button, status) -> None:
    row = factories.held()
    tab = open_as(browser, live_server, bob, java_script_enabled=False)
    tab.goto(INBOX)
    tab.click(f"text={row.match_code}")
    tab.fill("#jit-comment", "Checked.")
    tab.click(f"button[value={button}]")
    tab.wait_for_url(f"**{INBOX}")
    assert factories.fresh(row).status == status


def test_markup_from_the_caller_does_not_run(browser, live_server, bob) -> None:
    evil = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    row = factories.held(reason=evil, object_label=evil, payload=evil, context={evil: evil})
    tab = open_as(browser, live_server, bob)
    for url in (INBOX, page(row)):
        tab.goto(url)
        tab.wait_for_load_state()
        assert "owned" not in tab.title()
        assert tab.query_selector("img[src=x]") is None


@pytest.mark.parametrize("size", SIZES)
def test_before_approving_one_sees_that_the_server_runs_it_at_once(browser, live_server, bob, size):
    factories.decider("carol")
    policy = factories.policy(name="Cluster shutdown", slug="shutdown", execution="server")
    terms = {"policy_id": policy.pk, "policy_slug": policy.slug, "execution": "server"}
    call = {"action": "clusters.shutdown", "method": "POST", "path": "/api/clusters/prod-eu/"}
    erin = factories.user("erin")
    alone = factories.held(erin, object_label="prod-eu (214 nodes)", terms=terms, **call)
    both = factories.held(erin, terms={**terms, "required_approvals": 2}, **call)
    by_caller = factories.held(erin)
    width, height = SIZES[size]
    tab = open_as(browser, live_server, bob, viewport={"width": width, "height": height})
    for row, button, terms_row in (
        (alone, "Approving runs it at once.", "the server runs it at once, as the requester"),
        (
            both,
            "The last approval runs it at once.",
            "the server runs it at once, as the requester",
        ),
    ):
        tab.goto(page(row))
        picture(tab, f"by-server-{row.required_approvals}-{size}")
        assert button in tab.inner_text(".jit-verdict .jit-at-once")
        assert "may run once" not in tab.inner_text(".jit-verdict")
        assert tab.inner_text(".jit-run-by") == terms_row
        assert not overflows(tab)
    tab.goto(page(by_caller))
    assert tab.inner_text(".jit-run-by") == "the requester runs it, by repeating the call"
    assert "at once" not in tab.inner_text(".jit-verdict")
    tab.goto(INBOX)
    for row in (alone, by_caller):
        tab.check(f"input.action-select[value='{row.pk}']")
    tab.select_option("select[name=action]", "approve_selected")
    tab.click("button[name=index]")
    tab.wait_for_selector(".jit-approve")
    picture(tab, f"by-server-confirm-{size}")
    warnings = tab.locator(".jit-cards .jit-warning").all_inner_texts()
    assert warnings == ["Once approved, the server runs it at once, as the requester."]
    tab.goto(page(alone))
    tab.click("button[value=approve]")
    tab.wait_for_url(f"**{INBOX}")
    assert "The server runs it now." in tab.inner_text(".messagelist")
    tab.goto(page(alone))
    picture(tab, f"by-server-approved-{size}")
    assert "the server is about to run it" in tab.inner_text(".jit-verdict")
    assert tab.complaints == []


# --- policies, delegations, gated changes ------------------------------------------------------------------


@pytest.fixture
def rules(bob) -> Iterator[dict[str, Any]]:
    """Policies of a believable office, one of them with a history, one that nobody could satisfy."""
    security, finance = (Group.objects.create(name=name) for name in ("security", "finance"))
    alice = factories.user("alice", is_staff=True, is_superuser=False)
    alice.user_permissions.add(
        *Permission.objects.filter(
            content_type__app_label="jit_approval",
            codename__in=("add_approvalpolicy", "change_approvalpolicy", "delete_approvalpolicy"),
        )
    )
    people = [factories.user(name, is_staff=True) for name in ("carol", "dave", "frank")]
    security.user_set.add(people[0], people[1], bob)
    finance.user_set.add(people[2])
    for group in (security, finance):
        group.permissions.add(factories.decide_permission())
    with versions.authored(alice, "First version, after the audit of March"):
        transfers = factories.policy(
            name="Large transfers",
            slug="large-transfers",
            description="Payments above the daily limit of the operating account.",
            actions="transfers.create\nbatches.*",
            condition="request.data.amount > 10000",
            severity="high",
            required_approvals=2,
        )
    with versions.authored(
        bob, "CHG-20417: finance wants a say, and the condition let treasury through"
    ):
        transfers.condition = 'request.data.amount > 10000\n&& !("treasury" in user.groups)'
        transfers.actions = "transfers.create\ntransfers.update\nbatches.*"
        transfers.severity = "critical"
        transfers.required_approvals = 3
        transfers.save()
        transfers.group_requirements.create(group=security, count=2)
        transfers.group_requirements.create(group=finance, count=1)
        assign_perm("jit_approval.decide", security, transfers)
    transfers.usable_within = timedelta(minutes=1)
    transfers.save()
    factories.policy(name="Customer data", slug="customer-data", actions="customers.*")
    factories.policy(
        name="Cluster shutdown",
        slug="cluster-shutdown",
        actions="clusters.shutdown",
        severity="critical",
        required_approvals=9,
    )
    unused = factories.policy(
        name="Exports by robots", slug="robots", actions="*.export", effect="deny", priority=10
    )
    factories.policy(
        name="Shadow: refunds", slug="shadow-refunds", actions="refunds.*", effect="observe"
    )
    yield {
        "alice": alice,
        "transfers": transfers,
        "unused": unused,
        "security": security,
        "finance": finance,
    }


def a_night(rules: dict[str, Any]) -> ApprovalRequest:
    """A transfer half decided: by a stand-in, while somebody joined a group that decides."""
    dave, carol = (get_user_model().objects.get(username=name) for name in ("dave", "carol"))
    eve = factories.user("eve", is_staff=True)
    now = timezone.now()
    Delegation.objects.create(
        delegator=dave, stand_in=eve, starts_at=now, ends_at=now + timedelta(days=7)
    )
    policy = rules["transfers"]
    groups = ((rules["security"].pk, "security", 2), (rules["finance"].pk, "finance", 1))
    terms = {
        "policy_id": policy.pk,
        "policy_slug": policy.slug,
        "policy_version": policy.version,
        "required_approvals": 3,
        "severity": "critical",
        "require_approval_id": True,
        "group_requirements": groups,
    }
    row = call_held(factories.user("erin"), _transfer({}), terms)
    services.approve(row, by=eve, comment="Checked against the invoice.")
    factories.user("mallory").groups.add(rules["security"])
    assert carol.is_staff
    return row


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_policies_fit_the_screen(browser, live_server, bob, rules, size, scheme) -> None:
    width, height = SIZES[size]
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    row = a_night(rules)
    tab = open_as(browser, live_server, rules["alice"], **options)
    policy = f"{POLICIES}{rules['transfers'].pk}/"
    for name, url in (
        ("policies", POLICIES),
        ("policy-form", f"{policy}change/"),
        ("policy-add", f"{POLICIES}add/"),
        ("policy-versions", f"{policy}versions/"),
        ("policy-delete", f"{POLICIES}{rules['unused'].pk}/delete/"),
    ):
        tab.goto(url)
        picture(tab, f"{name}-{size}-{scheme}")
        assert not overflows(tab), name
    tab.goto(f"{policy}change/")
    tab.click("text=Archive…")
    tab.wait_for_selector(".jit-reject")
    picture(tab, f"policy-archive-{size}-{scheme}")
    assert not overflows(tab)
    assert tab.complaints == []
    tab = open_as(browser, live_server, bob, **options)
    for name, url in (
        ("groups", page(row)),
        ("inbox-groups", INBOX),
        ("delegation-add", "/admin/jit_approval/delegation/add/"),
        ("delegations", "/admin/jit_approval/delegation/"),
    ):
        tab.goto(url)
        picture(tab, f"{name}-{size}-{scheme}")
        assert not overflows(tab), name
    assert tab.complaints == []
    frank = get_user_model().objects.get(username="eve")
    tab = open_as(browser, live_server, frank, **options)
    tab.goto(page(factories.held(terms={"required_approvals": 2})))
    picture(tab, f"stand-in-{size}-{scheme}")
    assert "You decide for dave" in tab.inner_text(".jit-verdict")
    assert not overflows(tab)


@pytest.mark.parametrize("size", SIZES)
def test_gated_change_from_form_to_decision(browser, live_server, bob, rules, size, settings):
    settings.JIT_APPROVAL = {"GATE_POLICY_CHANGES": True}
    width, height = SIZES[size]
    options = {"viewport": {"width": width, "height": height}}
    tab = open_as(browser, live_server, rules["alice"], **options)
    tab.goto(f"{POLICIES}{rules['transfers'].pk}/change/")
    tab.fill("#id_actions", "transfers.*")
    tab.fill("#id_required_approvals", "4")
    tab.fill("#id_why", "Batches were forgotten")
    picture(tab, f"gated-form-{size}-light")
    tab.click("input[name=_save]")
    tab.wait_for_selector(".messagelist")
    picture(tab, f"gated-message-{size}-light")
    assert "Nothing has changed yet" in tab.inner_text(".messagelist")
    assert not overflows(tab)
    tab.click(".messagelist a")
    tab.wait_for_selector(".jit-diff")
    assert "your own call" in tab.inner_text(".jit-verdict")
    rules["transfers"].refresh_from_db()
    assert rules["transfers"].required_approvals == 3
    decider = open_as(browser, live_server, bob, **options)
    decider.goto(tab.url)
    picture(decider, f"gated-decision-{size}-light")
    assert not overflows(decider)
    decider.click("button[value=approve]")
    decider.wait_for_url(f"**{INBOX}")
    rules["transfers"].refresh_from_db()
    assert rules["transfers"].required_approvals == 4


def test_delegation_is_entered_and_ended_by_hand(browser, live_server, bob) -> None:
    factories.user("carol")
    tab = open_as(browser, live_server, bob)
    tab.goto("/admin/jit_approval/delegation/add/")
    tab.fill("#id_stand_in", "carol")
    tab.fill("#id_ends_at_0", (timezone.now() + timedelta(days=3)).strftime("%Y-%m-%d"))
    tab.fill("#id_ends_at_1", "08:00:00")
    tab.click("input[name=_save]")
    tab.wait_for_selector(".success")
    made = Delegation.objects.get()
    assert (made.delegator, made.stand_in.username) == (bob, "carol")
    tab.click("text=carol for bob >> nth=-1")
    tab.click("text=End it now")
    tab.wait_for_selector(".success")
    made.refresh_from_db()
    assert made.revoked_at is not None


@pytest.mark.parametrize("size", SIZES)
def test_ladder_is_edited_and_shown(browser, live_server, bob, size):
    chief = factories.user("chief", is_staff=True, is_superuser=True)
    ann, max_ = factories.user("ann"), factories.user("max")
    managers = Group.objects.create(name="Managers on duty")
    managers.user_set.add(max_)
    policy = factories.policy(
        name="Transfers",
        slug="transfers",
        decide_within=timedelta(minutes=10),
        fallback="it@example.test",
    )
    step(policy, 50, deciders=True)
    step(policy, timedelta(minutes=7), users=[ann], groups=[managers], may_decide=True)
    width, height = SIZES[size]
    tab = open_as(browser, live_server, chief, viewport={"width": width, "height": height})
    tab.goto(f"{POLICIES}{policy.pk}/change/")
    assert overflows(tab) == []
    tab.locator("#steps-group").scroll_into_view_if_needed()
    picture(tab, f"ladder-form-{size}")
    tab.click("#steps-group .add-row a")
    tab.fill("#id_steps-2-share", "90")
    tab.fill("#id_steps-2-addresses", "duty@example.test")
    tab.click("[name=_save]")
    assert [each["after"] for each in versions.snapshot(policy)["steps"]] == ["50%", "7m", "90%"]
    row = held(policy, factories.user("erin"), reason="Invoice 2026-118")
    for share in (0, 55):
        pass_time(row, share)
        climb()
        for pk in list(row.notifications.filter(recipient="").values_list("pk", flat=True)):
            tasks.deliver(pk)
    strictly(tab)
    tab.goto(page(row))
    assert "Next, in" in tab.locator(".jit-ladder").inner_text()
    assert "Managers on duty" in tab.locator(".jit-ladder").inner_text()
    assert overflows(tab) == []
    picture(tab, f"ladder-decide-{size}")
    assert tab.complaints == []
