"""Who stands behind an account. Separation of duties compares persons, not accounts."""

from __future__ import annotations

from typing import Any

from jit_approval import conf


def person_of(user: Any) -> str:
    """Return who stands behind an account: the value at `PERSON_KEY`, else the account itself."""
    value: Any = user
    for name in conf.get().PERSON_KEY.split("__"):
        value = getattr(value, name, None)
    return str(value) if value not in (None, "") else f"account {user.pk}"


def is_behind(user: Any, requester_id: Any, persons: Any) -> bool:
    """Tell whether the user is the requester, or another account of a person behind the call."""
    return user.pk == requester_id or person_of(user) in persons
