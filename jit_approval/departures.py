"""Somebody who could decide is gone: requests that wait are looked at again at once, and escalate if nobody is left.

Of this nothing depends but how soon people hear of it: the sweep looks for such requests too.
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from jit_approval import escalating, policies, queue
from jit_approval.models import (
    Delegation,
    PolicyGroupPermission,
    PolicyUserPermission,
)

logger = logging.getLogger(__name__)

TAKE_STEPS = "jit_approval.tasks.take_steps"
_LOSSES = {"post_remove", "post_clear"}


def connect() -> None:
    """Listen to what takes authority away. Called once, when the app is ready."""
    users, uid = get_user_model(), "jit_approval.departures"
    post_save.connect(_user_saved, users, dispatch_uid=uid)
    post_save.connect(_delegated, Delegation, dispatch_uid=uid)
    for model in (users, Group, PolicyUserPermission, PolicyGroupPermission):
        post_delete.connect(_gone, model, dispatch_uid=f"{uid}.{model.__name__}")
    through = (users.groups.through, users.user_permissions.through, Group.permissions.through)
    for each in through:
        m2m_changed.connect(_lost, each, dispatch_uid=f"{uid}.{each.__name__}")


def _user_saved(
    instance: Any, created: bool, raw: bool = False, update_fields: Any = None, **_: Any
) -> None:
    # A login saves a user too. Who is a superuser no more is left to the sweep.
    is_news = not raw and not created and (update_fields is None or "is_active" in update_fields)
    if is_news and not instance.is_active:
        _look_again()


def _delegated(raw: bool = False, **_: Any) -> None:
    # Two who stand in for one another fill one place together.
    if not raw:
        _look_again()


def _gone(**_: Any) -> None:
    _look_again()


def _lost(action: str, **_: Any) -> None:
    if action in _LOSSES:
        _look_again()


def _look_again() -> None:
    # After the change is committed, and never in its way.
    transaction.on_commit(_mark, using=policies.database(), robust=True)


def _mark() -> None:
    try:
        if escalating.look_again():
            queue.enqueue(TAKE_STEPS, using=policies.database())
    except Exception:
        logger.exception("Requests that nobody can decide any more are found by the next sweep.")
