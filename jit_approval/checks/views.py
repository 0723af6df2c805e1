"""Checks of gated views: the mistakes that a gate could otherwise only answer call by call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import FieldError
from django.db import connections
from django.utils.module_loading import import_string
from rest_framework import mixins
from rest_framework.generics import GenericAPIView
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from jit_approval import gated
from jit_approval.middleware import GateBeforeTransaction, carries_gate
from jit_approval.routes import Route, all_routes, is_list

_MIDDLEWARE = f"{GateBeforeTransaction.__module__}.{GateBeforeTransaction.__qualname__}"


def check() -> list[CheckMessage]:
    """Return what is wrong with the default permission classes and the routes, each finding once."""
    routes = all_routes()
    found = [*_default_permissions(), *_without_middleware(routes)]
    for route in routes:
        for rule in _RULES:
            found.extend(rule(route))
    return list({(one.id, one.msg, one.obj): one for one in found}.values())


def _error(number: str, message: str, hint: str, route: Route | None = None) -> CheckMessage:
    obj = None if route is None else str(route)
    return Error(message, hint=hint, obj=obj, id=f"jit_approval.{number}")


# --- how the gate is listed ------------------------------------------------------------------------------

_BY_ITSELF = (
    "List RequiresApproval by itself in permission_classes; entries of the list are and-ed anyway."
)


def _default_permissions() -> Iterable[CheckMessage]:
    classes: Any = api_settings.DEFAULT_PERMISSION_CLASSES
    if gated.has_composed_gate(tuple(classes)):
        message = "The gate in DEFAULT_PERMISSION_CLASSES is an operand of &, | or ~."
        yield _error("E001", message, _BY_ITSELF)


def _composed(route: Route) -> Iterable[CheckMessage]:
    inherited = route.attribute("permission_classes") is APIView.permission_classes
    if not inherited and gated.has_composed_gate(route.permission_classes):
        yield _error("E001", "The gate is an operand of &, | or ~.", _BY_ITSELF, route)


def _methods(route: Route) -> Iterable[CheckMessage]:
    declared = route.attribute("approval_methods")
    hint = f"Give a list of names out of {', '.join(sorted(gated.KNOWN_METHODS))}."
    if declared is None:
        return
    if not is_list(declared):
        yield _error("E002", f"approval_methods is {declared!r}, not a list.", hint, route)
    elif unknown := gated.unknown_methods(declared):
        message = f"approval_methods names what cannot be gated: {', '.join(unknown)}."
        yield _error("E002", message, hint, route)


def _action_of_viewset(route: Route) -> Iterable[CheckMessage]:
    named = getattr(route.view, "approval_action", None)
    if route.actions is not None and route.is_gated and named:
        yield _error(
            "E003",
            f"approval_action = {named!r} stands on a whole ViewSet: it would name all actions alike.",
            "Set it on one @action; the others are called basename.action.",
            route,
        )


def _asynchronous(route: Route) -> Iterable[CheckMessage]:
    if not route.is_gated:
        return
    for name in route.gated_handlers().values():
        if _is_async(getattr(route.view, name)):
            yield _error(
                "E004",
                f"The gated handler {name}() is async: DRF does not await it, so nothing would run.",
                "Write it as a plain function; under ASGI, DRF runs it in a thread.",
                route,
            )


def _is_async(handler: Any) -> bool:
    """Tell whether it is a coroutine function, or the handler that @api_view made around one."""
    inner = [cell.cell_contents for cell in getattr(handler, "__closure__", None) or ()]
    made = getattr(handler, "__module__", "") == "rest_framework.decorators"
    return any(map(inspect.iscoroutinefunction, [handler, *(inner if made else ())]))


# --- transactions ----------------------------------------------------------------------------------------


def _atomic_aliases(route: Route) -> set[str]:
    """Return the databases whose ATOMIC_REQUESTS Django applies to this route."""
    spared = getattr(route.callback, "_non_atomic_requests", ())
    return {
        alias
        for alias, database in connections.settings.items()
        if database["ATOMIC_REQUESTS"] and alias not in spared
    }


def _is_caught_in_transaction(route: Route) -> bool:
    return route.is_gated and bool(route.gated_handlers()) and bool(_atomic_aliases(route))


def _has_middleware() -> bool:
    """Tell whether the middleware is listed, or a subclass of it."""
    for path in settings.MIDDLEWARE:
        listed = import_string(path)
        if isinstance(listed, type) and issubclass(listed, GateBeforeTransaction):
            return True
    return False


def _without_middleware(routes: Iterable[Route]) -> Iterable[CheckMessage]:
    caught = sorted({str(route) for route in routes if _is_caught_in_transaction(route)})
    if caught and not _has_middleware():
        yield _error(
            "E005",
            "ATOMIC_REQUESTS is on, so every gated call is refused with 503. Gated here: "
            f"{', '.join(caught[:5])}{', …' if caught[5:] else ''}.",
            f"Add {_MIDDLEWARE!r} to MIDDLEWARE: the gate decides first, then opens the transaction.",
        )


def _keeps_transaction(route: Route) -> Iterable[CheckMessage]:
    if _is_caught_in_transaction(route) and not carries_gate(route.callback):
        yield _error(
            "E006",
            "ATOMIC_REQUESTS is on and the middleware cannot tell that this view is gated, so every gated "
            "call is refused with 503: the view overrides get_permissions or check_permissions, or a "
            "decorator hides it.",
            "List the gate in permission_classes (it can be narrowed by approval_methods), or mark the "
            "view @transaction.non_atomic_requests.",
            route,
        )


# --- the object ------------------------------------------------------------------------------------------

_STOCK: dict[str, Callable[..., Any]] = {
    "retrieve": mixins.RetrieveModelMixin.retrieve,
    "update": mixins.UpdateModelMixin.update,
    "partial_update": mixins.UpdateModelMixin.partial_update,
    "destroy": mixins.DestroyModelMixin.destroy,
}
_ACTIONS = {
    "GET": "retrieve",
    "PUT": "update",
    "PATCH": "partial_update",
    "DELETE": "destroy",
}


def _unloadable(route: Route) -> Iterable[CheckMessage]:
    if not (issubclass(route.view, GenericAPIView) and route.is_gated and route.gated_handlers()):
        return
    if route.view.get_object is not GenericAPIView.get_object:
        return
    problem = _lookup_problem(route, route.view)
    if problem:
        yield _error(
            "E007",
            f"The object of {route.pattern!r} cannot be loaded: {problem}.",
            "Set queryset and lookup_field or lookup_url_kwarg to fit the URL, or override get_object().",
            route,
        )


def _lookup_problem(route: Route, view: type[GenericAPIView[Any]]) -> str:
    field = route.attribute("lookup_field")
    name = route.attribute("lookup_url_kwarg") or field
    if name not in route.kwargs:
        return f"the URL gives no {name!r}" if _needs_object(route) else ""
    if view.get_queryset is not GenericAPIView.get_queryset:
        return ""
    queryset = route.attribute("queryset")
    if queryset is None:
        return "there is neither queryset nor get_queryset()"
    try:
        queryset.filter(**{f"{field}__isnull": False})  # lazy: nothing is asked
    except (FieldError, TypeError) as error:
        return f"lookup_field {field!r} does not fit the queryset ({error})"
    return ""


def _needs_object(route: Route) -> bool:
    """Tell whether a held method ends in DRF's own code that calls `get_object()`."""
    for method, handler in route.gated_handlers().items():
        if route.actions is None:
            made = getattr(getattr(route.view, handler), "__module__", "")
            handler = _ACTIONS.get(method, "") if made == "rest_framework.generics" else ""
        names = {handler, "update"} if handler == "partial_update" else {handler}
        if all(
            name in _STOCK and getattr(route.view, name, None) is _STOCK[name] for name in names
        ):
            return True
    return False


# --- what the gate cannot vouch for ------------------------------------------------------------------------


def _own_ways(route: Route) -> Iterable[CheckMessage]:
    """Warn of a view that may fetch its handler before it asks the gate, or never ask."""
    if not (route.is_gated and route.gated_handlers()):
        return
    for name in ("dispatch", "check_permissions"):
        if inspect.unwrap(getattr(route.view, name)) is not getattr(APIView, name):
            yield Warning(
                f"This gated view has a {name}() of its own: one that ignores a refusal, or never asks the "
                "gate, runs what nobody approved.",
                hint=f"Leave {name}() to APIView; do what it does in initial(), a permission or a decorator.",
                obj=str(route),
                id="jit_approval.W003",
            )


_RULES: tuple[Callable[[Route], Iterable[CheckMessage]], ...] = (
    _composed,
    _methods,
    _action_of_viewset,
    _asynchronous,
    _keeps_transaction,
    _unloadable,
    _own_ways,
)
