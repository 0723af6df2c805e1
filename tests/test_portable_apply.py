"""Export, plan and apply: the same again changes nothing, all or nothing, every fault at once."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jit_approval.models import (
    ApprovalPolicy,
    AuditEvent,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
    PolicyVersion,
)
from jit_approval.policies import versions
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

SMALL = """\
[policies.erasure]
name = "Erasure"
actions = ["customers.destroy"]
deciders = { users = ["bob"] }
"""


@pytest.fixture(autouse=True)
def bob() -> Any:
    return factories.user("bob")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policies.toml"


def run(*args: Any, **options: Any) -> tuple[int, str, str]:
    """Exit status, output and warnings of one run."""
    out, err = StringIO(), StringIO()
    try:
        call_command("approval_policies", *map(str, args), stdout=out, stderr=err, **options)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    except CommandError as error:
        return error.returncode, out.getvalue(), f"{err.getvalue()}{error}"
    return 0, out.getvalue(), err.getvalue()


def run_on(path: Path, verb: str, text: str, *more: str) -> tuple[int, str, str]:
    path.write_text(text, encoding="utf-8")
    return run(verb, path, *more)


def many() -> None:
    """Policies that use everything."""
    security, finance = (Group.objects.create(name=name) for name in ("security", "fin ance"))
    carl = factories.user("carl")
    view = Permission.objects.get(codename="view_approvalpolicy")
    first = factories.policy(slug="payouts", actions="payouts.*\ntransfers.create", priority=10)
    first.condition = 'request.data.amount > 10000\n&& !("treasury" in user.groups)'
    first.description = 'Of \u00dcber "us"\n\n\u202ehidden \\ '
    first.required_approvals = 3
    first.reason_pattern = r"\bINC-\d{4,}\b"
    first.fallback = "ciso@example.test"
    first.object_permission = "testapp.change_customer"
    first.save()
    PolicyGroupRequirement.objects.create(policy=first, group=security, count=2)
    PolicyGroupRequirement.objects.create(policy=first, group=finance)
    decide = factories.decide_permission()
    PolicyUserPermission.objects.create(user=carl, permission=decide, content_object=first)
    PolicyGroupPermission.objects.create(group=security, permission=decide, content_object=first)
    PolicyGroupPermission.objects.create(group=finance, permission=view, content_object=first)
    step = first.steps.create(after=timedelta(minutes=2), addresses="duty@example.test")
    step.users.add(carl)
    step.groups.add(security, finance)
    first.steps.create(share=50, deciders=True)
    factories.policy(slug="z-last", effect="observe")
    factories.policy(slug="a-first", effect="deny", enabled=False)
    factories.policy(slug="old", enabled=False, archived=True)


# --- export and back ---------------------------------------------------------------------------------------


def test_what_is_exported_makes_the_same_policies_on_an_empty_database(path) -> None:
    many()
    assert run("export", "-o", path, "--all")[0] == 0
    text, before = path.read_bytes(), versions.snapshots()
    ApprovalPolicy.objects.all().delete()
    assert run("apply", path)[0] == 0
    assert versions.snapshots() == before
    assert run("export", "--all")[1].encode() == text


def test_export_leaves_out_archived_policies_unless_asked() -> None:
    many()
    assert "[policies.old]" not in run("export")[1]
    assert "[policies.old]" in run("export", "--all")[1]


def test_export_does_not_depend_on_the_order_things_were_made_in(path) -> None:
    many()
    text = run("export")[1]
    for slug in ("z-last", "a-first"):
        wanted = versions.snapshots()[slug]
        ApprovalPolicy.objects.get(slug=slug).delete()
        versions.restore(wanted)
    assert run("export")[1] == text


def test_applying_twice_changes_nothing(path) -> None:
    many()
    run("export", "-o", path)
    stamps = list(ApprovalPolicy.objects.order_by("pk").values_list("pk", "updated_at", "version"))
    counts = PolicyVersion.objects.count(), AuditEvent.objects.count()
    status, out, _ = run("apply", path)
    assert (status, out.split("\n")[0]) == (0, "No difference.")
    assert run("plan", path)[0] == 0
    assert stamps == list(
        ApprovalPolicy.objects.order_by("pk").values_list("pk", "updated_at", "version")
    )
    assert counts == (PolicyVersion.objects.count(), AuditEvent.objects.count())


def test_export_of_no_policies_can_be_applied(path) -> None:
    assert run("export", "-o", path)[0] == 0
    assert path.read_bytes() == b""
    assert run("apply", path)[0] == 0


def test_policies_of_one_priority_are_made_in_the_order_of_the_file_that_export_writes(
    path,
) -> None:
    text = SMALL.replace("erasure", "b") + SMALL.replace("erasure", "a")
    run_on(path, "apply", text)
    assert list(ApprovalPolicy.objects.values_list("slug", flat=True)) == ["a", "b"]


# --- plan --------------------------------------------------------------------------------------------------


def test_plan_shows_the_difference_exits_with_2_and_changes_nothing(path) -> None:
    run_on(path, "apply", SMALL)
    before = versions.snapshots(), PolicyVersion.objects.count(), AuditEvent.objects.count()
    text = SMALL.replace('"bob"', '"bob", "ann"') + "required_approvals = 2\ncondition = 'true'\n"
    factories.user("ann")
    text += '[policies.new]\nname = "New"\nactions = ["x"]\neffect = "allow"\n'
    status, out, _ = run_on(path, "plan", text)
    assert status == 2
    assert out == (
        "~ erasure\n"
        '    + condition: "true"\n'
        "    ~ required_approvals: 1 → 2\n"
        '    ~ deciders.users: ["bob"] → ["ann", "bob"]\n'
        "+ new: new\n"
        '    + name: "New"\n'
        '    + actions: "x"\n'
        '    ~ effect: "require" → "allow"\n'
        "1 new, 1 changed, 0 removed\n"
    )
    assert before == (
        versions.snapshots(),
        PolicyVersion.objects.count(),
        AuditEvent.objects.count(),
    )


def test_plan_shows_what_is_taken_away(path) -> None:
    Group.objects.create(name="security")
    more = "groups_required = { security = 1 }\ncondition = 'true'\ndecide_within = '1h'\n"
    run_on(path, "apply", SMALL + more)
    out = run_on(path, "plan", SMALL.replace('deciders = { users = ["bob"] }\n', ""))[1]
    assert '    - condition: "true"\n' in out
    assert "    - groups_required.security: 1\n" in out
    assert '    - deciders.users: "bob"\n' in out
    assert '    ~ decide_within: "1h" → "15m"\n' in out


def test_plan_refuses_look_alikes_even_where_the_file_owns_up_to_them(path) -> None:
    run_on(path, "apply", SMALL)
    status, out, error = run_on(path, "plan", SMALL.replace('"customers', '"\\u0441ustomers'))
    assert (status, out) == (1, "")
    assert r"\u0441ustomers" in error


def test_plan_of_long_lists_shows_who_comes_and_goes(path) -> None:
    names = [f"somebody{number}" for number in range(12)]
    for name in [*names, "eve"]:
        factories.user(name)
    listed = SMALL.replace('["bob"]', str(names).replace("'", '"'))
    run_on(path, "apply", listed)
    out = run_on(path, "plan", listed.replace("somebody3", "eve"))[1]
    assert out.startswith(
        '~ erasure\n    - deciders.users: "somebody3"\n    + deciders.users: "eve"\n'
    )


# --- not in the file ---------------------------------------------------------------------------------------


def test_policies_that_are_not_in_the_file_are_left_alone_and_named(path) -> None:
    factories.policy(slug="other")
    status, out, _ = run_on(path, "apply", SMALL)
    assert status == 0
    assert "left alone (--prune removes them): other" in out
    assert ApprovalPolicy.objects.filter(slug="other", enabled=True).exists()


def test_prune_archives_what_has_requests_and_deletes_what_has_none(path) -> None:
    used, unused = factories.policy(slug="used"), factories.policy(slug="unused")
    factories.decider("dan")
    factories.held(terms={"policy_id": used.pk, "policy_slug": "used"})
    status, out, _ = run_on(path, "plan", SMALL, "--prune")
    assert status == 2
    assert "- used: archived, for it has requests" in out
    assert "- unused: deleted, for it has no requests" in out
    assert ApprovalPolicy.objects.filter(slug="unused").exists()
    assert run_on(path, "apply", SMALL, "--prune")[0] == 0
    used.refresh_from_db()
    assert (used.archived, used.enabled) == (True, False)
    assert not ApprovalPolicy.objects.filter(pk=unused.pk).exists()
    assert run_on(path, "plan", SMALL, "--prune")[0] == 0


def test_archived_policies_are_neither_named_nor_touched(path) -> None:
    factories.policy(slug="old", archived=True, enabled=False)
    for more in ([], ["--prune"]):
        status, out, _ = run_on(path, "apply", SMALL, *more)
        assert (status, "old" in out) == (0, False)
    assert ApprovalPolicy.objects.filter(slug="old").exists()


def test_prune_with_a_file_that_names_no_policy_is_refused(path) -> None:
    factories.policy(slug="other")
    status, _, err = run_on(path, "apply", "# nothing\n", "--prune")
    assert status == 1
    assert "names no policy at all" in err
    assert ApprovalPolicy.objects.filter(slug="other").exists()


@pytest.mark.parametrize("more", ["", "archived = true\nenabled = false\npriority = 1\n"])
def test_archived_policy_is_not_changed_by_a_file(path, more) -> None:
    factories.policy(slug="erasure", archived=True, enabled=False)
    status, _, err = run_on(path, "apply", SMALL + more)
    assert status == 1
    assert "policies.toml:1: erasure: is archived and stays as it was" in err


def test_slug_that_differs_in_capital_letters_only_is_refused(path) -> None:
    run_on(path, "apply", SMALL)
    status, _, err = run_on(path, "apply", SMALL.replace("erasure", "Erasure"))
    assert status == 1
    assert "there is 'erasure'; a slug is never changed" in err
    assert list(ApprovalPolicy.objects.values_list("slug", flat=True)) == ["erasure"]


# --- faults ------------------------------------------------------------------------------------------------


def test_every_fault_is_named_with_its_line_and_nothing_is_written(path) -> None:
    text = """\
