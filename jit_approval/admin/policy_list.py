"""The list of policies: what each says in a line, and whether anybody could decide under it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from jit_approval import conditions
from jit_approval.models import ApprovalPolicy
from jit_approval.policies import reachability, versions
from jit_approval.states import Effect


class PolicyList(ChangeList):
    """The list whose rows know whether their deciders suffice: asked once, for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page, and what is told about them."""
        super().get_results(request)
        rows = self.result_list = list(self.result_list)
        lacking = reachability.out_of_reach(row for row in rows if row.enabled)
        changed = versions.changed_past(rows)
        for row in rows:
            row.lacks_deciders = row.pk in lacking
            row.is_past_versions = row.pk in changed


class StateFilter(admin.SimpleListFilter):
    """In use, archived, or both; what is archived stays out of sight unless asked for."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return every state; the first is the default."""
        return [
            ("current", _("all but archived")),
            ("enabled", _("enabled")),
            ("disabled", _("disabled")),
            ("archived", _("archived")),
            ("all", _("all")),
        ]

    def value(self) -> str:
        """Return the choice in force, which is never none."""
        return super().value() or "current"

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Leave out the framework's own "All": the default here is another one."""
        entries = super().choices(changelist)
        next(iter(entries))
        yield from entries

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ApprovalPolicy]
    ) -> QuerySet[ApprovalPolicy]:
        """Narrow to the state chosen."""
        where: dict[str, dict[str, bool]] = {
            "current": {"archived": False},
            "enabled": {"enabled": True},
            "disabled": {"enabled": False, "archived": False},
            "archived": {"archived": True},
        }
        return queryset.filter(**where.get(self.value(), {}))


class Columns:
    """What the list shows of a policy."""

    @admin.display(description=_("priority"), ordering="priority")
    def order(self, policy: ApprovalPolicy) -> str:
        """Return the priority, with its word: on small screens there are no headings."""
        return format_html('<span class="jit-word">{} </span>{}', _t("priority"), policy.priority)

    @admin.display(description=_("actions"))
    def globs(self, policy: ApprovalPolicy) -> str:
        """Return the globs on one line."""
        return Truncator(", ".join(policy.globs)).chars(80)

    @admin.display(description=_("effect"), ordering="effect")
    def what(self, policy: ApprovalPolicy) -> str:
        """Return the effect as a coloured word."""
        word = policy.get_effect_display()
        return format_html('<span class="jit-badge jit-effect-{}">{}</span>', policy.effect, word)

    @admin.display(description=_("only if"))
    def short_condition(self, policy: ApprovalPolicy) -> str:
        """Return the beginning of the condition, and whether it can be evaluated at all."""
        if not policy.condition.strip():
            return "-"
        text = Truncator(" ".join(policy.condition.split())).chars(48)
        shown = format_html('<code title="{}">{}</code>', policy.condition, text)
        if conditions.available():
            return shown
        return format_html("{} {}", shown, warning(_t("not evaluated: no CEL library")))

    @admin.display(description=_("severity"), ordering="severity")
    def how_severe(self, policy: ApprovalPolicy) -> str:
        """Return the severity as a coloured word."""
        return severity_badge(policy)

    @admin.display(description=_("approvals"), ordering="required_approvals")
    def approvals(self, policy: ApprovalPolicy) -> str:
        """Return how many, and how many of which groups."""
        if policy.effect in (Effect.ALLOW, Effect.DENY):
            return "-"
        groups = {each.group.name: each.count for each in policy.group_requirements.all()}
        needed = max(policy.required_approvals, sum(groups.values()))
        text = ngettext("%(count)d approval", "%(count)d approvals", needed) % {"count": needed}
        if not groups:
            return format_html("<span>{}</span>", text)
        named = ", ".join(f"{name} {count}" for name, count in sorted(groups.items()))
        both = _t("%(approvals)s, of them %(groups)s") % {"approvals": text, "groups": named}
        return format_html("<span>{}</span>", both)

    @admin.display(description=_("in force"))
    def in_force(self, policy: Any) -> str:
        """Return whether it is, and what stands in its way."""
        if policy.archived:
            return _badge("still", _t("archived"))
        state = (
            _badge("approved", _t("enabled")) if policy.enabled else _badge("still", _t("disabled"))
        )
        told = [state]
        if policy.lacks_deciders:
            told.append(
                warning(_t("unless deciders hold a permission on the object: too few"))
                if policy.object_permission
                else warning(_t("too few deciders: calls are refused"))
            )
        if policy.is_past_versions:
            told.append(warning(_t("changed past its versions")))
        return format_html(" ".join("{}" for _each in told), *told)


def severity_badge(row: Any) -> str:
    """Return the severity of a policy or request as a coloured word."""
    return format_html(
        '<span class="jit-badge jit-severity-{}">{}</span>',
        row.severity,
        row.get_severity_display(),
    )


def warning(text: str) -> str:
    """Return a warning as people notice it, without colour too."""
    return format_html('<span class="jit-flag"><span aria-hidden="true">⚠</span> {}</span>', text)


def _badge(kind: str, word: str) -> str:
    return format_html('<span class="jit-badge jit-{}">{}</span>', kind, word)
