"""Rows and calls for tests, as small as the rules allow."""

from __future__ import annotations

import hashlib
import itertools
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from jit_approval import services
from jit_approval.calls import Bound, Call, Shown, Terms
from jit_approval.models import ApprovalPolicy, ApprovalRequest

_numbers = itertools.count(1)
STATE = hashlib.sha256(b"state").hexdigest()


def user(name: str = "", **extra: Any) -> Any:
    """A user who may do nothing in particular."""
    name = name or f"user{next(_numbers)}"
    return get_user_model().objects.create_user(name, f"{name}@example.test", "pw", **extra)


def decide_permission() -> Permission:
    """The model-wide permission to decide."""
    return Permission.objects.get(codename="decide", content_type__app_label="jit_approval")


def decider(name: str = "", **extra: Any) -> Any:
    """A user who holds the model-wide permission to decide."""
    made = user(name, **extra)
    made.user_permissions.add(decide_permission())
    return made


def policy(**fields: Any) -> ApprovalPolicy:
    """An enabled policy for every action, unless told otherwise."""
    number = next(_numbers)
    fields = {"name": f"Policy {number}", "slug": f"policy-{number}", "actions": "*"} | fields
    return ApprovalPolicy.objects.create(**fields)


def terms(**fields: Any) -> Terms:
    """Default terms of one approval."""
    return Terms(
        **{
            "policy_id": None,
            "policy_slug": "",
            "policy_version": 0,
            "required_approvals": 1,
            "decide_within": timedelta(minutes=15),
            "usable_within": timedelta(minutes=5),
            "rejection_cooldown": timedelta(minutes=5),
        }
        | fields
    )


def call(requester: Any, *, state: str = STATE, **fields: Any) -> Call:
    """A call nobody has made before, unless `body` says which."""
    body = str(fields.pop("body", next(_numbers)))
    shown = {"method": "DELETE", "path": "/api/customers/42/", "object_pk": body, "reason": "why"}
    fingerprint = hashlib.sha256(f"{requester.pk}{body}".encode()).hexdigest()
    return Call(
        action=fields.pop("action", "customers.destroy"),
        requester=requester,
        persons=fields.pop("persons", (str(requester.pk),)),
        credential="",
        bound=Bound(fingerprint, {}, state, {}),
        shown=Shown(**(shown | fields)),
    )


def held(requester: Any = None, **kwargs: Any) -> ApprovalRequest:
    """A pending request. A decider must exist, or nothing opens."""
    terms_fields = kwargs.pop("terms", {})
    return services.open_request(call(requester or user(), **kwargs), terms(**terms_fields))


def fresh(approval_request: ApprovalRequest) -> ApprovalRequest:
    """The row as it stands now, with the database's time."""
    return ApprovalRequest.objects.with_now().get(pk=approval_request.pk)
