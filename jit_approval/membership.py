"""Who may decide changes while a request is open, by a group or a permission: its page and its trail say so.

Who may decide is read live, so this changes nothing; it shows a quorum that was made to fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.signals import m2m_changed

from jit_approval import policies, services
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import (
    ApprovalRequest,
    EscalatedDecider,
    PolicyGroupPermission,
    PolicyGroupRequirement,
)
from jit_approval.states import OPEN

logger = logging.getLogger(__name__)

KIND = "deciders_changed"
_VERBS = {"post_add": "joined", "post_remove": "left", "pre_clear": "left"}
_GRANTS = {"post_add": "was given", "post_remove": "lost", "pre_clear": "lost"}
# So many open requests of one group are told of; beyond, the change of the group itself must not wait.
_LIMIT = 200


def connect() -> None:
    """Listen to who enters and leaves groups, and who may decide everything. Called once, when the app is ready."""
    user_model = get_user_model()
    uid = "jit_approval.membership"
    m2m_changed.connect(_changed, sender=user_model.groups.through, dispatch_uid=uid)
    for through in (user_model.user_permissions.through, Group.permissions.through):
        m2m_changed.connect(_granted, sender=through, dispatch_uid=uid)


def _changed(action: str, instance: Any, reverse: bool, pk_set: Any, **_: Any) -> None:
    verb = _VERBS.get(action)
    if verb is None:
        return
    if reverse:
        users = set(pk_set or instance.user_set.values_list("pk", flat=True))
        groups = {instance.pk}
    else:
        users = {instance.pk}
        groups = set(pk_set or instance.groups.values_list("pk", flat=True))
    if users and groups:
        # After the change is committed, and never in its way.
        write = partial(_write, verb, groups, users)
        transaction.on_commit(write, using=policies.database(), robust=True)


def _granted(action: str, instance: Any, reverse: bool, pk_set: Any, **_: Any) -> None:
    """Note that a user or a group got, or lost, the permission to decide everything."""
    verb = _GRANTS.get(action)
    decide = _decide_key() if verb else None
    if decide is None:
        return
    if reverse:
        given = instance.pk == decide
    else:
        held = instance.permissions if isinstance(instance, Group) else instance.user_permissions
        given = decide in (pk_set or held.values_list("pk", flat=True))
    if given:
        names = [_label(instance)] if not reverse else ["several"]
        write = partial(_note_all, _open_requests(), {"verb": verb, "group": "", "users": names})
        transaction.on_commit(write, using=policies.database(), robust=True)


def _decide_key() -> Any:
    found = Permission.objects.using(policies.database()).filter(
        codename="decide", content_type__app_label="jit_approval"
    )
    return found.values_list("pk", flat=True).first()


def _label(holder: Any) -> str:
    return f"group {holder.name}" if isinstance(holder, Group) else str(holder.get_username())


def _open_requests() -> QuerySet[ApprovalRequest]:
    return ApprovalRequest.objects.using(policies.database()).filter(status__in=OPEN)


def _note_all(rows: QuerySet[ApprovalRequest], data: dict[str, Any]) -> None:
    for row in rows.only("pk").order_by("created_at")[:_LIMIT]:
        _note(row, data)


def _note(row: ApprovalRequest, data: dict[str, Any]) -> None:
    try:
        services.note(row, KIND, by=None, data=data)
    except IllegalTransition:
        pass  # it was decided meanwhile
    except Exception:
        logger.exception("A change of deciders is missing on %s.", row.pk)


def _write(verb: str, groups: Iterable[int], users: Iterable[Any]) -> None:
    names = sorted(
        str(user.get_username()) for user in get_user_model()._base_manager.filter(pk__in=users)
    )
    for group in Group.objects.using(policies.database()).filter(pk__in=groups):
        _note_all(_open_requests_of(group), {"group": group.name, "verb": verb, "users": names})


def _open_requests_of(group: Group) -> QuerySet[ApprovalRequest]:
    """Return the open requests this group may decide, or has to be represented in."""
    alias = policies.database()
    decide = {"permission__codename": "decide", "group": group}
    by_policy = PolicyGroupPermission.objects.using(alias).filter(**decide)
    required = PolicyGroupRequirement.objects.using(alias).filter(group=group)
    escalated = EscalatedDecider.objects.using(alias).filter(
        group=group, approval_request__status__in=OPEN
    )
    rows = _open_requests()
    model_wide = group.permissions.using(alias).filter(
        codename="decide", content_type__app_label="jit_approval"
    )
    if not model_wide.exists():
        rows = rows.filter(
            Q(policy__in=list(by_policy.values_list("content_object", flat=True)))
            | Q(policy__in=list(required.values_list("policy", flat=True)))
            | Q(pk__in=list(escalated.values_list("approval_request", flat=True)))
        )
    return rows
