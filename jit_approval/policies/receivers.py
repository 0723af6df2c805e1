"""Every change of a policy becomes a version, wherever it is made. Not seen: `update()`, `bulk_create()` and SQL."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from jit_approval.models import (
    ApprovalPolicy,
    Channel,
    EscalationStep,
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
        (EscalationStep, _requirement_changed),
    ):
        for signal in (post_save, post_delete):
            signal.connect(receiver, model, dispatch_uid=f"jit_approval.version.{model.__name__}")
    for field in ("users", "groups", "channels"):
        m2m_changed.connect(
            _step_changed,
            getattr(EscalationStep, field).through,
            dispatch_uid=f"jit_approval.version.step.{field}",
        )
    through = ApprovalPolicy.channels.through
    m2m_changed.connect(_channels_changed, through, dispatch_uid="jit_approval.version.channels")
    pre_delete.connect(_channel_deleted, Channel, dispatch_uid="jit_approval.version.channels")


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


def _requirement_changed(instance: Any, raw: bool = False, **_: Any) -> None:
    if not raw:
        versions.touched(instance.policy_id)


def _step_changed(action: str, instance: Any, reverse: bool, **_: Any) -> None:
    # From the other side, nothing here changes it.
    if not reverse and action.startswith("post_"):
        versions.touched(instance.policy_id)


def _channels_changed(
    action: str, instance: Any, reverse: bool, pk_set: Any = None, **_: Any
) -> None:
    if not reverse and action.startswith("post_"):
        versions.touched(instance.pk)
    elif reverse and action == "pre_clear":
        # By the time they are gone, nobody knows which they were.
        instance.cleared = list(instance.policies.values_list("pk", flat=True))
    elif reverse and action.startswith("post_"):
        for pk in pk_set or instance.__dict__.pop("cleared", ()):
            versions.touched(pk)


def _channel_deleted(instance: Channel, **_: Any) -> None:
    # What Django deletes along with it, it says nothing of.
    instance.policies.clear()
    for step in instance.steps.all():
        step.channels.remove(instance)
