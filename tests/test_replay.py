"""A draft policy over recorded calls: what is certain is counted, and nothing uncertain is taken for a no."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import path
from django.utils import timezone
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from jit_approval import conditions, explaining, policies, policy_changes
from jit_approval.audit import chain
from jit_approval.explaining import as_text, drafts, recorded
from jit_approval.explaining.replay import count
from jit_approval.models import ApprovalPolicy, ApprovalRequest, AuditEvent
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from jit_approval.states import Effect
from tests import factories

pytestmark = pytest.mark.django_db
MONTH = timedelta(days=30)
LARGE = "request.data.amount > 10000"
CONTEXT: dict[str, Any] = {}


class TransfersView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def get_approval_context(self, request, obj):
        return CONTEXT

    def post(self, request):
        return Response({"moved": True})


class NotesView(APIView):
    permission_classes = (IsAuthenticated, RequiresApprovalByPolicy)

    def post(self, request):
        return Response({"kept": True})


urlpatterns = [path("transfers/", TransfersView.as_view()), path("notes/", NotesView.as_view())]


@pytest.fixture(autouse=True)
def _somebody_who_decides() -> None:
    factories.decider("bob")


def held(user: Any = None, *, ago: timedelta = timedelta(0), **fields: Any) -> ApprovalRequest:
    row = factories.held(user, **({"action": "transfers.post"} | fields))
    if ago:
        ApprovalRequest.objects.filter(pk=row.pk).update(created_at=row.created_at - ago)
    return row


def event(kind: str, user: Any, *, at: datetime, fingerprint: str = "f", **data: Any) -> None:
    data = {
        "action": "transfers.post",
        "policy": "p",
        "fingerprint": fingerprint,
        "method": "POST",
        "path": "/transfers/",
        "ip": "203.0.113.9",
    } | data
    chain.single_event(kind, at=at, by=user, data=data).save()


def replay(
    condition: str = "", globs: tuple[str, ...] = ("transfers.*",), **fields: Any
) -> explaining.Replay:
    period = fields.pop("period", MONTH)
    return explaining.replay(drafts.of_words(globs, condition, **fields), period)


def counts(found: explaining.Replay) -> tuple[int, int]:
    return found.affected, found.uncertain.total()


# --- the same answer as live -------------------------------------------------------------------------------

CONDITIONS = (
    LARGE,
    "request.data.amount <= 10000",
    "request.data.iban == 'DE1'",
    "request.data.iban != 'DE1'",
    "has(request.data.iban)",
    "'iban' in request.data",
    "size(request.data) > 1",
    "request.data == {'amount': 50000, 'iban': 'DE1'}",
    "request.data != {'amount': 50000, 'iban': 'DE1'}",
    "request.data.amount > 10000 || request.data.iban == 'DE1'",
    "request.data.amount > 10000 && request.data.iban == 'DE1'",
    "request.data.rows.exists(r, r.token == 'x')",
    "request.data.rows.all(r, r.n > 1)",
    "request.data.note.contains('\\u200b')",
    "request.data.note == 'a[redacted]'",
    "request.query.page == '2'",
    "request.query.token == 's'",
    "request.path.startsWith('/transfers')",
    "request.method == 'POST' && request.ip == '127.0.0.1'",
    "request.headers['x-desk'] == '7'",
    "!('x-desk' in request.headers)",
    "request.agent == 'tests'",
    "object.balance > 100.5",
    "object.code == '17'",
    "object.tier == 'gold'",
    "object.secret == 'x'",
    "object.at < now",
    "'desk' in user.groups",
    "user.username == 'erin' && action == 'transfers.post'",
)
PAYLOADS = (
    {"amount": 50000, "iban": "DE1"},
    {"amount": 5},
    {"amount": "50000"},
    {"rows": [{"n": 2, "token": "x"}, {"n": 3, "token": "y"}]},
    {"note": "zero\u200bwidth \U000e0041 \\u200b"},
    {"note": "a[redacted]", "amount": 1.5},
    [],
    None,
)


@pytest.mark.urls(__name__)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("with_header", [False, True])
def test_replay_says_what_the_gate_said_or_that_it_cannot_tell(settings, with_header) -> None:
    if with_header:
        settings.JIT_APPROVAL = {"CONDITION_HEADERS": ["X-Desk"]}
    erin = factories.user("erin")
    erin.groups.add(Group.objects.create(name="desk"))
    CONTEXT.update(
        balance=Decimal("120.50"),
        code="17",
        tier="gold",
        secret="x",
        at=timezone.now() - timedelta(days=3),
    )
    client = APIClient()
    client.force_authenticate(erin)
    shadows = {text: factories.policy(condition=text, effect=Effect.OBSERVE) for text in CONDITIONS}
    certain = set()
    for payload in PAYLOADS:
        raw = "" if payload is None else json.dumps(payload)
        response = client.generic(
            "POST",
            "/transfers/?page=2&token=s",
            raw,
            content_type="application/json",
            headers={"X-Desk": "7", "User-Agent": "tests"},
        )
        row = ApprovalRequest.objects.get(pk=response.data["approval_id"])
        matched = live_matches(row)
        (call,) = [one for one in recorded_calls() if one.fingerprint == row.fingerprint]
        for text, shadow in shadows.items():
            found = count(drafts.of_words(["*"], text), [call], row.created_at, row.created_at)
            if not found.uncertain:
                certain.add(text)
                assert bool(found.affected) == (shadow.slug in matched), (text, payload)
    unsure = {"object.secret == 'x'", "request.query.token == 's'"}
    if with_header:
        unsure |= {"request.headers['x-desk'] == '7'", "!('x-desk' in request.headers)"}
    assert set(CONDITIONS) - certain == unsure


def live_matches(row: ApprovalRequest) -> set[str]:
    events = [json.loads(one.body)["data"] for one in AuditEvent.objects.filter(kind="observed")]
    return {one["policy"] for one in events if one["fingerprint"] == row.fingerprint}


def recorded_calls() -> list[recorded.Recorded]:
    now = timezone.now()
    return list(recorded.calls(now - timedelta(days=1), now + timedelta(minutes=1)))


# --- what is counted ---------------------------------------------------------------------------------------


def test_headline_says_how_many_of_whom_and_how_often() -> None:
    erin, frank = factories.user("erin"), factories.user("frank")
    for days in (1, 1, 1, 2, 2, 3):
        held(erin if days < 3 else frank, ago=timedelta(days=days))
    found = replay(period=timedelta(days=3))
    assert as_text.headline(found) == "would have held 6 calls of 2 users, median 2 a day"
    assert found.by_user == {"erin": 5, "frank": 1}
    assert found.by_action == {"transfers.post": 6}
    assert found.fates == {"held": 6}
    assert found.busiest == (timezone.localdate() - timedelta(days=1), 3)


def test_days_without_calls_count_for_the_median() -> None:
    held(ago=timedelta(days=1))
    held(ago=timedelta(days=1))
    assert replay().median_a_day == 0
    assert replay(period=timedelta(days=1)).median_a_day == 2


def test_period_of_days_begins_at_midnight_and_today_is_no_whole_day() -> None:
    found = replay(period=timedelta(days=2))
    assert timezone.localtime(found.since).time().isoformat() == "00:00:00"
    assert len(found.days) == 2
    assert timezone.localdate() not in found.days
    assert replay(period=timedelta(minutes=1)).days[-1] == timezone.localdate()


def test_only_named_actions_and_the_period_are_counted() -> None:
    held()
    held(action="customers.destroy")
    held(ago=timedelta(days=40))
    found = replay()
    assert (found.recorded, found.named, found.affected) == (2, 1, 1)
    assert replay(globs=("other.*",)).affected == 0


def test_changes_of_policies_are_no_calls() -> None:
    held(action=policy_changes.ACTION)
    assert replay(globs=("*",)).recorded == 0


@pytest.mark.parametrize("kind", ["allowed", "denied", "observed"])
def test_calls_that_were_never_held_are_counted_too(kind) -> None:
    event(kind, factories.user("erin"), at=timezone.now() - timedelta(days=1))
    found = replay("request.method == 'POST' && user.username == 'erin'")
    assert counts(found) == (1, 0)
    assert found.fates == {kind: 1}


def test_what_one_call_left_behind_is_one_call() -> None:
    erin, now = factories.user("erin"), timezone.now() - timedelta(days=1)
    for number, (kind, policy) in enumerate(
        [("observed", "a"), ("observed", "b"), ("allowed", "c")]
    ):
        event(kind, erin, at=now + timedelta(milliseconds=number), policy=policy)
    row = held(erin)
    event("observed", erin, at=row.created_at, fingerprint=row.fingerprint)
    found = replay()
    assert found.affected == 2
    assert found.fates == {"allowed": 1, "held": 1}


def test_repeated_calls_are_as_many_calls() -> None:
    erin, now = factories.user("erin"), timezone.now() - timedelta(days=1)
    for number in range(3):
        event("allowed", erin, at=now + timedelta(milliseconds=number))
    for number in range(3):
        at = now + timedelta(milliseconds=number)
        event("observed", erin, at=at, fingerprint="g")
    for seconds in (0, 9):
        event("denied", erin, at=now + timedelta(seconds=seconds), fingerprint="h")
        event("observed", erin, at=now + timedelta(seconds=seconds), fingerprint="i")
    event("denied", erin, at=now, fingerprint="j", policy="a")
    event("allowed", erin, at=now + timedelta(milliseconds=1), fingerprint="j", policy="b")
    event("observed", erin, at=now, fingerprint="k", policy="a")
    event("allowed", erin, at=now + timedelta(seconds=9), fingerprint="k", policy="b")
    assert replay().affected == 14


@pytest.mark.parametrize("effect", [Effect.REQUIRE, Effect.DENY, Effect.OBSERVE, Effect.ALLOW])
def test_condition_that_fails_counts_unless_the_draft_allows(effect) -> None:
    held(payload='{"amount": "50000"}')
    found = replay(LARGE, effect=effect)
    assert counts(found) == (0 if effect == Effect.ALLOW else 1, 0)
    assert found.failed.total() == found.affected


def test_draft_whose_condition_cannot_be_read_holds_everything() -> None:
    held()
    factories.policy(slug="broken", actions="transfers.*", condition="a >", enabled=False)
    found = explaining.replay(drafts.of_slug("broken"), MONTH)
    assert (found.affected, found.failed.total()) == (1, 1)


# --- what is uncertain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "fields", "why"),
    [
        ("request.data.iban == 'DE1'", {"payload": '{"iban": "[redacted]"}'}, "redacted"),
        ("request.data.a.b[0].pin == 1", {"payload": '{"a": {"b": [{"pin": "[redacted]"}]}}'}, ""),
        ("request.data != {'pin': '1'}", {"payload": '{"pin": "[redacted]"}'}, "redacted"),
        ("request.data.amount > 1", {"payload": '{"am', "payload_truncated": True}, "in part"),
        ("!has(request.data.amount)", {"payload": '{"am', "payload_truncated": True}, "in part"),
        ("request.data.amount > 1", {"payload": '{"amount": '}, "read back"),
        ("request.data.amount > 1", {"payload": "[" * 100_000}, "read back"),
        ("object.secret == 'x'", {"context": {"secret": "[redacted]"}}, "redacted"),
        ("object.note == 'x'", {"context": {"note": "\\u202ex"}}, "redacted"),
        ("!has(object.x)", {"context": {"\\u202ex": 1}}, "redacted"),
        ("object.a == '1' && object.b > 1", {"context": {"a": "1", "b": "2"}}, "as text"),
        ("object.a == '1' || object.a > 1 ", {"context": {"a": "0"}}, "as text"),
        ("type(object.a) == string", {"context": {"a": "0"}}, "as text"),
        ("request.path == '/a'", {"path": "/a…"}, "in part"),
        ("request.path == '/a'", {"path": "/a?b=?c"}, "in part"),
        ("request.path == '/a'", {"path": "/a\\u200b"}, "escapes"),
        ("request.query.q == 'a'", {"path": "/a\\u200b?q=[redacted]"}, "redacted"),
        ("request.query.q == 'a'", {"path": "/a?q=b&c"}, "taken apart"),
        ("request.query.q == ['a', 'b']", {"path": "/a?q=a&q=[redacted]"}, "redacted"),
        ("request.agent == 'a'", {"user_agent": "a" * 300}, "user agent"),
        ("request.agent != 'a'", {"user_agent": "a\\u200b"}, "user agent"),
    ],
)
def test_what_was_hidden_or_cut_is_uncertain_never_a_silent_no(condition, fields, why) -> None:
    row = held()
    ApprovalRequest.objects.filter(pk=row.pk).update(**fields)
    found = replay(condition)
    assert counts(found) == (0, 1), found
    assert found.at_most == 1
    assert why in " ".join(found.uncertain)
    assert "1 at most: 1 could not be evaluated" in as_text.headline(found)


@pytest.mark.parametrize("kind", ["allowed", "denied", "observed"])
@pytest.mark.parametrize("condition", [LARGE, "has(object.x)", "request.agent == ''"])
def test_payload_and_object_of_a_call_never_held_are_uncertain(kind, condition) -> None:
    event(kind, factories.user(), at=timezone.now() - timedelta(days=1))
    assert counts(replay(condition)) == (0, 1)


def test_what_settles_the_question_without_the_hidden_value_is_certain() -> None:
    held(payload='{"amount": 50000, "iban": "[redacted]"}')
    assert counts(replay("request.data.amount > 1 || request.data.iban == ''")) == (1, 0)
    assert counts(replay("request.data.amount < 1 && request.data.iban == ''")) == (0, 0)
    assert counts(replay("has(request.data.iban) && size(request.data) == 2")) == (1, 0)


def test_amounts_and_times_shown_as_text_are_read_as_the_condition_means_them() -> None:
    moment = timezone.now() - timedelta(days=9)
    held(context={"balance": "120.50", "at": str(moment), "code": "17"})
    assert counts(replay("object.balance > 100.0")) == (1, 0)
    assert counts(replay("object.balance > 200.0")) == (0, 0)
    assert counts(replay("object.at < now - duration('24h')")) == (1, 0)
    assert counts(replay("object.code == '17'")) == (1, 0)


def test_call_of_an_account_that_is_gone_is_uncertain_where_users_matter() -> None:
    erin = factories.user("erin")
    held(erin)
    erin.delete()
    assert counts(replay("'night' in user.groups")) == (0, 1)
    assert counts(replay("request.method == 'DELETE'")) == (1, 0)
    assert replay().by_user == {"erin": 1}


def test_event_that_cannot_be_read_names_no_action() -> None:
    event("allowed", factories.user(), at=timezone.now() - timedelta(days=1))
    AuditEvent.objects.filter(kind="allowed").update(body="no json")
    found = replay(globs=("transfers.*",))
    assert (found.recorded, found.named) == (1, 0)


def test_without_the_library_a_condition_holds_every_call(monkeypatch) -> None:
    from jit_approval.conditions import library

    held(payload='{"amount": 5}')
    draft = drafts.of_words(["*"], LARGE)
    monkeypatch.setattr(library, "MODULE", "no_such_library")
    assert not conditions.available()
    assert counts(explaining.replay(draft, MONTH)) == (1, 0)


# --- the command -------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("approval_explain", *arguments, stdout=out)
    return out.getvalue()


def test_command_replays_a_policy_that_is_not_in_force() -> None:
    held(payload='{"amount": 50000}')
    held(payload='{"amount": 5}')
    event("allowed", factories.user("erin"), at=timezone.now() - timedelta(hours=1))
    factories.policy(slug="large", actions="transfers.*", condition=LARGE, enabled=False)
    text = run("--replay-since", "30d", "--draft-policy", "large")
    assert "would have held 1 call of 1 user, median 0 a day; 2 at most: 1 could not" in text
    assert "busiest day:" in text
    assert "the payload of a call that was never held is not recorded" in text
    found = json.loads(run("--replay-since", "30d", "--draft-policy", "large", "--json"))
    assert (found["affected"], found["affected_at_most"], found["draft"]) == (1, 2, "large")


def test_command_replays_a_draft_in_words() -> None:
    held(payload='{"amount": 50000}')
    words = ("--draft-actions", "transfers.*", "--draft-condition", LARGE, "--draft-effect", "deny")
    assert "would have denied 1 call of 1 user" in run("--replay-since", "12h", *words)


FILE = """[policies.large]
name = "Large"
actions = ["transfers.*"]
condition = "request.data.amount > 10000"
"""
SECOND = FILE.replace("large", "other")


def test_command_replays_a_policy_file_without_applying_it(tmp_path) -> None:
    held(payload='{"amount": 50000}')
    held(payload='{"amount": 5}')
    file = tmp_path / "draft.toml"
    file.write_text(FILE)
    words = ("--replay-since", "30d", "--draft", str(file))
    assert "would have held 1 call of 1 user" in run(*words)
    file.write_text(FILE + SECOND)
    assert run(*words, "--draft-policy", "other").startswith("other (require; transfers.*)")
    assert not ApprovalPolicy.objects.exists()


@pytest.mark.parametrize(
    ("text", "slug", "said"),
    [
        (FILE + SECOND, "", "Name one of the policies. Did you mean large, other?"),
        (FILE, "larg", "There is no policy 'larg'. Did you mean large?"),
        (FILE.replace("> 10000", ">"), "", "draft.toml:4: large.condition"),
        (FILE.replace("condition", "kondition"), "", "draft.toml:4: large.kondition"),
        ("[policies", "", "draft.toml:1: "),
        ("", "", "Name one of the policies."),
    ],
)
def test_policy_file_that_is_wrong_is_refused_with_its_line(tmp_path, text, slug, said) -> None:
    file = tmp_path / "draft.toml"
    file.write_text(text)
    words = (
        "--replay-since",
        "30d",
        "--draft",
        str(file),
        *(("--draft-policy", slug) if slug else ()),
    )
    with pytest.raises(CommandError) as raised:
        run(*words)
    assert raised.value.returncode == 2
    assert said in str(raised.value)


def test_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(CommandError, match="No such file") as raised:
        run("--replay-since", "30d", "--draft", str(tmp_path / "none.toml"))
    assert raised.value.returncode == 2


def test_draft_that_names_nothing_on_record_says_why_that_may_be() -> None:
    text = run("--replay-since", "30d", "--draft-actions", "cluster.*")
    assert "would have held 0 calls of 0 users" in text
    assert "leave no record" in text


def test_replay_writes_nothing_and_reads_each_day_once(django_assert_max_num_queries) -> None:
    erin = factories.user("erin")
    for days in range(1, 19):
        held(erin, ago=timedelta(days=days))
    before = AuditEvent.objects.count()
    with django_assert_max_num_queries(2 * 32 + 4):
        assert replay("user.username == 'erin'").affected == 18
    assert AuditEvent.objects.count() == before
    assert policies.named("transfers.post") == []
