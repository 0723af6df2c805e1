"""Somebody enters or leaves a group that decides while a request is open: its page and its trail say so.

Who may decide is read live, so this changes nothing; it shows a quorum that was made to fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Q
from django.db.models.signals import m2m_changed

from jit_approval import policies, services
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import ApprovalRequest, PolicyGroupPermission, PolicyGroupRequirement
from jit_approval.states import OPEN

logger = logging.getLogger(__name__)

KIND = "deciders_changed"
_VERBS = {"post_add": "joined", "post_remove": "left", "pre_clear": "left"}
# So many open requests of one group are told of; beyond, the change of the group itself must not wait.
_LIMIT = 200


def connect() -> None:
    """Listen to who enters and leaves groups. Called once, when the app is ready."""
    through = get_user_model().groups.through
    m2m_changed.connect(_changed, sender=through, dispatch_uid="jit_approval.membership")


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


def _write(verb: str, groups: Iterable[int], users: Iterable[Any]) -> None:
    names = sorted(
        str(user.get_username()) for user in get_user_model()._base_manager.filter(pk__in=users)
    )
    for group in Group.objects.using(policies.database()).filter(pk__in=groups):
        for row in _open_requests_of(group):
            try:
                data = {"group": group.name, "verb": verb, "users": names}
                services.note(row, KIND, by=None, data=data)
            except IllegalTransition:
                continue  # it was decided meanwhile
            except Exception:
                logger.exception("A change of group %s is missing on %s.", group, row.pk)


def _open_requests_of(group: Group) -> list[ApprovalRequest]:
    """Return the open requests this group may decide, or has to be represented in."""
    alias = policies.database()
    decide = {"permission__codename": "decide", "group": group}
    by_policy = PolicyGroupPermission.objects.using(alias).filter(**decide)
    required = PolicyGroupRequirement.objects.using(alias).filter(group=group)
    rows = ApprovalRequest.objects.using(alias).filter(status__in=OPEN)
    model_wide = group.permissions.using(alias).filter(
        codename="decide", content_type__app_label="jit_approval"
    )
    if not model_wide.exists():
        rows = rows.filter(
            Q(policy__in=list(by_policy.values_list("content_object", flat=True)))
            | Q(policy__in=list(required.values_list("policy", flat=True)))
        )
    return list(rows.only("pk").order_by("created_at")[:_LIMIT])
