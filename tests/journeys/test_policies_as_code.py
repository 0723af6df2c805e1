"""Policies as code, from a reviewed file to a call that is held, and gated by another person's approval."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings

from jit_approval import services
from jit_approval.models import ApprovalPolicy, ApprovalRequest, AuditEvent, PolicyVersion
from jit_approval.policies import versions
from jit_approval.states import Outcome, Status
from tests import factories
from tests.callers import client_of as api_client_of
from tests.test_admin_inbox import client_of, page

pytestmark = pytest.mark.django_db(transaction=True)

POLICIES = """\
[policies.large-transfers]
name = "Large transfers"
description = "Twice as many eyes above ten thousand."
priority = 10
actions = ["transfer.*"]
condition = "request.data.amount > 10000"
severity = "high"
required_approvals = 2
groups_required = { finance = 1, security = 1 }
deciders = { groups = ["finance", "security"] }
decide_within = "1h"

[policies.transfers]
name = "Transfers"
actions = ["transfer.*"]
deciders = { groups = ["finance"] }
"""
GATED = override_settings(
    JIT_APPROVAL={"GATE_POLICY_CHANGES": True, "BASE_URL": "https://backoffice.example.com"}
)


@pytest.fixture(autouse=True)
def people() -> dict[str, Any]:
    """A team for each group, an author of policies, and a decider of anything."""
    found = {}
    for group, names in {"finance": ["fay", "finn"], "security": ["sam", "sue"]}.items():
        made = Group.objects.create(name=group)
        for name in names:
            found[name] = factories.user(name)
            found[name].groups.add(made)
    found["alice"] = factories.decider("alice", is_staff=True)
    found["alice"].user_permissions.add(Permission.objects.get(codename="change_approvalpolicy"))
    found["bob"] = factories.decider("bob", is_staff=True)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "policies.toml"
    found.write_text(POLICIES)
    return found


def run(*args: Any) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("approval_policies", *map(str, args), stdout=out, stderr=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


def propose(path: Path, *more: str) -> ApprovalRequest:
    with GATED:
        status, out = run("apply", path, "--as", "alice", "--reason", "audit finding 7", *more)
    assert status == 3, out
    return ApprovalRequest.objects.get()


# --- made at once ------------------------------------------------------------------------------------------


def test_a_reviewed_file_decides_which_calls_are_held(path) -> None:
    assert run("plan", path)[0] == 2
    assert run("apply", path)[0] == 0
    assert run("plan", path)[0] == 0
    assert run("export")[1] == POLICIES
    erin = api_client_of(factories.user("erin"))
    held = erin.post("/api/transfers/", {"amount": 20_000}, format="json")
    assert held.json()["code"] == "approval_pending"
    row = ApprovalRequest.objects.get()
    assert (row.policy.slug, row.required_approvals) == ("large-transfers", 2)
    erin.post("/api/transfers/", {"amount": 5}, format="json")
    assert ApprovalRequest.objects.filter(policy__slug="transfers").count() == 1


def test_exit_statuses_reach_the_shell(path) -> None:
    command = [sys.executable, "manage.py", "approval_policies"]
    root = Path(__file__).resolve().parents[2]

    def status(*args: str) -> tuple[int, str]:
        found = subprocess.run(
            [*command, *args, "--settings", "tests.settings"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        return found.returncode, found.stderr

    code, said = status("plan", "--nonsense")
    assert (code, "usage:" in said) == (1, True)
    code, said = status("plan")
    assert (code, "takes the name of a file" in said) == (1, True)
    code, said = status("plan", str(path.parent / "missing.toml"))
    assert (code, "No such file" in said) == (1, True)


# --- gated -------------------------------------------------------------------------------------------------


def test_gated_file_becomes_one_request_and_nothing_changes_until_it_is_approved(path) -> None:
    before = versions.snapshots()
    with GATED:
        status, out = run("apply", path, "--as", "alice", "--reason", "audit finding 7")
    row = ApprovalRequest.objects.get()
    assert status == 3
    assert "+ large-transfers: new" in out
    assert f"Approval {row.pk} [{row.match_code}] waits" in out
    assert f"https://backoffice.example.com{page(row)}" in out
    assert (row.action, row.status) == ("jit_approval.policy.change", Status.PENDING)
    assert row.requester.get_username() == "alice"
    assert "large-transfers: required_approvals: - -> 2" in row.payload
    assert versions.snapshots() == before == {}


def test_approved_file_is_made_at_once(path, people) -> None:
    row = propose(path)
    services.approve(row, by=people["bob"])
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    assert run("export")[1] == POLICIES
    version = PolicyVersion.objects.get(slug="large-transfers")
    assert version.author == people["alice"]
    assert version.reason == f"audit finding 7 [{row.match_code}]"
    with GATED:
        assert run("plan", path)[0] == 0
        assert run("apply", path, "--as", "alice")[0] == 0
    assert ApprovalRequest.objects.count() == 1


def test_file_approved_on_the_admins_page_is_made_at_once(path, people) -> None:
    row = propose(path)
    client = client_of(people["bob"])
    assert b"large-transfers" in client.get(page(row)).content
    client.post(page(row), {"verdict": "approve", "comment": "read it"})
    assert run("export")[1] == POLICIES
    row.refresh_from_db()
    assert row.status == Status.CONSUMED


def test_file_rejected_on_the_admins_page_is_never_made(path, people) -> None:
    row = propose(path)
    client_of(people["bob"]).post(page(row), {"verdict": "reject", "comment": "no"})
    assert not ApprovalPolicy.objects.exists()


def test_author_of_the_file_cannot_approve_it(path, people) -> None:
    row = propose(path)
    client_of(people["alice"]).post(page(row), {"verdict": "approve", "comment": ""})
    assert not ApprovalPolicy.objects.exists()
    row.refresh_from_db()
    assert row.status == Status.PENDING


def test_same_file_twice_is_one_request(path) -> None:
    propose(path)
    propose(path)
    assert ApprovalRequest.objects.count() == 1


def test_gated_file_that_changes_one_thing_adds_and_removes_does_it_all_or_nothing(path, people):
    run("apply", path)
    factories.policy(slug="unused", actions="nothing.*")
    text = POLICIES.replace("required_approvals = 2", "required_approvals = 3")
    path.write_text(f'{text}\n[policies.more]\nname = "More"\nactions = ["x"]\neffect = "deny"\n')
    row = propose(path, "--prune")
    assert ApprovalPolicy.objects.filter(slug="unused").exists()
    services.approve(row, by=people["bob"])
    assert {*versions.snapshots()} == {"large-transfers", "more", "transfers"}
    assert ApprovalPolicy.objects.get(slug="large-transfers").required_approvals == 3


def test_policy_that_held_the_very_change_that_removes_it_is_archived(path, people) -> None:
    run("apply", path)
    factories.policy(slug="catch-all", actions="*", priority=1000)
    services.approve(propose(path, "--prune"), by=people["bob"])
    row = ApprovalRequest.objects.get()
    policy = ApprovalPolicy.objects.get(slug="catch-all")
    assert (row.policy, row.outcome) == (policy, Outcome.SUCCEEDED)
    assert (policy.archived, policy.enabled) == (True, False)


def test_policy_changed_meanwhile_makes_the_whole_file_void(path, people) -> None:
    run("apply", path)
    path.write_text(POLICIES.replace("priority = 10", "priority = 20").replace('"1h"', '"2h"'))
    row = propose(path)
    ApprovalPolicy.objects.get(slug="large-transfers").save()  # says the same: no version
    policy = ApprovalPolicy.objects.get(slug="large-transfers")
    policy.severity = "critical"
    policy.save()
    services.approve(row, by=people["bob"])
    row.refresh_from_db()
    assert row.status == Status.REVOKED
    assert ApprovalPolicy.objects.get(slug="large-transfers").priority == 10


def test_new_policies_of_one_priority_are_made_in_the_order_of_their_slugs(path, people) -> None:
    slugs = ["aaaaaaaa", "b", "ccc", "dddddd"]  # a JSON column may keep its keys by length
    path.write_text(
        "".join(f'[policies.{slug}]\nname = "x"\nactions = ["{slug}"]\n' for slug in slugs)
    )
    services.approve(propose(path), by=people["bob"])
    made = ApprovalPolicy.objects.order_by("priority", "pk").values_list("slug", flat=True)
    assert list(made) == slugs


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "say whose this is with --as"),
        (["--as", "erin"], "There is no active user"),
        (["--as", "fay"], "may not change policies"),
        (["--as", "alice", "--strict"], "for --strict"),
    ],
)
def test_gated_change_of_nobody_who_may_propose_it_is_refused(path, args, text) -> None:
    path.write_text(POLICIES.replace("required_approvals = 2", "required_approvals = 9"))
    with GATED:
        status, out = run("apply", path, *args)
    assert status == 1
    assert text in out
    assert not ApprovalRequest.objects.exists()
    assert not ApprovalPolicy.objects.exists()


def test_gated_change_that_nobody_else_could_approve_is_refused(path, people) -> None:
    people["bob"].delete()
    with GATED:
        status, out = run("apply", path, "--as", "alice")
    assert status == 1
    assert "nothing was proposed" in out
    assert not ApprovalRequest.objects.exists()


def test_gated_change_that_a_policy_denies_is_refused(path) -> None:
    factories.policy(slug="freeze", actions="jit_approval.policy.*", effect="deny")
    with GATED:
        status, out = run("apply", path, "--as", "alice")
    assert status == 1
    assert "freeze" in out
    assert AuditEvent.objects.filter(kind="denied").count() == 1
    assert ApprovalPolicy.objects.count() == 1


def test_faulty_file_is_refused_before_anybody_is_asked(path) -> None:
    path.write_text(POLICIES.replace('["finance"]', '["nobody"]'))
    with GATED:
        status, out = run("apply", path, "--as", "alice")
    assert status == 1
    assert "policies.toml:16: transfers.deciders.groups: there is no group 'nobody'" in out
    assert not ApprovalRequest.objects.exists()


def test_file_waits_for_who_is_changing_policies_and_then_still_has_its_way(path) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite lets one write at a time")
    run("apply", path)

    def apply() -> None:
        try:
            run("apply", path)
        finally:
            connection.close()

    thread = Thread(target=apply)
    with transaction.atomic():
        policy = ApprovalPolicy.objects.select_for_update().get(slug="transfers")
        thread.start()
        thread.join(timeout=1)
        assert thread.is_alive()
        policy.required_approvals = 5
        policy.save()
    thread.join()
    assert run("export")[1] == POLICIES
