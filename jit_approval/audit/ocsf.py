"""An event as OCSF has it: API Activity, class 6003, schema 1.9.0 (https://schema.ocsf.io/1.9.0/classes/api_activity).

The event itself, to the letter, is `raw_data`, its hashes and its proof are in `unmapped`: what a SIEM keeps can be
verified like the trail. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jit_approval
from jit_approval.audit import origins
from jit_approval.audit.proofs import Proven
from jit_approval.audit.records import Record

VERSION = "1.9.0"
CATEGORY, CLASS = 6, 6003
PRODUCT = {
    "name": "jit_approval",
    "vendor_name": "django-jit-approval",
    "version": jit_approval.__version__,
}

_CREATE, _UPDATE, _OTHER = 1, 3, 99
# What the event does to the approval request; all else is `Other`, by its own name.
_ACTIVITIES = {
    "held": _CREATE,
    **dict.fromkeys(
        [
            "escalated",
            "vote",
            "approved",
            "rejected",
            "cancelled",
            "expired",
            "revoked",
            "consumed",
            "outcome",
            "settled",
        ],
        _UPDATE,
    ),
}
_NAMES = {_CREATE: "Create", _UPDATE: "Update"}
_INFORMATIONAL, _LOW, _MEDIUM = 1, 2, 3
_SEVERITIES = {
    "rejected": _LOW,
    "denied": _LOW,
    "revoked": _LOW,
    "escalated": _LOW,
    "unavailable": _MEDIUM,
    "erased": _MEDIUM,
}
_SEVERITY_NAMES = {_INFORMATIONAL: "Informational", _LOW: "Low", _MEDIUM: "Medium"}
_UNKNOWN, _SUCCESS, _FAILURE = 0, 1, 2
_STATUS_NAMES = {_UNKNOWN: "Unknown", _SUCCESS: "Success", _FAILURE: "Failure"}
_SYSTEM = {"name": "jit_approval", "type_id": 3, "type": "System"}


def event(found: Proven | Record, *, at: datetime, is_sealed: bool = True) -> dict[str, Any]:
    """Return an event. `at` is when it happened, for where its content was erased."""
    record, body = (found.record if isinstance(found, Proven) else found), dict[str, Any]()
    if record.body is not None:
        body = _read(record.body)
    data = _mapping(body.get("data"))
    kind = str(body.get("kind") or ("erased" if record.body is None else "unreadable"))
    made = {
        **_classified(kind, data),
        "time": int(at.astimezone(UTC).timestamp() * 1000),
        "message": _message(kind, data, body),
        "actor": {"user": _user(_mapping(body.get("by")))},
        "api": _api(kind, data, body),
        "src_endpoint": _source(record, _mapping(body.get("by")), data),
        "metadata": _metadata(kind, record, body, is_sealed=is_sealed),
        "unmapped": _unmapped(found, is_sealed=is_sealed),
    }
    if record.body is not None:
        made["raw_data"] = record.body
    if resources := _resources(data, body):
        made["resources"] = resources
    return made


def statement(note: str, *, number: int, at: datetime) -> dict[str, Any]:
    """Return a signed statement of the sealer, so that what a SIEM keeps can be verified."""
    return {
        **_classified("checkpoint", {}),
        "time": int(at.astimezone(UTC).timestamp() * 1000),
        "message": "checkpoint: the trail up to here is signed",
        "actor": {"user": dict(_SYSTEM)},
        "api": {"operation": "audit.checkpoint", "service": {"name": PRODUCT["name"]}},
        "src_endpoint": {"svc_name": PRODUCT["name"]},
        "metadata": {
            "version": VERSION,
            "product": dict(PRODUCT),
            "uid": f"checkpoint-{number}",
            "event_code": "checkpoint",
        },
        "unmapped": {"note": note},
    }


def as_line(made: Mapping[str, Any]) -> bytes:
    """Return it as a line, its newline included."""
    return f"{json.dumps(made, ensure_ascii=False, separators=(',', ':'))}\n".encode()


def _classified(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    activity = _ACTIVITIES.get(kind, _OTHER)
    severity = _SEVERITIES.get(kind, _INFORMATIONAL)
    if kind == "outcome" and data.get("outcome") == "unknown":
        severity = _MEDIUM
    status = _status(kind, data)
    return {
        "category_uid": CATEGORY,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": _NAMES.get(activity, kind),
        "type_uid": CLASS * 100 + activity,
        "type_name": f"API Activity: {_NAMES.get(activity, 'Other')}",
        "severity_id": severity,
        "severity": _SEVERITY_NAMES[severity],
        "status_id": status,
        "status": _STATUS_NAMES[status],
    }


def _read(text: str) -> dict[str, Any]:
    """Return a content; nothing where somebody made it unreadable, which must not keep the rest from leaving."""
    try:
        return dict(_mapping(json.loads(text)))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _status(kind: str, data: Mapping[str, Any]) -> int:
    """Return whether what was tried came about: a call that was denied, or that failed, did not."""
    if kind == "outcome":
        return {"succeeded": _SUCCESS, "failed": _FAILURE}.get(str(data.get("outcome")), _UNKNOWN)
    return _FAILURE if kind in ("denied", "unavailable") else _SUCCESS


def _message(kind: str, data: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    by = _mapping(body.get("by"))
    parts = [kind, str(data.get("action", "")), f"by {by.get('label') or 'the system'}"]
    return " ".join(part for part in parts if part)


def _user(by: Mapping[str, Any]) -> dict[str, Any]:
    label, pk = str(by.get("label", "")), str(by.get("pk", ""))
    found: dict[str, Any] = {"name": label} if label else {}
    return (found | ({"uid": pk} if pk else {})) or dict(_SYSTEM)


def _api(kind: str, data: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        # What was called, where the event says so; else what happened to the request.
        "operation": str(data.get("action") or f"approval.{kind}"),
        "service": {"name": PRODUCT["name"]},
    }
    if body.get("request"):
        found["request"] = {"uid": str(body["request"])}
    if isinstance(data.get("status"), int):
        found["response"] = {"code": data["status"]}
    return found


def _source(record: Record, by: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    # Events of the first version have it in their bodies.
    ip = origins.read(record.origin).get("ip") or by.get("ip") or data.get("ip")
    return {"ip": ip} if isinstance(ip, str) and ip else {"svc_name": PRODUCT["name"]}


def _resources(data: Mapping[str, Any], body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if body.get("request"):
        found.append({"uid": str(body["request"]), "type": "approval request"})
    for name in ("object", "policy"):
        if isinstance(data.get(name), str) and data[name]:
            found.append({"name": data[name], "type": name})
    return found


def _metadata(
    kind: str, record: Record, body: Mapping[str, Any], *, is_sealed: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": VERSION,
        "product": dict(PRODUCT),
        # The same each time it is sent, sealed or not: by it, repetitions are told.
        "uid": record.hash,
        "event_code": kind,
    }
    if is_sealed:
        found["sequence"] = record.index
    if body.get("request"):
        found["correlation_uid"] = str(body["request"])
    if body.get("at"):
        found["original_time"] = str(body["at"])
    return found


def _unmapped(found: Proven | Record, *, is_sealed: bool) -> dict[str, Any]:
    record = found.record if isinstance(found, Proven) else found
    unmapped: dict[str, Any] = {"hash": record.hash, "sealed": is_sealed}
    if record.body is not None:
        unmapped["previous"] = record.previous
        if record.origin is not None:
            unmapped["origin"] = record.origin
    if is_sealed:
        unmapped["index"] = record.index
    if isinstance(found, Proven):
        unmapped |= {"size": found.size, "proof": [step.hex() for step in found.steps]}
    return unmapped
