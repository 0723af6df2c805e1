"""The inbox's filters. Their choices come from what the user may see, never from the whole table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from jit_approval.clock import DatabaseNow
from jit_approval.models import ApprovalRequest
from jit_approval.states import OPEN, Status

Requests = QuerySet[ApprovalRequest]
_MAX_CHOICES = 100


class StatusFilter(admin.SimpleListFilter):
    """The status in force by the database's clock; open requests unless told or searched otherwise."""

    title = _("status")
    parameter_name = "status"
    ALL = "all"

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        """Remember whether the user is searching: a search covers closed requests too."""
        self.searching = bool(request.GET.get("q", "").strip())
        super().__init__(request, *args)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Every status, after the two that are sets of them."""
        return [("open", _("open")), (self.ALL, _("all")), *Status.choices]

    def value(self) -> str:
        """Return the choice in force, which is never none."""
        return super().value() or (self.ALL if self.searching else "open")

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Leave out the framework's own "All": the default here is another one."""
        entries = super().choices(changelist)
        next(iter(entries))
        yield from entries

    def queryset(self, request: HttpRequest, queryset: Requests) -> Requests:
        """Compare deadlines, not only what the sweeper has written."""
        value, in_time = self.value(), Q(due_at__gt=DatabaseNow())
        if value == "open":
            return queryset.filter(in_time, status__in=OPEN)
        if value in OPEN:
            return queryset.filter(in_time, status=value)
        if value == Status.EXPIRED:
            late = Q(status__in=OPEN, due_at__lte=DatabaseNow())
            return queryset.filter(Q(status=value) | late)
        return queryset if value == self.ALL else queryset.filter(status=value)


class _OneOf(admin.SimpleListFilter):
    """The different values of a column."""

    parameter_name: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the values in use, by name."""
        values = model_admin.get_queryset(request).order_by(self.parameter_name)
        found = values.values_list(self.parameter_name, flat=True).distinct()
        return [(value or "-", value or _("no policy")) for value in found[:_MAX_CHOICES]]

    def queryset(self, request: HttpRequest, queryset: Requests) -> Requests | None:
        """Narrow to the one chosen."""
        value = self.value()
        if value is None:
            return None
        return queryset.filter(**{self.parameter_name: "" if value == "-" else value})


class ActionFilter(_OneOf):
    """Which action."""

    title = _("action")
    parameter_name = "action"


class PolicyFilter(_OneOf):
    """Under which policy it was opened."""

    title = _("policy")
    parameter_name = "policy_slug"
