"""What a policy may not say. Refused when it is saved, with words for who wrote it; never at call time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import translate
from importlib import import_module
from math import prod
from typing import Any
from unicodedata import name

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext_lazy as _

from jit_approval import conf
from jit_approval.redaction import visible

_MAX_GLOBS = 100
_MAX_ADDRESSES = 20
# RFC 5321 §4.5.3.1.3, without the brackets.
_MAX_ADDRESS = 254
# How many ways a pattern may have to fail at one place of a reason: two open-ended repeats, and a little more.
_MAX_WAYS = 1_000_000
# An open-ended repeat takes as many characters as a reason has.
_REASON = 500
# What `re.compile` itself parses with; the one that says what a pattern is made of.
_parser: Any = import_module("re._parser")


def validate_window(value: timedelta) -> None:
    """Refuse a window shorter than one second or longer than thirty days."""
    if not conf.MIN_WINDOW <= value <= conf.MAX_WINDOW:
        raise ValidationError(_("A window lies between 1 second and 30 days."), code="window")


def validate_cooldown(value: timedelta) -> None:
    """Refuse a cool-down of less than nothing, or of more than a year."""
    if not timedelta(0) <= value <= conf.MAX_WAIT:
        raise ValidationError(_("A cool-down lies between 0 and 365 days."), code="cooldown")


def validate_wait(value: timedelta) -> None:
    """Refuse a wait on the line of less than nothing, or of more than an hour."""
    if not timedelta(0) <= value <= conf.MAX_ON_THE_LINE:
        raise ValidationError(_("A wait on the line lies between 0 and 1 hour."), code="wait")


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
        if len(glob.split()) > 1 or "," in glob or ";" in glob:
            raise ValidationError(
                _("One action per line; %(glob)r has a space, or a comma, in it."),
                code="glob",
                params={"glob": glob},
            )
        _validate_letters(glob)
        _validate_brackets(glob)


def _validate_letters(glob: str) -> None:
    """Refuse what cannot be seen, and one word in two alphabets: such a glob reads as one that holds calls."""
    mixed = any(
        re.search("[A-Za-z]", word)
        and any(not name(each, "").startswith("LATIN ") for each in word if not each.isascii())
        for word in re.findall(r"\w+", glob)
    )
    if mixed or visible(glob) != glob:
        raise ValidationError(
            _("%(glob)s has a character that cannot be seen, or is taken for another."),
            code="glob",
            params={"glob": ascii(glob)},
        )


def _validate_brackets(glob: str) -> None:
    """Refuse brackets that match nothing a label contains: one that is never closed, a range that is empty."""
    pattern = translate(glob)
    if r"\[" in pattern or "(?!)" in pattern:
        raise ValidationError(
            _(
                "%(glob)r has brackets that can match nothing: unclosed, empty, or the wrong way round."
            ),
            code="glob",
            params={"glob": glob},
        )


def validate_condition(value: str) -> None:
    """Refuse a condition that could not be evaluated, saying where it goes wrong."""
    from jit_approval import conditions

    if not value.strip():
        return
    if visible(value, keep_lines=True) != value.replace("\r\n", "\n"):
        raise ValidationError(_("It has a character that cannot be seen."), code="condition")
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
    if _ways(_parser.parse(value)) > _MAX_WAYS:
        raise ValidationError(
            _("It could take for ever: at most two open-ended repeats, none within another."),
            code="pattern",
        )


def _ways(pattern: Any) -> float:
    """Return a bound on the ways there are to match a parsed pattern from one place; it is tried in each."""
    ways = 1.0
    for kind, value in pattern:
        parts = list(_parts(value))
        if str(kind).endswith("_REPEAT"):
            least, most = value[0], min(value[1], _REASON)
            within = min(prod(map(_ways, parts)), _MAX_WAYS + 1)
            # What has several ways has them anew each time.
            ways *= max(1, most - least + 1) if within == 1 else within ** min(most, 30)
        elif str(kind) == "BRANCH":
            ways *= sum(map(_ways, parts))
        else:
            ways *= prod(map(_ways, parts))
        ways = min(ways, 1e300)
    return ways


def _parts(value: Any) -> Iterator[Any]:
    """Return the patterns within what an element of a parsed pattern says of it."""
    if isinstance(value, _parser.SubPattern):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _parts(each)


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
            if len(line) > _MAX_ADDRESS:
                raise ValidationError("too long")
        except ValidationError:
            raise ValidationError(
                _("%(line)r is not an e-mail address."), code="address", params={"line": line}
            ) from None
