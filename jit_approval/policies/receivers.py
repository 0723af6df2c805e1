"""Every change of a policy becomes a version, wherever it is made. Not seen: `update()`, `bulk_create()` and SQL."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save, pre_delete

from jit_approval.models import (
    ApprovalPolicy,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)
from jit_approval.policies import versions


def connect() -> None:
    """Listen. Called once, when the app is ready."""
    post_save.connect(_policy_saved, ApprovalPolicy, dispatch_uid="jit_approval.version")
    pre_delete.connect(_policy_deleted, ApprovalPolicy, dispatch_uid="jit_approval.version")
    post_delete.connect(_policy_gone, ApprovalPolicy, dispatch_uid="jit_approval.version")
    for model, receiver in (
        (PolicyUserPermission, _permission_changed),
        (PolicyGroupPermission, _permission_changed),
        (PolicyGroupRequirement, _requirement_changed),
    ):
        for signal in (post_save, post_delete):
            signal.connect(receiver, model, dispatch_uid=f"jit_approval.version.{model.__name__}")


def _policy_saved(instance: ApprovalPolicy, raw: bool = False, **_: Any) -> None:
    if raw:
        return  # a fixture: what belongs to it is not there yet
    versions.touched(instance.pk)
    # The number the row has now, for who goes on with the instance.
    instance.refresh_from_db(using=instance._state.db, fields=["version"])


def _policy_deleted(instance: ApprovalPolicy, **_: Any) -> None:
    versions.deleted(instance)


def _policy_gone(instance: ApprovalPolicy, **_: Any) -> None:
    versions.gone(instance.pk)


def _permission_changed(instance: Any, raw: bool = False, **_: Any) -> None:
    if not raw:
        versions.touched(instance.content_object_id)


def _requirement_changed(instance: PolicyGroupRequirement, raw: bool = False, **_: Any) -> None:
    if not raw:
        versions.touched(instance.policy_id)
