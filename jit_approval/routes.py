"""Every route of the URLconf: how it reads, and for DRF views what the view will be made with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.admindocs.views import simplify_regex
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RegexPattern
from rest_framework.views import APIView

from jit_approval import gated


@dataclass(frozen=True)
class Endpoint:
    """One URL pattern and its callback, of whatever kind.

    `pattern` is what the URLconf says, `path` the same for people (`/customers/<pk>/`), and `kwargs` are the
    names that the URL gives to the view.
    """

    pattern: str
    path: str
    callback: Any
    kwargs: frozenset[str]


@dataclass(frozen=True)
class Route:
    """One URL pattern and the DRF view behind it; see `Endpoint` for the first ones."""

    pattern: str
    path: str
    callback: Any
    view: type[APIView]
    initkwargs: Mapping[str, Any]
    actions: Mapping[str, str] | None
    kwargs: frozenset[str]

    def __str__(self) -> str:
        """Return the view's dotted name, as a programmer would look for it."""
        # All that @api_view makes have this one qualified name.
        made = self.view.__qualname__ == "WrappedAPIView"
        return f"{self.view.__module__}.{self.view.__name__ if made else self.view.__qualname__}"

    def attribute(self, name: str) -> Any:
        """Return what the view instance will have: the keyword of `as_view` or `@action`, else the class's."""
        return self.initkwargs.get(name, getattr(self.view, name, None))

    @property
    def permission_classes(self) -> tuple[Any, ...]:
        """The permission classes, where they are a list that can be read without a request."""
        classes = self.attribute("permission_classes")
        return tuple(classes) if isinstance(classes, list | tuple) else ()

    @property
    def is_gated(self) -> bool:
        """Whether the gate is listed, or named by the view's own `get_permissions`."""
        return gated.has_gate(self.permission_classes) or names_gate(self.view.get_permissions)

    def gated_handlers(self) -> dict[str, str]:
        """Return the methods of this route that are held, each with the name of its handler."""
        declared = self.attribute("approval_methods")
        return {
            method: name
            for method, name in self._handlers()
            if _is_held(method, declared) and callable(getattr(self.view, name, None))
        }

    def _handlers(self) -> Iterable[tuple[str, str]]:
        names = self.attribute("http_method_names")
        if self.actions is None:
            return [(name.upper(), name) for name in names]
        return [(name.upper(), action) for name, action in self.actions.items() if name in names]


def is_list(declared: Any) -> bool:
    """Tell whether `approval_methods` is a list of some kind; a bare string is not."""
    return isinstance(declared, list | tuple | set | frozenset)


def _is_held(method: str, declared: Any) -> bool:
    if declared is None:
        return method not in gated.SAFE_METHODS
    if not is_list(declared):
        return False
    return method in {str(name).upper() for name in declared}


def names_gate(function: Any) -> bool:
    """Tell whether the function mentions a gate by name: what it does with it is only known per request."""
    code = getattr(function, "__code__", None)
    names = getattr(function, "__globals__", {})
    return any(gated.is_gate(names.get(name)) for name in getattr(code, "co_names", ()))


def all_routes() -> list[Route]:
    """Return every route to a DRF view in ROOT_URLCONF, however deeply it is included or decorated."""
    routes = (as_route(endpoint) for endpoint in all_endpoints())
    return [route for route in routes if route is not None]


def all_endpoints() -> list[Endpoint]:
    """Return every URL pattern in ROOT_URLCONF that has a callback, in the order they are tried."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    return list(_walk(get_resolver(), "", "/", frozenset()))


def _walk(
    resolver: URLResolver, prefix: str, readable: str, kwargs: frozenset[str]
) -> Iterator[Endpoint]:
    for entry in resolver.url_patterns:
        pattern, path = prefix + str(entry.pattern), readable + _readable(entry.pattern)
        given = kwargs | _kwargs_of(entry)
        if isinstance(entry, URLResolver):
            yield from _walk(entry, pattern, path, given)
        else:
            yield Endpoint(pattern, path, entry.callback, given)


def _readable(pattern: Any) -> str:
    text = str(pattern)
    if not isinstance(pattern, RegexPattern):
        return text
    return simplify_regex(text).removeprefix("/").replace("\\.", ".")


def as_route(endpoint: Endpoint) -> Route | None:
    """Return the endpoint as a route to a DRF view; None if it leads to something else."""
    inner = _drf_callback(endpoint.callback)
    if inner is None:
        return None
    return Route(
        pattern=endpoint.pattern,
        path=endpoint.path,
        callback=endpoint.callback,
        view=inner.cls,
        initkwargs=getattr(inner, "initkwargs", {}),
        actions=getattr(inner, "actions", None),
        kwargs=endpoint.kwargs,
    )


def _kwargs_of(entry: URLPattern | URLResolver) -> set[str]:
    pattern: Any = entry.pattern
    extra = entry.default_kwargs if isinstance(entry, URLResolver) else entry.default_args
    # A route() pattern has converters; a regular expression has named groups.
    groups = pattern.regex.groupindex if hasattr(pattern, "_regex") else {}
    return {*getattr(pattern, "converters", {}), *groups, *(extra or {})}


def _drf_callback(callback: Any) -> Any:
    """Return the callback that `as_view` made, under decorators and partials; None if there is none."""
    while callback is not None:
        cls = getattr(callback, "cls", None)
        if isinstance(cls, type) and issubclass(cls, APIView):
            return callback
        callback = getattr(callback, "__wrapped__", None) or getattr(callback, "func", None)
    return None