[policies.good]
name = "Good"
actions = ["x.y"]

[policies.bad]
name = "Bad"
actions = [
    "fine.*",
    "cust[omers",
]
effect = "perhaps"
severity = "grave"
condition = \"\"\"
request.data.amount > 1 &&
    nobody.knows > 2\"\"\"
required_approvals = 0
groups_required = { strangers = 0 }
deciders.users = [
    "nobody",
    "bob",
    "Bob",
]
deciders.groups = ["no-group"]
permissions.veiw_approvalpolicy.users = ["bob"]
object_permission = "testapp.no_such"
decide_within = "500ms"
usable_within = "31d"
rejection_cooldown = "400d"
reason_pattern = "(a+)+"
fallback = ["nobody"]
prioritty = 1

[policies.with-a-slug-of-more-than-one-hundred-letters-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]
name = "Long"
actions = ["x"]
archived = true
"""
    status, _, err = run_on(path, "apply", text)
    faults = [line.removeprefix(f"{path}:") for line in err.strip().split("\n")]
    assert status == 1
    assert [fault.split(": ")[:2] for fault in faults[:-1]] == [
        ["9", "bad.actions"],
        ["11", "bad.effect"],
        ["12", "bad.severity"],
        ["13", "bad.condition"],
        ["16", "bad.required_approvals"],
        ["17", "bad.groups_required.strangers"],
        ["17", "bad.groups_required.strangers"],
        ["19", "bad.deciders.users"],
        ["21", "bad.deciders.users"],
        ["23", "bad.deciders.groups"],
        ["24", "bad.permissions.veiw_approvalpolicy"],
        ["25", "bad.object_permission"],
        ["26", "bad.decide_within"],
        ["27", "bad.usable_within"],
        ["28", "bad.rejection_cooldown"],
        ["29", "bad.reason_pattern"],
        ["30", "bad.fallback"],
        ["31", "bad.prioritty"],
        ["33", f"with-a-slug-of-more-than-one-hundred-letters-{'x' * 56}"],
        ["36", f"with-a-slug-of-more-than-one-hundred-letters-{'x' * 56}.archived"],
    ]
    assert "Line 2, column 11" in faults[3]
    assert "did you mean view_approvalpolicy?" in err
    assert "there is no user 'Bob'" in err
    assert faults[-1] == "Faults: 20. Nothing has changed."
    assert not ApprovalPolicy.objects.exists()
    assert not PolicyVersion.objects.exists()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("{ deciders = true }", 'a step says when: after = "10m" or "50%"'),
        ('{ after = "50%" }', "A step tells somebody: say whom."),
        ('{ after = "15m", deciders = true }', "is never taken"),
        ('{ after = "100%", deciders = true }', "less than or equal to 99"),
        ('{ after = "5 %", deciders = true }', "must be a time or a share"),
        ("{ after = 5, deciders = true }", "must be a time or a share"),
        ('{ after = "9m", deciders = true, may_decide = true }', "Name the users or groups"),
        ('{ after = "9m", users = ["nobody"] }', "there is no user 'nobody'"),
        ('{ after = "9m", groups = ["nobody"] }', "there is no group 'nobody'"),
        ('{ after = "9m", channels = ["nowhere"] }', "there is no channel 'nowhere'"),
        ('{ after = "9m", addresses = ["nobody"] }', "nobody"),
        ('{ after = "9m", adresses = ["a@example.test"] }', "did you mean addresses?"),
        ('"50%"', "must be a list of steps"),
    ],
)
def test_step_that_makes_no_sense_is_refused_with_its_line(path, said, fault) -> None:
    status, _, err = run_on(path, "apply", f"{SMALL}steps = [\n{said},\n]\n")
    assert status == 1
    assert fault in err and f":{SMALL.count(chr(10)) + 2}: " in err
    assert not ApprovalPolicy.objects.exists()


def test_steps_are_planned_applied_and_written_again(path) -> None:
    factories.user("ann")
    Group.objects.create(name="managers")
    said = """\
