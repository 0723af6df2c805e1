"""The gate before plain Django views: `@requires_approval`, on functions and on classes.

The view is called from inside a DRF view that is made for it, so that everything holds that holds for DRF: what is
bound, what is refused, who decides, that it runs once. Exceptions of the view itself, its answers and its CSRF
protection stay Django's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.utils.decorators import classonlymethod
from django.views import View
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import BaseParser, FormParser, JSONParser, MultiPartParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval import body, gated
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from jit_approval.renderers import ProblemPage

_METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")
_GATED = "_jit_approval_gated"
_DJANGOS = ("django.views.", "django.contrib.auth.mixins")


@dataclass(frozen=True)
class Options:
    """What the decorator was told; see `requires_approval`."""

    action: str = ""
    methods: tuple[str, ...] | None = None
    by_policy: bool = False
    get_object: Callable[..., Any] | None = None
    context: Callable[..., Mapping[str, Any]] | None = None
    version: Callable[[Any], Any] | None = None
    scope: Callable[[HttpRequest], Any] | None = None


ViewT = TypeVar("ViewT", bound=Callable[..., Any])


@overload
def requires_approval(view: ViewT, /) -> ViewT: ...
@overload
def requires_approval(
    *,
    action: str = ...,
    methods: Iterable[str] | None = ...,
    by_policy: bool = ...,
    get_object: Callable[..., Any] | None = ...,
    context: Callable[..., Mapping[str, Any]] | None = ...,
    version: Callable[[Any], Any] | None = ...,
    scope: Callable[[HttpRequest], Any] | None = ...,
) -> Callable[[Any], Any]: ...
def requires_approval(view: Any = None, /, **told: Any) -> Any:
    """Hold a Django view's unsafe methods until somebody else approves exactly this call, then run it once.

    On a function it belongs nearest to it, under `login_required` and the like, which then have their say first.
    On a class it stands before the handlers, after `dispatch` of Django's mixins.

    Args:
        view: the function or class; left out where there are options.
        told: `action`, the label of what is called (default: the name without `View`, and the method);
            `methods` that are held instead of all unsafe ones, on a function all where GET is among them;
            `by_policy=True` holds only what a policy names;
            `get_object(request, **kwargs)` loads the object of a function's call (a class is asked for its own);
            `context(request, obj)`, `version(obj)`, `scope(request)` as the methods of DRF views.

    Raises:
        ImproperlyConfigured: the view is async, or a DRF view, which lists `RequiresApproval` instead.
    """
    if told.get("methods") is not None:
        told["methods"] = tuple(told["methods"])
    options = Options(**told)
    if view is None:
        return functools.partial(_decorated, options)
    return _decorated(options, view)


def _decorated(options: Options, view: Any) -> Any:
    cls = getattr(view, "cls", view)
    if isinstance(cls, type) and issubclass(cls, APIView):
        raise ImproperlyConfigured(f"{view.__name__} is a DRF view: list RequiresApproval there.")
    if isinstance(view, type):
        return _on_class(options, view)
    if not callable(view):
        raise ImproperlyConfigured(f"{view!r} is no view.")
    return _on_function(options, view)


# --- functions and classes ---------------------------------------------------------------------------------


def _on_function(options: Options, view: Callable[..., Any]) -> Callable[..., Any]:
    _ensure_sync(view, view)
    told = options.methods or ()
    if any(str(name).upper() in ("GET", "HEAD") for name in told):
        # It does something where others only read; of the other methods it may do the same. What is no
        # method stays among them, for the check to name.
        options = replace(options, methods=(*told, *sorted(gated.KNOWN_METHODS)))
    gate = _gate_for(getattr(view, "__name__", type(view).__name__), view, options)

    @functools.wraps(view)
    def ask(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in gated.SAFE_METHODS - gated.KNOWN_METHODS:
            # These are never held, and a function would do for them what it does for all.
            return _without_the_function(request)
        return gate(options=options, target=view).ask(request, *args, **kwargs)

    ask.cls, ask.initkwargs = gate, {}  # type: ignore[attr-defined]
    return ask


def _without_the_function(request: HttpRequest) -> HttpResponse:
    """Answer OPTIONS as Django's class-based views do, TRACE as they do without a handler. RFC 9110 §9.3.7."""
    if request.method != "OPTIONS":
        return HttpResponseNotAllowed(sorted(gated.KNOWN_METHODS))
    allowed = ", ".join(sorted({*gated.KNOWN_METHODS, "OPTIONS"}))
    return HttpResponse(headers={"Allow": allowed, "Content-Length": "0"})


