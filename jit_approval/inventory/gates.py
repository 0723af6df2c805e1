"""Whether a gate stands on a view, and before which of its methods: asked of the view as DRF would make it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rest_framework.views import APIView

from jit_approval import gated
from jit_approval.permissions import RequiresApproval
from jit_approval.routes import Route, names_gate

EVERY_METHOD = "*"


class Gate(StrEnum):
    """Which gate stands on a view."""

    ALWAYS = "always"  # RequiresApproval
    BY_POLICY = "by_policy"  # RequiresApprovalByPolicy
    NONE = "none"
    CANNOT_TELL = "cannot_tell"


class Status(StrEnum):
    """What that comes to for one method."""

    GATED = "gated"
    UNGATED = "ungated"
    # Nothing but a request would show; counted with the ungated ones where it matters.
    CANNOT_TELL = "cannot_tell"
    # The package's own views: where approvals are given, no gate can stand.
    EXEMPT = "exempt"
    # A safe method that is not held: known by its action, not part of the inventory.
    READS = "reads"


class Why(StrEnum):
    """Why a method is ungated, in words for programs."""

    NO_GATE = "no_gate"
    LEFT_OUT = "left_out"  # by `approval_methods`
    NO_POLICY = "no_policy"  # by-policy gate, no policy in force names the action
    NOT_DRF = "not_drf"


@dataclass(frozen=True)
class Guarded:
    """One method of a view. `why` is one of `Why`, or a sentence where the status is CANNOT_TELL."""

    method: str
    action: str
    gate: Gate
    status: Status
    why: str = ""


def guarded(route: Route) -> list[Guarded]:
    """Return every method of this route that runs something, reading ones included."""
    try:
        view = _made(route)
        methods = _methods(view)
        gate, why = _gate_of(route, view)
    except Exception as error:  # the view's own code
        why = f"the view cannot be made: {_said(error)}"
        return [Guarded(EVERY_METHOD, "", Gate.CANNOT_TELL, Status.CANNOT_TELL, why)]
    return [
        *(_method(route, view, method, gate, why) for method in methods),
        *_catch_all(view, gate, why),
    ]


def _made(route: Route) -> APIView:
    """Return the view with its handlers bound, as `as_view()` does for each request."""
    view = route.view(**route.initkwargs)
    if route.actions is not None:
        view.action_map = dict(route.actions)  # type: ignore[attr-defined]
        for method, action in route.actions.items():
            handler = getattr(view, action, None)
            if handler is not None:
                setattr(view, method, handler)
    return view


def _methods(view: APIView) -> list[str]:
    """Return the methods that the view has a handler for; those without effect left out."""
    names = dict.fromkeys(name.upper() for name in view.http_method_names)
    return [
        name
        for name in names
        if name not in ("HEAD", "OPTIONS", "TRACE") and gated.is_implemented(view, name)
    ]


def _method(route: Route, view: APIView, method: str, gate: Gate, why: str) -> Guarded:
    held, action, error = _asked(route, view, method)
    if method in gated.SAFE_METHODS and (gate == Gate.NONE or not held):
        return Guarded(method, action, gate, Status.READS)
    if gate == Gate.NONE:
        return Guarded(method, action, gate, Status.UNGATED, Why.NO_GATE)
    if gate != Gate.CANNOT_TELL and not held:
        return Guarded(method, action, gate, Status.UNGATED, Why.LEFT_OUT)
    if error or gate == Gate.CANNOT_TELL:
        return Guarded(method, action, gate, Status.CANNOT_TELL, why or error)
    return Guarded(method, action, gate, Status.GATED)


def _asked(route: Route, view: APIView, method: str) -> tuple[bool, str, str]:
    """Return whether the method is held, its action label, and why one of them cannot be told."""
    held, action, error = method not in gated.SAFE_METHODS, "", ""
    try:
        # A property that asks for the request would look like an attribute that is not there.
        _ensure_plain(route, "approval_methods")
        held = gated.is_gated(view, method)
    except Exception as raised:  # malformed, or known per request only
        error = f"approval_methods cannot be told: {_said(raised)}"
    try:
        _ensure_plain(route, "approval_action")
        action = gated.action_label(view, method)
    except Exception as raised:
        error = error or f"its action cannot be told: {_said(raised)}"
    return held, action, error


def _ensure_plain(route: Route, name: str) -> None:
    own = inspect.getattr_static(route.view, name, None)
    if name not in route.initkwargs and hasattr(type(own), "__get__"):
        raise TypeError("computed per request")


def _catch_all(view: APIView, gate: Gate, why: str) -> Iterator[Guarded]:
    """Yield a line for a view that does something of its own where DRF answers 405."""
    if not gated.is_catch_all(view) or gate == Gate.ALWAYS:
        return  # the gate lets nothing run there
    if gate == Gate.NONE:
        yield Guarded(EVERY_METHOD, "", gate, Status.UNGATED, Why.NO_GATE)
    else:
        why = why or "http_method_not_allowed() is overridden, and answers any method"
        yield Guarded(EVERY_METHOD, "", gate, Status.CANNOT_TELL, why)


# --- which gate ------------------------------------------------------------------------------------------


def _gate_of(route: Route, view: APIView) -> tuple[Gate, str]:
    """Return the gate, and where that cannot be told, why."""
    for name in ("get_permissions", "check_permissions"):
        if _is_own(route.view, name):
            hint = ", which names the gate" if names_gate(getattr(route.view, name)) else ""
            return Gate.CANNOT_TELL, f"{name}() is overridden{hint}"
    if _is_computed(route) or not isinstance(view.permission_classes, list | tuple):
        return Gate.CANNOT_TELL, "permission_classes is computed per request"
    return _listed(route, tuple(view.permission_classes))


def _is_computed(route: Route) -> bool:
    own = inspect.getattr_static(route.view, "permission_classes", None)
    return "permission_classes" not in route.initkwargs and not isinstance(own, list | tuple)


def _listed(route: Route, classes: tuple[Any, ...]) -> tuple[Gate, str]:
    if gated.has_composed_gate(classes):
        return Gate.CANNOT_TELL, "the gate is an operand of &, | or ~, where it may not be asked"
    gates = [one for one in classes if gated.is_gate(one)]
    if not gates:
        asking = [one for one in classes if names_gate(getattr(one, "has_permission", None))]
        if asking:
            return Gate.CANNOT_TELL, f"{asking[0].__name__} may ask the gate, or not"
        return Gate.NONE, ""
    if any(gate.has_permission is not RequiresApproval.has_permission for gate in gates):
        return Gate.CANNOT_TELL, "a subclass of the gate overrides has_permission()"
    if _is_own(route.view, "dispatch"):
        return Gate.CANNOT_TELL, "dispatch() is overridden, and may not heed the gate"
    if _is_own(route.view, "initial") and not _goes_on(route.view.initial):
        return Gate.CANNOT_TELL, "initial() is overridden without super(), which asks the gate"
    by_policy = all(gate.by_policy_only for gate in gates)
    return (Gate.BY_POLICY if by_policy else Gate.ALWAYS), ""


def _is_own(view: type[APIView], name: str) -> bool:
    """Tell whether the method is not APIView's; decorators around that do not count."""
    return inspect.unwrap(getattr(view, name)) is not getattr(APIView, name)


def _goes_on(initial: Any) -> bool:
    """Tell whether the code mentions what it replaced. A hint: a call may stand behind a condition."""
    mentioned = getattr(getattr(inspect.unwrap(initial), "__code__", None), "co_names", ())
    return "super" in mentioned and "initial" in mentioned


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
