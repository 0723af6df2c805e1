"""What a policy may not say. Refused when it is saved, with words for who wrote it; never at call time."""

from __future__ import annotations

import re
from datetime import timedelta

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext_lazy as _

from jit_approval import conf

_MAX_GLOBS = 100
_MAX_ADDRESSES = 20
# A repeated group that itself repeats takes exponential time on a reason made for it.
_NESTED_REPEAT = re.compile(r"\([^()]*[*+{][^()]*\)\s*[*+{]")


def validate_window(value: timedelta) -> None:
    """Refuse a window shorter than one second or longer than thirty days."""
    if not conf.MIN_WINDOW <= value <= conf.MAX_WINDOW:
        raise ValidationError(_("A window lies between 1 second and 30 days."), code="window")


def validate_cooldown(value: timedelta) -> None:
    """Refuse a cool-down of less than nothing, or of more than a year."""
    if not timedelta(0) <= value <= conf.MAX_WAIT:
        raise ValidationError(_("A cool-down lies between 0 and 365 days."), code="cooldown")


def validate_globs(value: str) -> None:
    """Refuse an empty list of actions, and globs that cannot match an action label."""
    globs = [line.strip() for line in value.split("\n") if line.strip()]
    if not globs:
        raise ValidationError(_("Name at least one action, for example customers.*"), code="empty")
    if len(globs) > _MAX_GLOBS:
        raise ValidationError(
            _("At most %(limit)d lines."), code="many", params={"limit": _MAX_GLOBS}
        )
    for glob in globs:
        if len(glob.split()) > 1:
            raise ValidationError(
                _("One action per line; %(glob)r has a space in it."),
                code="glob",
                params={"glob": glob},
            )
        _validate_brackets(glob)


def _validate_brackets(glob: str) -> None:
    """Refuse a "[" that is never closed: it would match itself, which no label contains."""
    if "[" in glob and not re.search(r"\[[!]?.[^\]]*\]", glob):
        raise ValidationError(
            _("%(glob)r opens a bracket and does not close it."),
            code="glob",
            params={"glob": glob},
        )


def validate_condition(value: str) -> None:
    """Refuse a condition that could not be evaluated, saying where it goes wrong."""
    from jit_approval import conditions

    if not value.strip():
        return
    try:
        conditions.check(value)
    except conditions.ConditionError as error:
        raise ValidationError(
            _("Line %(line)d, column %(column)d: %(message)s"),
            code="condition",
            params={"line": error.line, "column": error.column, "message": str(error)},
        ) from None


def validate_object_permission(value: str) -> None:
    """Refuse what is not the name of a permission some model of the project has."""
    app_label, dot, codename = value.partition(".")
    known = {
        name
        for config in apps.get_app_configs()
        if config.label == app_label
        for model in config.get_models()
        for name in _codenames(model)
    }
    if not dot or codename not in known:
        raise ValidationError(
            _("There is no permission %(name)r; it is written app_label.codename."),
            code="permission",
            params={"name": value},
        )


def _codenames(model: type) -> set[str]:
    meta = model._meta  # type: ignore[attr-defined]
    named = {codename for codename, _name in meta.permissions}
    return named | {f"{verb}_{meta.model_name}" for verb in meta.default_permissions}


def validate_pattern(value: str) -> None:
    """Refuse what is no regular expression, or one that a long reason could make run for minutes."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValidationError(
            _("Not a regular expression: %(error)s"), code="pattern", params={"error": str(error)}
        ) from None
    if _NESTED_REPEAT.search(value):
        raise ValidationError(_("A repeat within a repeat could take for ever."), code="pattern")


def validate_addresses(value: str) -> None:
    """Refuse what is not a list of e-mail addresses, one per line."""
    lines = [line.strip() for line in value.split("\n") if line.strip()]
    if len(lines) > _MAX_ADDRESSES:
        raise ValidationError(
            _("At most %(limit)d lines."), code="many", params={"limit": _MAX_ADDRESSES}
        )
    for line in lines:
        try:
            validate_email(line)
        except ValidationError:
            raise ValidationError(
                _("%(line)r is not an e-mail address."), code="address", params={"line": line}
            ) from None
