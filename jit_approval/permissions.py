"""The permission classes a project puts on its views.

DRF imports default permission classes early, so nothing of ours is imported before the first call.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from rest_framework.permissions import BasePermission, OperandHolder, SingleOperandHolder

if TYPE_CHECKING:
    from typing import Self

    from rest_framework.request import Request
    from rest_framework.views import APIView


_COMPOSERS = (OperandHolder.__call__.__code__, SingleOperandHolder.__call__.__code__)


@cache
def _gate() -> Any:
    # Cached: an import statement is a quarter of what a call that is not gated costs.
    from jit_approval import gate

    return gate


class RequiresApproval(BasePermission):
    """Hold the view's unsafe methods until somebody else approves exactly this call, then run it once.

    List it in `permission_classes` by itself, not inside `&`, `|` or `~`. The view may say more:
    `approval_methods`, `approval_action`, `get_approval_context(request, obj)`,
    `get_approval_object_version(obj)`, `get_approval_scope(request)`.
    """

    by_policy_only = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse to be an operand: where A says yes, `A | RequiresApproval` never asks the gate."""
        if sys._getframe(1).f_code in _COMPOSERS:
            raise ImproperlyConfigured(f"List {cls.__name__} by itself, not inside &, | or ~.")
        return super().__new__(cls)

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return True if the call may run now.

        Raises:
            jit_approval.problems.ApprovalRequired: it is held.
            rest_framework.exceptions.APIException: it is refused, in one of many named ways.
        """
        allowed: bool = _gate().check(request, view, by_policy_only=self.by_policy_only)
        return allowed

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Return True: the decision was about the object already."""
        return True


class RequiresApprovalByPolicy(RequiresApproval):
    """The same, for calls that an enabled policy names; every other call passes.

    Meant for DEFAULT_PERMISSION_CLASSES: a new policy row gates an endpoint, and no code changes.
    """

    by_policy_only = True
