"""Where the rows are, and who stands behind an account."""

from __future__ import annotations

from typing import Any

from django.db import router

from jit_approval import conf
from jit_approval.models import ApprovalRequest


def database() -> str:
    """Return the alias every read and write of this app uses: the writer, never a replica."""
    return router.db_for_write(ApprovalRequest)


def person_of(user: Any) -> str:
    """Return who stands behind an account: the value at `PERSON_KEY`, else the account itself.

    Separation of duties compares these, not accounts.
    """
    value: Any = user
    for name in conf.get().PERSON_KEY.split("__"):
        value = getattr(value, name, None)
    return str(value) if value not in (None, "") else f"account {user.pk}"


def is_behind(user: Any, requester_id: Any, persons: Any) -> bool:
    """Tell whether the user is the requester, or another account of a person behind the call."""
    return user.pk == requester_id or person_of(user) in persons
