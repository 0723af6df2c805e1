"""What a policy's condition is asked about: one call as plain values, named as the conditions name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from django.utils import timezone
from rest_framework.request import Request

from jit_approval import addresses, agents, conf, policies

_NESTED = re.compile(r"[^\[.]+[\[.]").match


def of_call(
    request: Request, *, action: str, method: str, data: Any, context: Mapping[str, Any]
) -> Callable[[], Mapping[str, Any]]:
    """Return what gives the facts of a live call, put together at the first condition that asks.

    `data` is the parsed body that is bound; a name given more than once, in a form or a query, is a list.
    """

    @cache
    def facts() -> Mapping[str, Any]:
        http = request._request
        return {
            "action": action,
            "agent": agents.of(request).name,
            "request": {
                # As in action labels: HEAD runs what GET runs, and a condition on the one means both.
                "method": "GET" if method == "HEAD" else method,
                "path": http.path,
                "query": _query(http.GET),
                "data": _with_nested(data),
                "ip": addresses.client_address(http.META),
                "headers": _headers(http.META),
                "agent": str(http.META.get("HTTP_USER_AGENT", "")),
            },
            "user": of_user(request.user),
            "object": dict(context),
            "now": timezone.now(),
        }

    return facts


def of_user(user: Any) -> dict[str, Any]:
    """Return what conditions may know of a user. One query, for the groups."""
    groups = user.groups.using(policies.database())
    return {
        "id": str(user.pk),
        "username": user.get_username(),
        "groups": sorted(groups.values_list("name", flat=True)),
        "is_staff": bool(getattr(user, "is_staff", False)),
        "is_superuser": bool(user.is_superuser),
    }


def _query(parameters: Any) -> dict[str, Any]:
    lists = parameters.lists()
    return {name: values[0] if len(values) == 1 else values for name, values in lists}


def _headers(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the allow-listed headers that were sent, by lower-case name."""
    found = {}
    for name in conf.get().CONDITION_HEADERS:
        value = meta.get("HTTP_" + name.upper().replace("-", "_"))
        if value is not None:
            found[name.lower()] = str(value)
    return found


class _InTheForm:
    """A nested value that a form spreads over names like `items[0]price`: there, and of no kind to compare."""


def _with_nested(data: Any) -> Any:
    """Return the data, where a form gives nested values with their names in it.

    DRF reads `items[0]price` and `profile.name` as `items` and `profile`: a condition must not take them for absent.
    """
    if not isinstance(data, Mapping):
        return data
    names = [str(name) for name in data]
    nested = {re.split(r"[\[.]", name, maxsplit=1)[0] for name in names if _NESTED(name)}
    return {**{name: _InTheForm() for name in sorted(nested) if name}, **data} if nested else data
