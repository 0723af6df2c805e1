"""The package's JSON as JSON Schema: problems, approval requests, results. tests/test_openapi.py compares them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.settings import spectacular_settings

from jit_approval.states import Outcome, Status, Verdict

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Return a reference to one of the schemas below."""
    return {"$ref": f"#/components/schemas/{name}"}


def _text(form: str = "", *, null: bool = False, **more: Any) -> Schema:
    """Return the schema of a string, in the words of the version of OpenAPI that is written."""
    schema: Schema = {"type": "string", **({"format": form} if form else {}), **more}
    return _or_null(schema) if null else schema


def _or_null(schema: Schema) -> Schema:
    if str(spectacular_settings.OAS_VERSION).startswith("3.0"):
        return {**schema, "nullable": True}
    return {**schema, "type": [schema["type"], "null"]}


def _object(required: tuple[str, ...], properties: Schema, **more: Any) -> Schema:
    named = {"required": list(required)} if required else {}
    return {"type": "object", **named, "properties": properties, **more}


def _whole(**properties: Schema) -> Schema:
    """Return the schema of an object that has all of these."""
    return _object(tuple(properties), properties)


_NUMBER = {"type": "integer"}
_FLAG = {"type": "boolean"}
_TEXTS = {"type": "array", "items": {"type": "string"}}


def problem() -> Schema:
    """Return the schema of a refusal: RFC 9457 with the gate's own members."""
    return _object(
        ("type", "title", "status", "code", "detail"),
        {
            "type": _text("uri"),
            "title": _text(),
            "status": _NUMBER,
            "code": _text(description="What happened, for programs: approval_pending, …"),
            "detail": _text(),
            "next": _text(
                description="wait, repeat_call, server_runs, fetch_result, ask_again or none."
            ),
            "instructions": _text(description="What to do next, in plain words."),
            "executed": _FLAG,
            "retryable": _FLAG,
            "approval_id": _text("uuid"),
            "status_url": _text("uri-reference", null=True),
            "result_url": _text("uri-reference", null=True),
            "action": _text(),
            "policy": _text(null=True),
            "expires_at": _text("date-time"),
            "expires_in": _NUMBER,
            "interval": _NUMBER,
            "match_code": _text(),
            "comment": _text(),
            "outcome": _text(null=True),
            "differs": _TEXTS,
        },
        description="Nothing ran, or not again. RFC 9457.",
    )


def _summary() -> Schema:
    return {
        "id": _text("uuid"),
        "status": _text(enum=list(Status.values)),
        "outcome": _text(null=True, description=", ".join(Outcome.values)),
        "action": _text(),
        "policy": _text(null=True),
        "requester": _text(),
        "reason": _text(),
        "agent": _text(null=True),
        "agent_proven": _FLAG,
        "method": _text(),
        "path": _text(),
        "object": _or_null(
            _object(("model", "pk", "label"), dict.fromkeys(("model", "pk", "label"), _text()))
        ),
        "match_code": _text(),
        "created_at": _text("date-time"),
        "decide_by": _text("date-time"),
        "usable_until": _text("date-time", null=True),
        "expires_at": _text("date-time", null=True),
        "approvals_required": _NUMBER,
        "approvals_given": _NUMBER,
        "decisions": {"type": "array", "items": ref("ApprovalDecision")},
        "execution": _text(),
        "next": _text(),
        "result_url": _text("uri-reference", null=True),
    }


def _request() -> Schema:
    summary = _summary()
    full = {
        "payload": _text(),
        "payload_truncated": _FLAG,
        "context": {"type": "object", "additionalProperties": True},
        "receipt_url": _text("uri-reference", null=True),
        "told": _TEXTS,
    }
    return _object(tuple(summary), summary | full)


def _request_page() -> Schema:
    return _object(
        ("next", "previous", "results"),
        {
            "next": _text("uri", null=True),
            "previous": _text("uri", null=True),
            "results": {"type": "array", "items": ref("ApprovalRequest")},
        },
    )


def _decision() -> Schema:
    return _whole(
        by=_text(),
        on_behalf_of=_TEXTS,
        verdict=_text(enum=list(Verdict.values)),
        comment=_text(),
        at=_text("date-time"),
    )


def _result() -> Schema:
    return _whole(
        id=_text("uuid"),
        outcome=_text(),
        status=_NUMBER,
        headers={"type": "object", "additionalProperties": {"type": "string"}},
        body=_text("byte"),
        truncated=_FLAG,
        deleted_at=_text("date-time"),
    )


def _callback() -> Schema:
    always = {
        "id": _text("uuid"),
        "url": _text("uri"),
        "enabled": _FLAG,
        "disabled_because": _text(),
        "created_at": _text("date-time"),
    }
    # Shown once, when it is made.
    return _object(tuple(always), always | {"secret": _text()})


def all_of_them() -> dict[str, Schema]:
    """Return every schema by its name."""
    return {
        "ApprovalProblem": problem(),
        "ApprovalDecision": _decision(),
        "ApprovalRequest": _request(),
        "ApprovalRequestPage": _request_page(),
        "ApprovalResult": _result(),
        "ApprovalComment": _object((), {"comment": _text()}),
        "ApprovalCallback": _callback(),
    }
