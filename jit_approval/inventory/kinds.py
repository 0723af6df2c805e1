"""What kind of thing a route leads to, and which models it is known to work on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.db.models import Model

from jit_approval.routes import Endpoint, Route, as_route

_PACKAGE = "jit_approval."


class Kind(StrEnum):
    """Who answers: a view of Django REST framework, the admin, the package itself, or another Django view."""

    DRF = "drf"
    ADMIN = "admin"
    OWN = "own"
    DJANGO = "django"


def kind_of(endpoint: Endpoint) -> Kind:
    """Return the kind of an endpoint. A project's subclass of the package's views is the project's."""
    route = as_route(endpoint)
    if route is not None:
        return Kind.OWN if f"{route.view.__module__}.".startswith(_PACKAGE) else Kind.DRF
    if isinstance(_owner(endpoint.callback), AdminSite | ModelAdmin):
        return Kind.ADMIN
    module = getattr(inspect.unwrap(endpoint.callback), "__module__", "")
    return Kind.OWN if f"{module}.".startswith(_PACKAGE) else Kind.DJANGO


def models_of(endpoint: Endpoint) -> frozenset[str]:
    """Return the labels of the models, as far as attributes tell: queryset, serializer, admin class.

    Tables count: a proxy is the model behind it, and a model that inherits tables is each of them.
    """
    route = as_route(endpoint)
    owner = _owner(endpoint.callback)
    found = list(_of_view(route)) if route else [getattr(owner, "model", None)]
    return frozenset(label for model in found if _is_model(model) for label in _tables(model))


def _owner(callback: Any) -> Any:
    """Return the ModelAdmin or the AdminSite that a callback belongs to, under what they wrap it in."""
    while callback is not None:
        # They leave themselves on what they make; a view of their own is a method of theirs.
        for name in ("model_admin", "admin_site", "__self__"):
            owner = getattr(callback, name, None)
            if isinstance(owner, AdminSite | ModelAdmin):
                return owner
        callback = getattr(callback, "__wrapped__", None) or getattr(callback, "func", None)
    return None


def _of_view(route: Route) -> Iterator[Any]:
    yield getattr(route.attribute("queryset"), "model", None)
    serializer = route.attribute("serializer_class")
    yield getattr(getattr(serializer, "Meta", None), "model", None)


def _is_model(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, Model)


def _tables(model: Any) -> Iterator[str]:
    meta = model._meta
    if meta.abstract:
        return
    yield meta.concrete_model._meta.label
    for parent in meta.concrete_model._meta.get_parent_list():
        yield parent._meta.concrete_model._meta.label
