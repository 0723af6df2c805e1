"""The list of events: found by who, what and when, page by page by index alone; what is claimed of the trail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import jit_approval
from jit_approval import clock, keeping, services
from jit_approval.admin import events as page
from jit_approval.admin import timeline
from jit_approval.audit import chain, keys, seal
from jit_approval.audit.selection import Selection
from jit_approval.models import AuditEvent, TrailTask, Verification
from jit_approval.streaming import selecting
from tests import factories
from tests.test_admin_inbox import client_of

pytestmark = pytest.mark.django_db
LIST = "/admin/jit_approval/auditevent/"
NAME = "approvals.example/trail"


@pytest.fixture
def key(tmp_path: Path) -> Iterator[Any]:
    public = keys.generate(NAME, tmp_path / "trail.key")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}):
        yield public


@pytest.fixture
def auditor() -> Any:
    return client_of(factories.user("auditor", is_staff=True, is_superuser=True))


def some(count: int, **fields: Any) -> list[AuditEvent]:
    at = clock.now("default") - timedelta(days=1)
    made = []
    for number in range(count):
        kind = fields.get("kind", ("allowed", "denied")[number % 2])
        by = fields.get("by", ("erin", "mary")[number % 3 == 0])
        when = at + timedelta(minutes=number // 2)
        made.append(chain.single_event(kind, at=when, label=by, data={"action": f"a{number}"}))
        made[-1].save()
    return made


def shown(client: Any, **query: Any) -> list[str]:
    response = client.get(LIST, query)
    assert response.status_code == 200, response.content
    return [line["about"] for line in response.context["lines"]]


def test_newest_are_first_and_pages_lead_to_all_of_them(auditor: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(page, "PAGE", 7)
    some(20)
    seen, query = list[str](), dict[str, str]()
    for _ in range(4):
        response = auditor.get(LIST, query)
        seen += [line["about"] for line in response.context["lines"]]
        older = response.context["page"].older
        query = {"before": older}
        if not older:
            break
    assert seen == [f"action: a{number}" for number in range(19, -1, -1)]
    newer = response.context["page"].newer
    back = auditor.get(LIST, {"after": newer}).context
    assert [line["about"] for line in back["lines"]] == [f"action: a{n}" for n in range(12, 5, -1)]
    assert back["page"].older
    assert back["page"].newer


def test_no_page_counts_or_skips_over_events(auditor: Any, key: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(page, "PAGE", 5)
    some(30)
    older = auditor.get(LIST).context["page"].older
    with CaptureQueriesContext(
        connection,
    ) as few:
        auditor.get(LIST, {"before": older, "kind": "allowed", "q": "erin"})
    asked = [query["sql"] for query in few if "jit_approval_auditevent" in query["sql"]]
    assert len(asked) == 1
    assert not any(word in sql for sql in asked for word in ("COUNT(", "OFFSET"))


def test_events_are_found_by_account_kind_time_request_and_place(auditor: Any, key: Any) -> None:
    made = some(12)
    seal.seal(at_once=True)
    assert len(shown(auditor, q="mary")) == 4
    assert len(shown(auditor, kind="denied")) == 6
    assert shown(auditor, q="mary", kind="denied") == ["action: a9", "action: a3"]
    since, until = made[4].at.isoformat(" ")[:16], made[7].at.isoformat(" ")[:16]
    found = shown(auditor, since=since, until=until)
    assert "action: a11" not in found
    assert {"action: a4", "action: a5"} <= set(found)
    assert shown(auditor, q="#3") == ["action: a3"]
    factories.decider()
    row = factories.held()
    assert len(shown(auditor, q=str(row.pk))) == 1
    assert shown(auditor, q="nobody") == []


def test_text_is_looked_for_only_so_far_and_the_page_says_how_far(
    auditor: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(selecting, "WINDOW", 8)
    some(20)
    response = auditor.get(LIST, {"text": '"A3"'})
    assert response.context["lines"] == []
    assert response.context["page"].searched_to is not None
    assert "Look further back" in response.content.decode()
    response = auditor.get(LIST, {"text": '"A3"', "before": response.context["page"].older})
    assert response.context["lines"] == []
    response = auditor.get(LIST, {"text": '"A3"', "before": response.context["page"].older})
    assert [line["about"] for line in response.context["lines"]] == ["action: a3"]
    assert not response.context["page"].older


@pytest.mark.parametrize(
    "query",
    [{"before": "x"}, {"before": "2026-01-01_1"}, {"after": "2026-01-01T00:00:00Z_9" + "9" * 30}, {"q": "#" + "9" * 40},
     {"q": "\x00"}, {"before": "9999-99-99T00:00:00Z_1"}, {"kind": "x" * 32}],
)  # fmt: skip
def test_made_up_queries_break_nothing(auditor: Any, query: dict[str, str]) -> None:
    some(2)
    assert auditor.get(LIST, query).status_code in (200, 400)


def test_a_time_that_is_none_is_said(auditor: Any) -> None:
    response = auditor.get(LIST, {"since": "yesterday"})
    assert response.status_code == 400
    assert 'role="alert"' in response.content.decode()
    assert auditor.get(f"{LIST}export/", {"since": "yesterday"}).status_code == 400


def test_only_who_may_view_events_sees_them(key: Any) -> None:
    client = client_of(factories.decider(is_staff=True))
    assert client.get(LIST).status_code == 403
    assert client.get(f"{LIST}export/").status_code == 403
    assert client_of(factories.user()).get(f"{LIST}export/").status_code == 302


def test_events_are_found_by_the_names_that_they_are_shown_with(auditor: Any) -> None:
    for kind in timeline.all_kinds():
        some(1, kind=kind)
    shown_names = {line["what"] for line in auditor.get(LIST).context["lines"]}
    assert shown_names == set(timeline.all_kinds().values())
    for kind, name in timeline.all_kinds().items():
        for text in (kind, name, f" {name.lower()} "):
            found = auditor.get(LIST, {"kind": text}).context["lines"]
            assert [line["event"].kind for line in found] == [kind], text
    text = auditor.get(LIST).content.decode()
    for kind in ("policy_changed", "erased", "consumed"):
        assert f'<option value="{kind}">' in text


def test_every_kind_of_event_that_is_written_has_a_name() -> None:
    """By the source: what is handed to the functions that write events, as a plain word."""
    package = Path(jit_approval.__file__).parent
    word = re.compile(
        r"(?:single_event|next_event|verdicts\.record|_record|_write|record)\("
        r"(?:\s*[\w.]+,)?\s*\"([a-z_]+)\""
    )
    found = {kind for path in package.rglob("*.py") for kind in word.findall(path.read_text())}
    assert {"allowed", "held", "policy_deleted", "message_sent", "delegated"} <= found
    assert found <= set(timeline.all_kinds())


@pytest.mark.parametrize("zone", ["Asia/Karachi", "America/Los_Angeles"])
@pytest.mark.parametrize("at", ["0001-01-01T00:00", "9999-12-31T23:59"])
def test_times_at_the_ends_of_the_calendar_are_no_error(
    auditor: Any, zone: str, at: str, settings: Any
) -> None:
    settings.TIME_ZONE = zone
    some(1)
    for name in ("since", "until"):
        assert auditor.get(LIST, {name: at}).status_code in (200, 400)


def test_what_is_filtered_is_downloaded_and_verifies(
    auditor: Any, key: Any, tmp_path: Path
) -> None:
    some(9)
    seal.seal(at_once=True)
    response = auditor.get(f"{LIST}export/", {"kind": "denied"})
    assert 'filename="events.jsonl"' in response["Content-Disposition"]
    (tmp_path / "events.jsonl").write_bytes(b"".join(response.streaming_content))
    report = Selection(tmp_path / "events.jsonl").verify([key])
    assert (report.status(), report.verified) == (0, 4)
    response = auditor.get(f"{LIST}export/", {"format": "ocsf", "q": "mary"})
    lines = b"".join(response.streaming_content).splitlines()
    assert [json.loads(line)["class_uid"] for line in lines] == [6003] * 3
    for bad in ({"format": "xml"}, {"text": "x"}):
        assert auditor.get(f"{LIST}export/", bad).status_code == 400


# --- what is claimed of the trail --------------------------------------------------------------------------------


def badge(client: Any) -> tuple[str, str]:
    found = client.get(LIST).context["integrity"]
    return found.word, found.css


def test_nothing_is_claimed_without_a_key_or_a_verification(auditor: Any, tmp_path: Path) -> None:
    assert badge(auditor) == ("Not sealed", "pending")
    keys.generate(NAME, tmp_path / "trail.key")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}):
        some(2)
        seal.seal(at_once=True)
        assert badge(auditor) == ("Never verified", "pending")


def test_the_badge_says_up_to_which_checkpoint_and_what_was_not_checked(
    auditor: Any, key: Any
) -> None:
    some(3)
    seal.seal(at_once=True)
    keeping.verify_if_due()
    assert badge(auditor) == ("As it was signed", "approved")
    text = auditor.get(LIST).content.decode()
    assert "3 events, up to the checkpoint of" in text
    assert "The key in use was trusted." in text
    assert "Whether its end was cut off was not checked." in text
    Verification.objects.update(at=clock.now("default") - timedelta(days=8))
    assert badge(auditor)[1] == "pending"


def test_a_trail_that_was_changed_is_said_to_be(auditor: Any, key: Any) -> None:
    some(3)
    seal.seal(at_once=True)
    AuditEvent.objects.filter(actor_label="mary").update(actor_label="eve")
    keeping.verify_if_due()
    assert badge(auditor) == ("Not as it was signed", "rejected")
    assert "its columns are not what its content says" in auditor.get(LIST).content.decode()


def test_nothing_verified_is_not_verified(auditor: Any, key: Any) -> None:
    keeping.verify_if_due()
    assert badge(auditor) == ("Never verified", "pending")


def test_targets_that_fail_are_shown(auditor: Any, tmp_path: Path, key: Any) -> None:
    values = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key"), "AUDIT_LOGGER": "tests.none"}
    with override_settings(JIT_APPROVAL=values):
        some(2)
        seal.seal(at_once=True)
        TrailTask.objects.create(
            name="log:tests.none", failures=1, error="disk full", failing_since=clock.now("default")
        )
        text = " ".join(auditor.get(LIST).content.decode().split())
        assert "2 events behind" in text
        assert "disk full" in text


def test_events_of_a_request_lead_to_its_page(auditor: Any) -> None:
    boss = factories.decider()
    row = factories.held()
    services.approve(row, by=boss)
    text = auditor.get(LIST).content.decode()
    assert f"/admin/jit_approval/approvalrequest/{row.pk}/decide/" in text
    assert "not sealed yet" in text