def _on_class(options: Options, view: type) -> type:
    """Return the class itself: what is made of it, or of what descends from it, asks the gate."""
    if not issubclass(view, View):
        raise ImproperlyConfigured(f"{view.__name__} is no view.")
    if view.view_is_async:
        raise ImproperlyConfigured(f"{view.__name__}: gated views must not be async.")
    gate = _gate_for(view.__name__, view, options)
    set_up, make = view.setup, view.as_view.__func__  # type: ignore[attr-defined]

    @functools.wraps(set_up)
    def setup(self: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        set_up(self, request, *args, **kwargs)
        _stand_before(self, request, gate, options)

    def as_view(cls: Any, /, **initkwargs: Any) -> Any:
        callback = make(cls, **initkwargs)
        # For the middleware, the checks and the inventory, as for a DRF view.
        callback.cls, callback.initkwargs = gate, {}
        return callback

    view.setup = setup  # type: ignore[method-assign]
    view.as_view = classonlymethod(as_view)  # type: ignore[assignment]
    return view


def _stand_before(view: Any, request: HttpRequest, gate: type[PlainView], options: Options) -> None:
    """Put the gate before the handler that will run; before `dispatch` where that is the project's own."""
    name = (request.method or "").lower()
    own_dispatch = type(view).http_method_not_allowed is not View.http_method_not_allowed or any(
        "dispatch" in vars(base) and not base.__module__.startswith(_DJANGOS)
        for base in type(view).__mro__
    )
    name = "dispatch" if own_dispatch or name not in view.http_method_names else name
    handler = getattr(view, name, None)
    # Of two gates, on a class and on one that it descends from, the nearer one stands.
    handler = getattr(handler, _GATED, handler)
    if handler is None:
        return  # Django answers 405
    _ensure_sync(handler, view)
    options = _with_those_of(view, options)

    @functools.wraps(handler)
    def ask(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return gate(options=options, target=handler).ask(request, *args, **kwargs)

    setattr(ask, _GATED, handler)
    setattr(view, name, ask)


def _with_those_of(view: Any, options: Options) -> Options:
    """Fill in what a class says by methods, named as on DRF views."""
    keys = {getattr(view, "pk_url_kwarg", None), getattr(view, "slug_url_kwarg", None)}
    loads = hasattr(view, "get_object") and bool(keys & set(view.kwargs))
    return replace(
        options,
        get_object=options.get_object
        or ((lambda request, *args, **kwargs: view.get_object()) if loads else None),
        context=options.context or getattr(view, "get_approval_context", None),
        version=options.version or getattr(view, "get_approval_object_version", None),
        scope=options.scope or getattr(view, "get_approval_scope", None),
    )


def _ensure_sync(handler: Any, view: Any) -> None:
    if inspect.iscoroutinefunction(inspect.unwrap(handler)):
        name = getattr(view, "__name__", type(view).__name__)
        raise ImproperlyConfigured(f"{name}: gated views must not be async.")


def _gate_for(name: str, view: Any, options: Options) -> type[PlainView]:
    attributes: dict[str, Any] = {
        "__doc__": getattr(view, "__doc__", None),
        "__module__": getattr(view, "__module__", __name__),
        "__qualname__": getattr(view, "__qualname__", name),
        "permission_classes": (
            RequiresApprovalByPolicy if options.by_policy else RequiresApproval,
        ),
    }
    if options.action:
        attributes["approval_action"] = options.action
    if options.methods is not None:
        attributes["approval_methods"] = options.methods
    return type(name, (PlainView,), attributes)


# --- the DRF view around a call ------------------------------------------------------------------------------


class DjangoUser(BaseAuthentication):
    """Who Django says is calling: session, remote user, or whatever middleware the project has."""

    def authenticate(self, request: Request) -> tuple[Any, None]:
        """Return `request.user`, anonymous or not."""
        return getattr(request._request, "user", None), None


class AnyBody(BaseParser):
    """A body that is no form and no JSON: bound byte for byte, shown as text."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """Return it as text, for display and conditions only."""
        return str(stream.read().decode("utf-8", "backslashreplace"))


class PlainView(APIView):
    """The gate before one plain view; made anew for each request, with the view as `target`."""

    authentication_classes = (DjangoUser,)
    parser_classes = (FormParser, MultiPartParser, JSONParser, AnyBody)
    renderer_classes = (JSONRenderer,)
    throttle_classes = ()
    versioning_class = None
    schema = None

    target: Any

    def __init__(self, options: Options = Options(), target: Any = None, **kwargs: Any) -> None:
        """Keep what is gated; without a target it can only be looked at, as the inventory does."""
        super().__init__(**kwargs)
        self.told = options
        self.target = target
        self._raised: BaseException | None = None
        if options.get_object is not None:
            self.get_object = self._object
        for ours, theirs in _HOOKS.items():
            function = getattr(options, ours)
            if function is not None:
                setattr(self, theirs, self._plainly(function))

    def ask(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer the call: by the view, or by the gate."""
        if self.told.get_object is not None:
            self.lookup_field = next(iter(kwargs), "")
            if not self.lookup_field:
                raise ImproperlyConfigured("get_object needs named arguments in the URL.")
        self.setup(request, *args, **kwargs)
        response: HttpResponseBase = self.dispatch(request, *args, **kwargs)
        return response

    def _run(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.target(request._request, *args, **kwargs)
        except BaseException as error:
            self._raised = error
            raise

    def _object(self) -> Any:
        load: Any = self.told.get_object
        return load(self.request._request, *self.args, **self.kwargs)

    @staticmethod
    def _plainly(function: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function of the project Django's request instead of DRF's."""

        def call(*args: Any) -> Any:
            return function(*(getattr(each, "_request", each) for each in args))

        return call

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Make the DRF request. The CSRF token of a form is not part of what is approved."""
        made = super().initialize_request(request, *args, **kwargs)
        vars(made)[body.CSRF_APART] = True
        return made

    def perform_authentication(self, request: Request) -> None:
        """Ask for the user only where the gate needs one."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Choose what a refusal looks like: a page for browsers, JSON else."""
        wants = str(request.META.get("HTTP_ACCEPT", ""))
        page = "text/html" in wants and "json" not in wants.partition("text/html")[0]
        renderer: BaseRenderer = ProblemPage() if page else JSONRenderer()
        return renderer, renderer.media_type

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Add nothing to the view's own answers."""
        return {}

    def handle_exception(self, exc: Exception) -> Response:
        """Answer what the gate raised; what the view raised is Django's to answer."""
        if exc is self._raised:
            raise exc
        return super().handle_exception(exc)


for _name in _METHODS:
    # On the class, where the checks and the inventory look; a plain view takes any of them.
    setattr(PlainView, _name, PlainView._run)

_HOOKS = {
    "context": "get_approval_context",
    "version": "get_approval_object_version",
    "scope": "get_approval_scope",
}
