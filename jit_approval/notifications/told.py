"""Whom the messages about an open request have reached, by name."""

from __future__ import annotations

from django.contrib.auth import get_user_model

from jit_approval import policies
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications.recipients import ASKS, CHANNEL
from jit_approval.redaction import visible

MAX_NAMES = 20


def names(row: ApprovalRequest) -> list[str]:
    """Return who was asked: user names, and channels as `#slug`; no addresses. Two queries, at most `MAX_NAMES`."""
    alias = policies.database()
    sent = Notification.objects.using(alias).filter(
        approval_request=row.pk, event__in=ASKS, state=Notification.State.SENT
    )
    found = list(
        sent.exclude(recipient="").order_by("pk").values_list("recipient", "channel")[:200]
    )
    channels = dict.fromkeys(f"#{channel}" for recipient, channel in found if recipient == CHANNEL)
    users = get_user_model()
    keys = {recipient for recipient, _ in found if recipient != CHANNEL and _is_key(recipient)}
    people = users._base_manager.using(alias).filter(pk__in=keys).order_by("pk") if keys else ()
    named = [visible(str(user.get_username()))[:254] for user in people]
    return [*channels, *named][:MAX_NAMES]


def _is_key(text: str) -> bool:
    """Tell a user's key from a bare address."""
    try:
        get_user_model()._meta.pk.to_python(text)
    except Exception:
        return False
    return "@" not in text
