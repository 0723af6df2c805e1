"""The list of events: found by who, what and when, page by page, and downloaded as it is filtered.

Nothing is counted and no page is skipped over, so that ten million events are read as fast as ten. See
`streaming.selecting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jit_approval import policies
from jit_approval.admin import integrity, timeline
from jit_approval.models import AuditEvent
from jit_approval.streaming import selecting
from jit_approval.streaming.selecting import Mark, Wanted

PAGE = 100

_WHEN = ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")


class _Moment(forms.DateTimeField):
    """A time that a database can be asked about, which it is in UTC."""

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        try:
            return found.astimezone(UTC) if found is not None else None
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


def _time(label: Any) -> forms.DateTimeField:
    widget = forms.DateTimeInput(format=_WHEN[0], attrs={"type": "datetime-local"})
    return _Moment(required=False, label=label, input_formats=_WHEN, widget=widget)


class Filter(forms.Form):
    """What the list is narrowed to."""

    q = forms.CharField(
        required=False,
        max_length=254,
        label=gettext_lazy("Account, request or place"),
        help_text=gettext_lazy("The name of an account, the id of a request, or #17."),
    )
    kind = forms.CharField(
        required=False,
        max_length=32,
        label=gettext_lazy("Event"),
        widget=forms.TextInput(attrs={"list": "jit-kinds", "autocomplete": "off"}),
    )
    since = _time(gettext_lazy("Since"))
    until = _time(gettext_lazy("Before"))
    text = forms.CharField(
        required=False,
        max_length=200,
        label=gettext_lazy("Contains"),
        help_text=gettext_lazy("Looks through so many events at a time, and says how far it came."),
    )

    def wanted(self) -> Wanted:
        """Return it as a question to the database."""
        given = self.cleaned_data
        return Wanted(
            kind=timeline.kind_named(given["kind"].strip()),
            since=given["since"],
            until=given["until"],
            **_named(given["q"].strip()),
        )

    def as_query(self) -> str:
        """Return what was given as part of an address."""
        return urlencode(
            {name: value for name, value in self.data.items() if value and name in self.fields}
        )


@dataclass(frozen=True)
class Page:
    """One page, newest first, and the marks from which its neighbours begin; "" where there is none."""

    events: list[AuditEvent]
    older: str = ""
    newer: str = ""
    # Of a search for text: the oldest event that was looked at, where there are more.
    searched_to: datetime | None = None


def view(context: dict[str, Any], request: HttpRequest, url: Any) -> HttpResponse:
    """Show one page. `context` is that of the admin site; `url` makes the address of a request's page."""
    form = Filter(request.GET)
    found = Page([])
    if form.is_valid():
        found = page(
            form.wanted(),
            form.cleaned_data["text"].strip(),
            before=_mark(request.GET.get("before", "")),
            after=_mark(request.GET.get("after", "")),
        )
    context |= {
        "title": _("Audit events"),
        "form": form,
        "query": form.as_query(),
        "page": found,
        "lines": [_line(event, url) for event in found.events],
        "kinds": timeline.all_kinds(),
        "integrity": integrity.badge(),
        "targets": integrity.targets(),
        "is_filtered": bool(form.as_query()),
    }
    template = "admin/jit_approval/events.html"
    return TemplateResponse(request, template, context, status=200 if form.is_valid() else 400)


def download(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Hand out the events as they are filtered, one to a line, as they are read."""
    form, form_of = Filter(request.GET), request.GET.get("format", "jsonl")
    if not form.is_valid() or form_of not in selecting.FORMATS or form.cleaned_data["text"]:
        return HttpResponse(
            _("This cannot be exported."), status=400, content_type="text/plain; charset=utf-8"
        )
    name = {"jsonl": "events.jsonl", "ocsf": "events-ocsf.jsonl"}[form_of]
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    lines = selecting.lines(form.wanted(), form_of)
    return StreamingHttpResponse(lines, content_type="application/jsonl", headers=headers)


def page(wanted: Wanted, text: str, *, before: Mark | None, after: Mark | None) -> Page:
    """Return the page before a mark, or after one, or the newest."""
    alias = policies.database()
    rows = wanted.rows(alias).select_related("approval_request", "seal")
    if text:
        found, searched_to = selecting.containing(rows, text, before, PAGE)
        oldest = found[-1] if len(found) == PAGE else searched_to
        at = searched_to.at if searched_to is not None and len(found) < PAGE else None
        return Page(found, _text(Mark.of(oldest)) if oldest else "", "", at)
    if after is not None:
        found = selecting.newer(rows, after, PAGE + 1)
        newer = _text(Mark.of(found[PAGE - 1])) if len(found) > PAGE else ""
        found = found[:PAGE][::-1]
        older = _text(Mark.of(found[-1])) if found else ""
        return Page(found, older, newer)
    found = selecting.older(rows, before, PAGE + 1)
    more, found = len(found) > PAGE, found[:PAGE]
    newer = _text(Mark.of(found[0])) if before is not None and found else ""
    return Page(found, _text(Mark.of(found[-1])) if more else "", newer)


def _line(event: AuditEvent, url: Any) -> dict[str, Any]:
    seal = getattr(event, "seal", None)
    return {
        "event": event,
        "what": timeline.all_kinds().get(event.kind, event.kind),
        "by": event.actor_label or _("the system"),
        "place": seal.index if seal is not None else None,
        "about": timeline.about(event),
        "url": url(event.approval_request_id) if event.approval_request_id else "",
    }


def _named(text: str) -> dict[str, Any]:
    """Return what a name in the search box is: of a request, of a place, or of an account."""
    if not text:
        return {}
    number = text.removeprefix("#")
    if text.startswith("#") and number.isascii() and number.isdecimal() and len(number) < 19:
        return {"place": int(number)}
    try:
        return {"request": UUID(text)}
    except ValueError:
        return {"by": text}


def _text(mark: Mark) -> str:
    return f"{mark.at.isoformat()}_{mark.pk}"


def _mark(text: str) -> Mark | None:
    """Read a mark; one that was made up is none."""
    at, _underscore, pk = text.rpartition("_")
    try:
        moment = parse_datetime(at)
    except ValueError:
        return None
    if (
        moment is None
        or moment.tzinfo is None
        or not (pk.isascii() and pk.isdecimal() and len(pk) < 19)
    ):
        return None
    return Mark(moment, int(pk))