steps = [
    { after = "50%", deciders = true },
    { after = "9m", users = ["ann"], groups = ["managers"], may_decide = true },
]
"""
    status, out, err = run_on(path, "plan", SMALL + said)
    assert (status, err) == (2, "")
    assert '+ steps: 9m: users ["ann"], groups ["managers"], may decide' in out
    assert run_on(path, "apply", SMALL + said)[0] == 0
    assert run_on(path, "plan", SMALL + said)[0] == 0
    assert run("export")[1] == SMALL + said
    assert run_on(path, "apply", SMALL)[0] == 0
    assert not ApprovalPolicy.objects.get().steps.exists()


def test_fault_in_one_policy_keeps_all_others_from_being_changed(path) -> None:
    run_on(path, "apply", SMALL)
    text = SMALL + 'priority = 1\n[policies.b]\nname = "B"\nactions = ["[x"]\n'
    for verb in ("plan", "apply"):
        status, _, err = run_on(path, verb, text)
        assert status == 1
        assert "8: b.actions" in err
    assert ApprovalPolicy.objects.get().priority == 100


@pytest.mark.parametrize("args", [["plan", "x", "--nonsense"], ["destroy"], []])
def test_mistake_in_the_arguments_is_not_taken_for_a_difference(args) -> None:
    from jit_approval.management.commands.approval_policies import Command

    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["manage.py", "approval_policies", *args])
    assert end.value.code == 1


@pytest.mark.parametrize(
    "args",
    [
        ["plan"],
        ["apply"],
        ["export", "x.toml"],
        ["export", "--prune"],
        ["plan", "x", "--all"],
        ["plan", "x", "--as", "bob"],
        ["apply", "x", "-o", "y"],
    ],
)
def test_option_that_would_be_ignored_is_refused(args) -> None:
    status, _, err = run(*args)
    assert (status, f"{args[0]} takes " in err) == (1, True)


@pytest.mark.parametrize(
    "args",
    [
        ["plan", "FILE", "--prune", "--strict"],
        ["plan", "--prune", "FILE", "--strict"],
        ["plan", "--prune", "--strict", "FILE"],
        ["--prune", "plan", "--strict", "FILE"],
        ["--prune", "plan", "FILE", "--strict"],
        ["--prune", "--strict", "plan", "FILE"],
        ["plan", "--verbosity", "0", "FILE", "--prune"],
        ["plan", "--prune", "--", "FILE"],
    ],
)
def test_file_and_options_come_in_any_order(path, args) -> None:
    factories.policy(slug="other")
    path.write_text(SMALL, encoding="utf-8")
    status, out, err = run(*(path if each == "FILE" else each for each in args))
    assert (status, err) == (2, "")
    assert "+ erasure: new" in out
    assert "- other: deleted" in out


def test_second_file_is_refused(path) -> None:
    status, _, err = run("plan", path, "--prune", "another.toml")
    assert (status, "another.toml" in err) == (1, True)


def test_file_that_is_not_there_is_refused(path) -> None:
    assert run("plan", path)[0] == 1
    assert run("export", "-o", path.parent)[0] == 1


# --- who and why -------------------------------------------------------------------------------------------


def test_versions_say_who_changed_it_and_why(path, bob) -> None:
    bob.user_permissions.add(Permission.objects.get(codename="change_approvalpolicy"))
    run_on(path, "apply", SMALL, "--as", "bob", "--reason", "audit\n2026")
    version = PolicyVersion.objects.get()
    assert (version.author, version.author_label, version.reason) == (bob, "bob", "audit 2026")
    event = AuditEvent.objects.get(kind="policy_changed")
    assert event.actor_label == "bob"


def test_versions_by_nobody_in_particular_say_that_it_was_the_command(path) -> None:
    run_on(path, "apply", SMALL)
    assert PolicyVersion.objects.get().author_label == "manage.py approval_policies"
    event = AuditEvent.objects.get(kind="policy_changed")
    assert event.actor_label == "manage.py approval_policies"


@pytest.mark.parametrize("name", ["nobody", "BOB", "bob"])
def test_author_must_be_an_active_user_who_may_change_policies(path, bob, name) -> None:
    bob.is_active = name != "bob"
    bob.save()
    assert run_on(path, "apply", SMALL, "--as", name)[0] == 1
    assert not ApprovalPolicy.objects.exists()


def test_author_without_the_permission_is_refused(path) -> None:
    status, _, err = run_on(path, "apply", SMALL, "--as", "bob")
    assert (status, "may not change policies" in err) == (1, True)


# --- warnings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_quorum_out_of_reach_is_warned_of_and_refused_when_strict(path, verb) -> None:
    text = f"{SMALL}required_approvals = 2\n"
    status, _, err = run_on(path, verb, text, "--strict")
    assert status == 1
    assert "erasure: its deciders cannot meet its quorum" in err
    assert not ApprovalPolicy.objects.exists()
    status, _, err = run_on(path, verb, text)
    assert "Warning: erasure" in err
    assert ApprovalPolicy.objects.exists() == (verb == "apply")


@pytest.mark.parametrize(
    "more",
    [
        "",
        "required_approvals = 2\nenabled = false\n",
        "required_approvals = 2\neffect = 'deny'\n",
        "required_approvals = 2\nobject_permission = 'testapp.change_customer'\n",
    ],
)
def test_strict_is_content_with_what_can_be_decided_or_needs_no_decision(path, more) -> None:
    assert run_on(path, "apply", SMALL + more, "--strict")[0] == 0


def test_age_that_decides_between_two_policies_is_warned_of(path) -> None:
    factories.policy(slug="zebra", actions="customers.*")
    factories.policy(slug="yak", actions="yaks.*")
    run_on(path, "apply", SMALL)
    for args in (["plan", path], ["export"]):
        warned = run(*args)[2]
        assert "Warning: zebra, erasure: both have priority 100" in warned
        assert "yak," not in warned


# --- cost --------------------------------------------------------------------------------------------------


def test_a_plan_without_difference_asks_no_more_for_more_policies(path) -> None:
    def queries(count: int) -> int:
        text = "".join(SMALL.replace("erasure", f"p{n}") for n in range(count))
        run_on(path, "apply", text)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert run_on(path, "plan", text)[0] == 0
        return len(captured)

    assert queries(2) == queries(20)
