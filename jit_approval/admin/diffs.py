"""Two states of a policy side by side, as people read them: marks first, colours second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from jit_approval.models import ApprovalPolicy
from jit_approval.policies import rungs, versions
from jit_approval.redaction import visible

_NOTHING = "-"


@dataclass(frozen=True)
class Line:
    """One line of a longer value. `kind`: same, out (it was there), in (it is there now)."""

    kind: str
    text: str

    @property
    def mark(self) -> str:
        """The sign that tells without colour."""
        return {"out": "-", "in": "+"}.get(self.kind, " ")


@dataclass(frozen=True)
class Change:
    """One field that differs: as two values, or, where a value has lines, as `lines`."""

    field: str
    label: str
    before: str
    after: str
    lines: tuple[Line, ...] = ()


def between(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Change]:
    """Return the fields that differ between two snapshots, labelled as the form labels them."""
    return [_change(each) for each in versions.differences(before, after)]


def _change(each: versions.Difference) -> Change:
    before, after = _lines(each.field, each.before), _lines(each.field, each.after)
    lines: tuple[Line, ...] = ()
    if len(before) > 1 or len(after) > 1 or isinstance(each.before or each.after, list | dict):
        lines = tuple(_compared(before, after))
    return Change(each.field, label(each.field), _joined(before), _joined(after), lines)


def label(name: str) -> str:
    """Return the words for a field of a snapshot."""
    ours = {
        "users": _("Deciders by name"),
        "groups": _("Deciders by group"),
        "group_requirements": _("Groups that must be represented"),
        "steps": _("Steps on silence"),
    }
    if name in ours:
        return ours[name]
    try:
        field: Any = ApprovalPolicy._meta.get_field(name)
    except FieldDoesNotExist:
        return name
    return str(capfirst(field.verbose_name))


def _lines(name: str, value: Any) -> list[str]:
    """Return a value of a snapshot as lines of text; none where it says nothing."""
    lines = _as_lines(name, value)
    if name not in versions.EXACT:
        return lines
    return [line.encode("ascii", "backslashreplace").decode() for line in lines]


def _as_lines(name: str, value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, bool):
        return [_("yes") if value else _("no")]
    if isinstance(value, Mapping):
        return [visible(line) for line in _of_mapping(value)]
    if name == "steps":
        return [visible(rungs.as_text(each)) for each in value]
    if isinstance(value, list):
        return [visible(str(each)) for each in value]
    choices: Any = dict(getattr(_field(name), "flatchoices", ()))
    return visible(str(choices.get(value, value)), keep_lines=True).splitlines()


def _of_mapping(value: Mapping[str, Any]) -> Iterator[str]:
    """Return groups with their counts, or holders; what they hold is named unless it is `decide`."""
    for key, held in value.items():
        if not isinstance(held, list):
            yield f"{key}: {held}"
            continue
        yield from (str(name) if key == "decide" else f"{name} ({key})" for name in held)


def _field(name: str) -> Any:
    try:
        return ApprovalPolicy._meta.get_field(name)
    except FieldDoesNotExist:
        return None


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) or _NOTHING


def _compared(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal":
            yield from (Line("same", text) for text in before[start:end])
            continue
        yield from (Line("out", text) for text in before[start:end])
        yield from (Line("in", text) for text in after[new_start:new_end])
