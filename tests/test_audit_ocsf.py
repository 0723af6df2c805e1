"""OCSF: what the schema (1.9.0, API Activity, class 6003) requires is there, of the types and values it allows."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from jit_approval.audit import links, ocsf, origins
from jit_approval.audit.proofs import Proven
from jit_approval.audit.records import Record

AT = datetime(2026, 11, 29, 10, 15, 0, 123456, tzinfo=UTC)

# As the schema documents them: attributes with the requirement `required`, and the constraints of objects.
REQUIRED = {
    "activity_id": int,
    "actor": dict,
    "api": dict,
    "category_uid": int,
    "class_uid": int,
    "metadata": dict,
    "severity_id": int,
    "src_endpoint": dict,
    "time": int,
    "type_uid": int,
}
OPTIONAL = {
    "activity_name": str, "category_name": str, "class_name": str, "message": str, "raw_data": str,
    "resources": list, "severity": str, "status": str, "status_id": int, "type_name": str, "unmapped": dict,
}  # fmt: skip
REQUIRED_OF = {
    "api": ("operation",),
    "metadata": ("product", "version"),
    "api.request": ("uid",),
    "api.response": ("code",),
    "api.service": (),
}
AT_LEAST_ONE = {
    "actor": ("process", "user", "session", "app_name", "app_uid", "application", "iam_role"),
    "actor.user": ("account", "name", "uid"),
    "src_endpoint": ("ip", "uid", "name", "hostname", "svc_name", "instance_uid"),
    "metadata.product": ("name", "uid"),
    "api.service": ("name", "uid"),
}
ACTIVITIES = {0: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete", 99: None}
SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}
STATUSES = {0: "Unknown", 1: "Success", 2: "Failure", 99: None}


def at(found: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        found = found.get(name, {})
    return found


def ensure_valid(found: dict[str, Any]) -> None:
    for name, kind in REQUIRED.items():
        assert type(found[name]) is kind, name
    for name, value in found.items():
        assert type(value) is (REQUIRED | OPTIONAL)[name], name
    for path, names in REQUIRED_OF.items():
        if at(found, path):
            assert set(names) <= set(at(found, path)), path
    for path, names in AT_LEAST_ONE.items():
        if at(found, path) or path in ("actor", "actor.user", "src_endpoint", "metadata.product"):
            assert set(names) & set(at(found, path)), path
    assert (found["category_uid"], found["class_uid"]) == (6, 6003)
    assert found["type_uid"] == 6003 * 100 + found["activity_id"]
    assert found["activity_id"] in ACTIVITIES
    assert found["activity_name"] == (ACTIVITIES[found["activity_id"]] or found["activity_name"])
    assert SEVERITIES[found["severity_id"]] == found["severity"]
    assert STATUSES[found["status_id"]] == found["status"]
    assert found["metadata"]["version"] == "1.9.0"
    # timestamp_t: milliseconds since 1970.
    assert found["time"] > 1_700_000_000_000
    for resource in found.get("resources", []):
        assert set(resource) & {"name", "uid"}
    json.dumps(found, allow_nan=False)


def record(kind: str = "held", request: str | None = "r-1", **more: Any) -> Record:
    body = {
        "v": 1,
        "request": request,
        "sequence": 1,
        "kind": kind,
        "at": "2026-11-29T10:15:00.123456+00:00",
        "by": {"pk": "7", "label": "erin"},
        "data": {"action": "customers.destroy"},
    } | more
    text = links.canonical(body)
    return Record(17, links.digest("", text), "", text)


KINDS = [
    "held", "escalated", "vote", "approved", "rejected", "cancelled", "expired", "revoked", "consumed", "outcome",
    "settled", "allowed", "denied", "observed", "unavailable", "erased", "policy_changed", "delegated", "something new",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [None, {"pk": "7", "label": "erin"}, {"pk": "", "label": "shell"}])
def test_events_of_each_kind_are_valid(kind: str, by: Any) -> None:
    for request in (None, "r-1"):
        made = ocsf.event(record(kind, request, by=by), at=AT)
        ensure_valid(made)
        assert made["metadata"]["event_code"] == kind


def test_an_outcome_says_whether_the_call_succeeded() -> None:
    def outcome(text: str) -> dict[str, Any]:
        return ocsf.event(record("outcome", data={"outcome": text, "status": 204}), at=AT)

    found = {text: outcome(text) for text in ("succeeded", "failed", "unknown")}
    for each in found.values():
        ensure_valid(each)
    assert [each["status_id"] for each in found.values()] == [1, 2, 0]
    assert found["succeeded"]["api"]["response"] == {"code": 204}
    assert found["unknown"]["severity_id"] == 3


def test_who_what_and_from_where_are_where_the_schema_has_them() -> None:
    data = {"action": "customers.destroy", "object": "Customer 42"}
    by = {"pk": "7", "label": "erin", "ip": "192.0.2.7"}
    made = ocsf.event(record(data=data, by=by), at=AT)
    ensure_valid(made)
    assert made["actor"]["user"] == {"name": "erin", "uid": "7"}
    assert made["api"]["operation"] == "customers.destroy"
    assert made["api"]["request"] == {"uid": "r-1"}
    assert made["src_endpoint"] == {"ip": "192.0.2.7"}
    assert {"name": "Customer 42", "type": "object"} in made["resources"]
    assert made["metadata"]["correlation_uid"] == "r-1"
    assert (made["time"], made["metadata"]["sequence"]) == (1795947300123, 17)


def test_from_where_somebody_acted_is_where_the_schema_has_it_and_can_be_verified() -> None:
    origin = origins.written("192.0.2.7", "curl/8")
    by = {"pk": "7", "label": "erin", "origin": origins.commitment(origin)}
    made = ocsf.event(replace(record(by=by), origin=origin), at=AT)
    ensure_valid(made)
    assert made["src_endpoint"] == {"ip": "192.0.2.7"}
    assert made["unmapped"]["origin"] == origin
    for other in ("", "{", "[]", '{"ip": 7}'):
        ensure_valid(ocsf.event(replace(record(by=by), origin=other), at=AT))


def test_the_event_itself_and_its_proof_are_in_it() -> None:
    found = record()
    made = ocsf.event(Proven(found, 20, (b"\1" * 32,)), at=AT)
    ensure_valid(made)
    assert made["raw_data"] == found.body
    assert made["metadata"]["uid"] == found.hash
    assert links.digest(made["unmapped"]["previous"], made["raw_data"]) == made["unmapped"]["hash"]
    assert (made["unmapped"]["size"], made["unmapped"]["proof"]) == (20, ["01" * 32])
    early = ocsf.event(found, at=AT, is_sealed=False)
    assert (early["metadata"]["uid"], early["unmapped"]["sealed"]) == (found.hash, False)
    assert "sequence" not in early["metadata"]


@pytest.mark.parametrize(
    "body", [None, "", "{", "[]", '{"data": 7, "by": "x", "kind": 3}', "[" * 5000]
)
def test_contents_that_are_erased_or_unreadable_are_valid_still(body: str | None) -> None:
    ensure_valid(ocsf.event(Record(3, "0" * 64, "", body), at=AT))


def test_statements_are_valid() -> None:
    made = ocsf.statement("a note", number=3, at=AT)
    ensure_valid(made)
    assert made["unmapped"]["note"] == "a note"
