"""The page "Explain a call": what would come of it, and why. It changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from jit_approval import body, explaining, policies
from jit_approval.admin import deadline
from jit_approval.exceptions import UnbindableCall
from jit_approval.explaining import as_text
from jit_approval.inventory import actions
from jit_approval.states import Effect

if TYPE_CHECKING:
    from jit_approval.admin.policy import ApprovalPolicyAdmin

_METHODS = ("GET", "HEAD", "POST")
_CALLED_BY = ("POST", "PUT", "PATCH", "DELETE", "GET")
_FAR = {"disabled", "archived", "other_action"}
_SAYS_IT_ALL = {"matches", "condition_false", "observes", "disabled", "archived"}
_MAX_FAR = 200
_MAX_JSON = 100_000


class ExplainForm(forms.Form):
    """The call in question. `known` are the actions of the URLconf."""

    action = forms.CharField(
        label=_("Action"),
        max_length=200,
        widget=forms.TextInput(attrs={"list": "jit-actions", "placeholder": "transfers.create"}),
    )
    user = forms.CharField(
        label=_("User"), max_length=254, help_text=_("Who makes the call, by user name.")
    )
    method = forms.ChoiceField(
        label=_("Method"),
        required=False,
        choices=[("", _("as its route takes it")), *((name, name) for name in _CALLED_BY)],
    )
    payload = forms.CharField(
        label=_("Payload"),
        required=False,
        max_length=_MAX_JSON,
        help_text=_("JSON. Conditions read it as request.data."),
        widget=forms.Textarea(attrs={"rows": 6, "placeholder": '{"amount": 50000}'}),
    )
    context = forms.CharField(
        label=_("Object"),
        required=False,
        max_length=_MAX_JSON,
        help_text=_("JSON: what the view tells of the object. Conditions read it as object."),
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": '{"tier": "gold"}'}),
    )
    object_pk = forms.CharField(
        label=_("Key of the object"),
        required=False,
        max_length=200,
        help_text=_("Needed where holders of a permission on the object may decide."),
    )
    path = forms.CharField(label=_("Path"), required=False, max_length=2000)
    query = forms.CharField(label=_("Query"), required=False, max_length=2000)
    ip = forms.CharField(label=_("Address"), required=False, max_length=64)
    agent = forms.CharField(label=_("User agent"), required=False, max_length=300)
    acts_for = forms.CharField(label=_("Agent (Approval-Agent)"), required=False, max_length=200)
    headers = forms.CharField(
        label=_("Headers"),
        required=False,
        max_length=5000,
        help_text=_("One per line, as Name: value."),
        widget=forms.Textarea(attrs={"rows": 2}),
    )

    def __init__(self, *args: Any, known: dict[str, actions.Known], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known = known
        for name, field in self.fields.items():
            field.widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}
            if name in ("action", "user"):
                field.widget.attrs["autocapitalize"] = "none"

    def clean_user(self) -> Any:
        """Return the user of this name."""
        users, name = get_user_model(), self.cleaned_data["user"]
        rows = users._base_manager.using(policies.database())
        found = rows.filter(**{users.USERNAME_FIELD: name}).first()
        if found is None:
            raise ValidationError(_t("There is no user of this name."), code="unknown")
        return found

    def clean_payload(self) -> Any:
        """Return the payload as it would be parsed."""
        return _payload(self.cleaned_data["payload"])

    def clean_context(self) -> dict[str, Any]:
        """Return what the view would tell of the object."""
        found = _json(self.cleaned_data["context"])
        if not isinstance(found, dict):
            raise ValidationError(_t('This is a JSON object, as in {"tier": "gold"}.'))
        return found

    def clean_headers(self) -> dict[str, str]:
        """Return the headers by name."""
        found = {}
        for line in self.cleaned_data["headers"].splitlines():
            name, colon, value = line.partition(":")
            if line.strip() and not (colon and name.strip()):
                raise ValidationError(_t("Write one per line, as Name: value."))
            if line.strip():
                found[name.strip()] = value.strip()
        return found

    def asked(self) -> explaining.Asked:
        """Return the call, for a form that is valid."""
        given = dict(self.cleaned_data)
        known = self.known.get(given["action"])
        given["method"] = given["method"] or (known.methods[0] if known else "POST")
        given["path"] = given["path"] or "/"
        return explaining.Asked(
            data=given.pop("payload"),
            by_policy=known is not None and known.is_by_policy,
            is_open=known is not None and known.is_open,
            **given,
        )


def _payload(text: str) -> Any:
    try:
        return _json(text, body.of_json)
    except UnbindableCall as error:
        message = _t("The call would be refused, whoever makes it: %(error)s") % {"error": error}
        raise ValidationError(message, code="refused") from None


def _json(text: str, parse: Callable[[str], Any] = json.loads) -> Any:
    try:
        return parse(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        where = {"what": error.msg, "line": error.lineno, "column": error.colno}
        message = _t("This is not JSON: %(what)s, line %(line)d, column %(column)d.") % where
        raise ValidationError(message, code="json") from None
    except (ValueError, RecursionError):
        text = _t("This JSON is too deep, or has numbers that are too long or none.")
        raise ValidationError(text) from None


# --- the page ----------------------------------------------------------------------------------------------


def urls(page: ApprovalPolicyAdmin) -> list[URLPattern]:
    """Return the address of the page, to stand before those of single policies."""

    def view(request: HttpRequest) -> HttpResponse:
        return _view(page, request)

    name = "jit_approval_approvalpolicy_explain"
    return [path("explain/", page.admin_site.admin_view(view), name=name)]


def _view(page: ApprovalPolicyAdmin, request: HttpRequest) -> HttpResponse:
    """Show the form; a POST, so that no payload ends up in a log of addresses, is answered below it."""
    if not page.has_view_or_change_permission(request):
        raise PermissionDenied
    if request.method not in _METHODS:
        return HttpResponseNotAllowed(_METHODS)
    known = actions.known()
    if request.method == "POST":
        form = ExplainForm(request.POST, known=known)
        found = explaining.explain(form.asked()) if form.is_valid() else None
    else:
        names = ("action", "user", "method")
        form = ExplainForm(initial={name: request.GET.get(name, "") for name in names}, known=known)
        found = None
    context = {
        **page.admin_site.each_context(request),
        "title": _t("Explain a call"),
        "opts": page.opts,
        "media": page.media + forms.Media(css={"all": ("jit_approval/explain.css",)}),
        "form": form,
        "main": [form[name] for name in ("action", "user", "method", "payload", "context")],
        "more": [
            form[name]
            for name in ("object_pk", "path", "query", "ip", "agent", "acts_for", "headers")
        ],
        "labels": known,
        **(_answer(found, known) if found else {}),
    }
    request.current_app = page.admin_site.name
    status = 400 if form.errors else 200
    return TemplateResponse(request, "admin/jit_approval/explain.html", context, status=status)


def _answer(found: explaining.Explanation, known: dict[str, actions.Known]) -> dict[str, Any]:
    considered = found.match.considered
    near = [one for one in considered if one.verdict not in _FAR]
    far = [one for one in considered if one.verdict in _FAR]
    action, terms = found.asked.action, found.terms
    is_known = action in known
    return {
        "found": found,
        "outcome": _outcomes()[found.outcome],
        "near": [_considered(one) for one in near],
        "far": [_considered(one) for one in far[:_MAX_FAR]],
        "far_count": len(far),
        "is_known": is_known,
        "similar": [] if is_known else actions.similar(action, known),
        "approvals": as_text.approvals(terms) if terms else "",
        "on_silence": as_text.on_silence(terms) if terms else [],
        "demands": as_text.demands(terms) if terms else [],
        "decide_within": deadline.as_words(terms.decide_within) if terms else "",
        "usable_within": deadline.as_words(terms.usable_within) if terms else "",
        "others": found.deciders_count - len(found.deciders),
    }


def _considered(one: policies.Considered) -> dict[str, Any]:
    word = _verdicts()[one.verdict]
    return {"one": one, "word": word, "why": "" if one.verdict in _SAYS_IT_ALL else one.why}


def _outcomes() -> dict[str, str]:
    return {
        Effect.REQUIRE: _t("Held until it is approved"),
        Effect.ALLOW: _t("Runs at once: a policy allows it"),
        Effect.DENY: _t("Denied, whoever asks"),
        explaining.RUNS: _t("Runs: no policy applies to it"),
        explaining.UNGATED: _t("Runs: no gate stands before it, whatever policies say"),
        explaining.UNAVAILABLE: _t("Refused: it needs approval, and too few could give it"),
        explaining.REFUSED: _t("Refused before any policy is asked"),
    }


def _verdicts() -> dict[str, str]:
    return {
        "matches": _t("applies"),
        "observes": _t("observes"),
        "later": _t("comes after"),
        "condition_false": _t("condition is false"),
        "condition_failed": _t("condition failed"),
        "other_action": _t("other action"),
        "left_out": _t("left out"),
        "disabled": _t("disabled"),
        "archived": _t("archived"),
    }
