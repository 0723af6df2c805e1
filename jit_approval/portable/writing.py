"""Policies as a file: the same policies make the same bytes, wherever and whenever they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jit_approval.policies.versions import Snapshot
from jit_approval.portable.keys import DECIDE, HOLDERS, KEYS, STEP_KEYS, Kind, defaults
from jit_approval.portable.spelling import escaped

_WIDTH = 100
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROLS = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", '"': '\\"'}
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)


def write(snapshots: Iterable[Snapshot]) -> str:
    """Return the text of a file with these policies, by (priority, slug); what is as usual is left out."""
    ordered = sorted(snapshots, key=lambda said: (said["priority"], said["slug"]))
    return "\n".join(map(_policy, ordered))


def _policy(said: Snapshot) -> str:
    usual = defaults(said["slug"])
    lines = [f"[policies.{said['slug']}]"]
    for key, kind in KEYS.items():
        if kind is Kind.COUNTS:
            lines += _table(key, _named(said["group_requirements"]))
        elif kind is Kind.HOLDERS:
            lines += _table(key, _holders(said, DECIDE))
        elif kind is Kind.PERMISSIONS:
            for codename in sorted({*said["users"], *said["groups"]} - {DECIDE}):
                lines += _table(f"{key}.{codename}", _holders(said, codename))
        elif kind is Kind.STEPS:
            lines += _steps(key, said[key])
        elif said[key] != usual[key]:
            lines += _pair(key, _value(said[key], kind), said[key], kind)
    return "\n".join(lines) + "\n"


def _pair(key: str, written: str, value: Any, kind: Kind) -> list[str]:
    line = f"{key} = {written}"
    if len(line) <= _WIDTH or not isinstance(value, list):
        return [line]
    return [f"{key} = [", *(f"    {_text(each, kind)}," for each in value), "]"]


def _table(key: str, table: Mapping[str, Any]) -> list[str]:
    """Return a small table on one line; a longer one as a line for each of its keys."""
    if not table:
        return []
    written = {name: _value(value, Kind.HOLDERS) for name, value in table.items()}
    line = f"{key} = {{ {', '.join(f'{name} = {text}' for name, text in written.items())} }}"
    if len(line) <= _WIDTH:
        return [line]
    return [
        line
        for name, value in table.items()
        for line in _pair(f"{key}.{name}", written[name], value, Kind.HOLDERS)
    ]


def _steps(key: str, steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the steps as a line each; what a step does not say is left out."""
    if not steps:
        return []
    return [f"{key} = [", *(f"    {{ {_step(each)} }}," for each in steps), "]"]


def _step(said: Mapping[str, Any]) -> str:
    pairs = ((name, said[name], kind) for name, kind in STEP_KEYS.items())
    return ", ".join(f"{name} = {_value(value, kind)}" for name, value, kind in pairs if value)


def _holders(said: Snapshot, codename: str) -> dict[str, list[str]]:
    return {holder: said[holder][codename] for holder in HOLDERS if said[holder].get(codename)}


def _named(counts: Mapping[str, int]) -> dict[str, int]:
    return {
        name if _BARE.fullmatch(name) else _text(name, Kind.COUNTS): counts[name]
        for name in sorted(counts)
    }


def _value(value: Any, kind: Kind) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_text(each, kind) for each in value)}]"
    if isinstance(value, str):
        return _lines(value, kind) if "\n" in value else _text(value, kind)
    return str(value)


def _text(value: str, kind: Kind) -> str:
    inner = "".join(_CONTROLS.get(each, each) for each in value.replace("\\", "\\\\"))
    return f'"{escaped(inner, kind)}"'


def _lines(value: str, kind: Kind) -> str:
    """Return a text of several lines as such. Blanks at the end of a line would not be seen."""
    inner = value.replace("\\", "\\\\").replace("\r", "\\r").replace('"""', '""\\"')
    inner = _TRAILING.sub(
        lambda match: match[0].replace(" ", "\\u0020").replace("\t", "\\t"), inner
    )
    return f'"""\n{escaped(inner, kind)}"""'
