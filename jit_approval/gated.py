"""What is gated: which views and methods, under which action label, live or only asked about."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# OPTIONS and TRACE have no effects to approve, and DRF asks about other methods inside OPTIONS.
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


def ensure_drf(request: Any, view: Any) -> None:
    """Refuse anything but a DRF view with a DRF request.

    Raises:
        ImproperlyConfigured: with what to change.
    """
    if not isinstance(view, APIView) or not isinstance(request, Request):
        raise ImproperlyConfigured("RequiresApproval works on Django REST framework views only.")


def ensure_by_itself(view: APIView) -> None:
    """Refuse a view that lists the gate as an operand.

    Raises:
        ImproperlyConfigured: with what to change.
    """
    if has_composed_gate(tuple(view.permission_classes)):
        raise _composed(view)


def ensure_not_composed(permission: Any, view: APIView) -> None:
    """Refuse a permission instance that has the gate as an operand, wherever it came from."""
    operands = _operands(permission, ("op1", "op2"))
    if any(isinstance(operand, RequiresApproval) for operand in operands):
        raise _composed(view)


def _composed(view: APIView) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"{type(view).__name__}: list RequiresApproval by itself, not inside &, | or ~."
    )


@lru_cache(maxsize=1024)
def has_composed_gate(permission_classes: tuple[Any, ...]) -> bool:
    """Tell whether a gate is an operand of `&`, `|` or `~`, where it may never be asked."""
    return any(
        is_gate(operand)
        for holder in permission_classes
        for operand in _operands(holder, ("op1_class", "op2_class"))
    )


def has_gate(permission_classes: Iterable[Any]) -> bool:
    """Tell whether a gate stands among the permission classes, by itself."""
    return any(is_gate(permission) for permission in permission_classes)


def is_gate(permission: Any) -> bool:
    """Tell whether this is `RequiresApproval` or a subclass."""
    return isinstance(permission, type) and issubclass(permission, RequiresApproval)


def _operands(holder: Any, names: tuple[str, str]) -> Iterable[Any]:
    for name in names:
        operand = getattr(holder, name, None)
        if operand is not None:
            yield operand
            yield from _operands(operand, names)


def effective_method(request: Request) -> str:
    """Return the method DRF will dispatch on, upper-case."""
    return str(request.method).upper()


def is_gated(view: APIView, method: str) -> bool:
    """Tell whether calls of this method are held: all but the safe ones, or what the view says.

    Methods of the project's own (PURGE, LINK) are held either way: `approval_methods` cannot name them.
    """
    declared = getattr(view, "approval_methods", None)
    if declared is None:
        return method not in SAFE_METHODS
    names = _methods(tuple(declared) if not isinstance(declared, str) else declared)
    return method in names or method not in KNOWN_METHODS | SAFE_METHODS


@cache
def _methods(declared: tuple[str, ...] | str) -> frozenset[str]:
    unknown = unknown_methods(declared)
    if unknown:
        raise ImproperlyConfigured(f"approval_methods: {', '.join(unknown)} cannot be gated.")
    names = frozenset(name.upper() for name in declared)
    return names | {"HEAD"} if "GET" in names else names


def unknown_methods(declared: Iterable[str] | str) -> list[str]:
    """Return what in `approval_methods` is no method that can be gated; a bare string is all wrong."""
    if isinstance(declared, str):
        return [declared]
    return [str(name) for name in declared if not _can_be_gated(name)]


def _can_be_gated(name: Any) -> bool:
    return isinstance(name, str) and name.upper() in KNOWN_METHODS


def is_probe(request: Request, view: APIView) -> bool:
    """Tell whether DRF only asks "what if": schema generators, the browsable page, OPTIONS metadata."""
    state = vars(view)
    return (
        "headers" not in state  # schema generators: never dispatched
        or "response" in state  # the browsable page: answered already
        or request._request.method == "OPTIONS"
    )


def is_implemented(view: APIView, method: str) -> bool:
    """Tell whether the view has a handler for the method; if not, DRF answers 405."""
    name = method.lower()
    return name in view.http_method_names and callable(getattr(view, name, None))


def is_catch_all(view: APIView) -> bool:
    """Tell whether the view does something of its own where DRF answers 405."""
    return type(view).http_method_not_allowed is not APIView.http_method_not_allowed


def is_detail(view: APIView) -> bool:
    """Tell whether the call is about one object that the view can load."""
    name = getattr(view, "lookup_url_kwarg", None) or getattr(view, "lookup_field", None)
    return bool(name) and hasattr(view, "get_object") and name in getattr(view, "kwargs", {})


def action_label(view: APIView, method: str) -> str:
    """Return the dotted label of what is called: `customers.destroy`, `cluster.post`.

    Raises:
        ImproperlyConfigured: `approval_action` stands on a whole ViewSet, where it would name all actions
            alike.
    """
    override = _override(view, method)
    if override:
        return override
    action = action_of(view, method)
    if action:
        return f"{getattr(view, 'basename', None) or _base_name(view)}.{action}"
    # HEAD runs what GET runs: a policy that names the one means both.
    return f"{_base_name(view)}.{'get' if method == 'HEAD' else method.lower()}"


def action_of(view: APIView, method: str) -> str:
    """Return the name of the ViewSet's action that DRF runs for the method.

    Not `view.action`, which is as old as `initialize_request`: the method may have been changed since.
    """
    actions: dict[str, str] | None = getattr(view, "action_map", None)
    if actions is None:
        return str(getattr(view, "action", None) or "")
    return actions.get(method.lower()) or ""


def _override(view: APIView, method: str) -> str:
    if not hasattr(view, "action_map"):
        return str(getattr(view, "approval_action", None) or "")
    if getattr(type(view), "approval_action", None):
        raise ImproperlyConfigured(
            f"{type(view).__name__}: set approval_action on an @action, not on the ViewSet."
        )
    # `@action(approval_action=…)` arrives on the instance; a plain attribute sits on the function.
    handler = getattr(view, action_of(view, method), None)
    own = vars(view).get("approval_action") or getattr(handler, "approval_action", None)
    return str(own or "")


def _base_name(view: APIView) -> str:
    name = type(view).__name__
    for suffix in ("ViewSet", "View"):
        if name.endswith(suffix) and name != suffix:
            name = name.removesuffix(suffix)
            break
    return name.lower()
