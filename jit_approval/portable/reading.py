"""A policy file as snapshots, each value's line beside it. What it says is checked by `checking`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jit_approval.policies import durations, rungs
from jit_approval.policies.versions import Snapshot
from jit_approval.portable import spelling
from jit_approval.portable.keys import (
    DECIDE,
    HOLDERS,
    KEYS,
    REQUIRED,
    STEP_KEYS,
    Kind,
    defaults,
)
from jit_approval.portable.places import Path, Places
from jit_approval.portable.problems import Problem, like, refused

MAX_BYTES = 1024 * 1024
_TABLE = "policies"
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,9}")
_BOM = b"\xef\xbb\xbf"


@dataclass
class PolicyFile:
    """What a file says of its policies, by slug; where there are problems, not all of it."""

    places: Places
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    # Lists of names are sorted by now: where each item of a list stood.
    lines_of_items: dict[Path, dict[str, int]] = field(default_factory=dict)

    def problem(self, message: str, *path: str | int) -> Problem:
        """Return a fault of the value at a path below `policies`."""
        where = ".".join(str(part) for part in path if isinstance(part, str))
        return Problem(self.places.line((_TABLE, *path)), where, message)

    def item_problem(self, message: str, item: str, *path: str | int) -> Problem:
        """Return a fault of an item in the list at a path below `policies`."""
        found = self.problem(message, *path)
        line = self.lines_of_items.get((_TABLE, *path), {}).get(item, found.line)
        return Problem(line, found.where, message)


def read(content: bytes) -> PolicyFile:
    """Return what a policy file says, and what is wrong with that; `changing.make` refuses both together.

    Raises:
        FileRefused: it cannot be read at all.
    """
    text = _text(content)
    places = Places(text)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        message = str(error)[: found.start()] if found else str(error)
        raise refused(line, f"not TOML: {message}") from None
    if set(_paths(document)) != places.paths:
        raise refused(1, "this file can be read in more than one way")
    return _Reader(places).file(document)


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise refused(1, f"larger than {MAX_BYTES // 1024} KiB")
    if content.startswith(_BOM):
        raise refused(1, "starts with a byte order mark; save it as UTF-8 without one")
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refused(line, "not UTF-8") from None
    hidden = spelling.unseen(text)
    if hidden:
        raise refused(hidden, "a character nobody can see; write it as an escape, or leave it out")
    return text


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of everything in a parsed document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, key))


class _Reader:
    """Turns the document into snapshots, and notes what does not fit."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._problems: list[Problem] = []
        self._lines_of_items: dict[Path, dict[str, int]] = {}

    def file(self, document: Mapping[str, Any]) -> PolicyFile:
        found = PolicyFile(
            self._places, problems=self._problems, lines_of_items=self._lines_of_items
        )
        for name in document:
            if name != _TABLE:
                self._note((name,), f"unknown key {name!r}; policies are [policies.the-slug]")
        policies = document.get(_TABLE, {})
        if not isinstance(policies, dict):
            raise refused(self._places.line((_TABLE,)), "policies are written [policies.the-slug]")
        for path, line in self._places.quoted.items():
            # With an escape in it, it is another to who reads it. Groups have names of any kind.
            if path[2:3] != ("groups_required",) or len(path) != 4:
                self._problems.append(Problem(line, "", f"write {path[-1]} without quotes"))
        slugs: dict[str, str] = {}
        for slug, table in policies.items():
            other = slugs.setdefault(slug.casefold(), slug)
            if other != slug:
                self._note((_TABLE, slug), f"differs from {other!r} in capital letters only")
            found.snapshots[slug] = self._policy(slug, table)
        return found

    def _policy(self, slug: str, table: Any) -> Snapshot:
        path, said = (_TABLE, slug), defaults(slug)
        if not isinstance(table, dict):
            self._note(path, f"a policy is a table: [policies.{slug}]")
            return said
        for key in REQUIRED:
            if not table.get(key):
                self._note((*path, key), "is missing")
        for key, value in table.items():
            if key not in KEYS:
                self._note((*path, key), f"unknown key {key!r}{like(key, KEYS)}")
                continue
            self._read(said, key, value, (*path, key))
        return said

    def _read(self, said: Snapshot, key: str, value: Any, path: Path) -> None:
        match KEYS[key]:
            case Kind.COUNTS:
                said["group_requirements"] = self._counts(value, path)
            case Kind.HOLDERS:
                self._holders(said, DECIDE, value, path, Kind.HOLDERS)
            case Kind.PERMISSIONS:
                self._permissions(said, value, path)
            case Kind.STEPS:
                said[key] = self._steps(value, path)
            case Kind.CHANNELS:
                said[key] = sorted(self._list(value, path, Kind.CHANNELS))
            case Kind.LINES:
                said[key] = self._list(value, path, Kind.LINES)
            case kind:
                read = self._simple(value, path, kind)
                said[key] = said[key] if read is None else read

    # --- kinds ---------------------------------------------------------------------------------------------

    def _simple(self, value: Any, path: Path, kind: Kind) -> Any:
        """Return a single value, or None where it is not of its kind."""
        written = self._places[path].written
        kept: Any = value
        if type(value) is not {Kind.FLAG: bool, Kind.NUMBER: int}.get(kind, str):
            return self._none(path, f"must be {kind}, not {_kind_of(value)}")
        if kind is Kind.NUMBER and not _NUMBER.fullmatch(written):
            return self._none(path, f"write it in plain digits, at most ten, not {written[:40]}")
        if isinstance(value, str) and not self._is_plain(value, written, path, kind):
            return None
        if kind in (Kind.DURATION, Kind.MOMENT):
            try:
                kept = _as_written(str(value), kind)
            except (ValueError, OverflowError):
                return self._none(path, f"must be {kind}")
        return kept

    def _is_plain(self, text: str, written: str, path: Path, kind: Kind) -> bool:
        wrong = spelling.objection(written, kind)
        if "\0" in text:
            wrong = "has a NUL in it"
        if wrong:
            self._note(path, wrong)
        return not wrong

    def _list(self, value: Any, path: Path, kind: Kind) -> list[str]:
        """Return a list of texts: each of one line, none twice."""
        if type(value) is not list:
            self._note(path, f"must be {Kind.LINES}, not {_kind_of(value)}")
            return []
        seen: dict[str, int] = {}
        for number, text in enumerate(value):
            place = (*path, number)
            if type(text) is not str or not text:
                self._note(place, f"must be {Kind.TEXT}, not {_kind_of(text)}")
            elif kind is Kind.LINES and (text != text.strip() or not text.isprintable()):
                # Line feeds are what separates them in the database: one with a line feed would be two.
                self._note(place, "must be one line, without blanks around it")
            elif text in seen:
                self._note(place, f"{text!r} is named twice")
            elif self._is_plain(text, self._places[place].written, place, kind):
                seen[text] = self._places.line(place)
        self._lines_of_items[path] = seen
        return list(seen)

    def _steps(self, value: Any, path: Path) -> list[Snapshot]:
        if type(value) is not list:
            self._note(path, f"must be {Kind.STEPS}, not {_kind_of(value)}")
            return []
        return [self._step(each, (*path, number)) for number, each in enumerate(value)]

    def _step(self, value: Any, path: Path) -> Snapshot:
        """Return what one step says, and what it leaves out as it is then."""
        said, table = rungs.nothing(), self._table(value, path, Kind.STEPS)
        if type(value) is dict and not table.get("after"):
            self._note(path, f"a step says when: after = {str(Kind.MOMENT).rpartition(': ')[2]}")
        for key, item in table.items():
            place = (*path, key)
            if key not in STEP_KEYS:
                self._note(place, f"unknown key {key!r}{like(key, STEP_KEYS)}")
                continue
            kind = STEP_KEYS[key]
            if kind in (Kind.HOLDERS, Kind.CHANNELS, Kind.LINES):
                found = self._list(item, place, kind)
                said[key] = found if kind is Kind.LINES else sorted(found)
                continue
            read = self._simple(item, place, kind)
            said[key] = said[key] if read is None else read
        return said

    def _table(self, value: Any, path: Path, kind: Kind) -> dict[str, Any]:
        if type(value) is dict:
            return value
        self._note(path, f"must be {kind}, not {_kind_of(value)}")
        return {}

    def _counts(self, value: Any, path: Path) -> dict[str, int]:
        found = {}
        for name, count in sorted(self._table(value, path, Kind.COUNTS).items()):
            place = (*path, name)
            self._is_plain(name, self._places[place].key, place, Kind.COUNTS)
            found[name] = self._simple(count, place, Kind.NUMBER) or 0
        return found

    def _holders(self, said: Snapshot, codename: str, value: Any, path: Path, kind: Kind) -> None:
        for holder, names in self._table(value, path, kind).items():
            place = (*path, holder)
            if holder not in HOLDERS:
                self._note(place, f"unknown key {holder!r}{like(holder, HOLDERS)}")
                continue
            if found := sorted(self._list(names, place, Kind.HOLDERS)):
                said[holder][codename] = found

    def _permissions(self, said: Snapshot, value: Any, path: Path) -> None:
        for codename, holders in self._table(value, path, Kind.PERMISSIONS).items():
            place = (*path, codename)
            if codename == DECIDE:
                self._note(place, "who may decide is written as deciders = { ... }")
                continue
            self._holders(said, codename, holders, place, Kind.PERMISSIONS)

    # --- notes ---------------------------------------------------------------------------------------------

    def _none(self, path: Path, message: str) -> Any:
        self._note(path, message)
        return None

    def _note(self, path: Path, message: str) -> None:
        words = [part for part in path[1:] if isinstance(part, str)] or [str(path[0])]
        where = ".".join(words) if path != (_TABLE,) else ""
        self._problems.append(Problem(self._places.line(path), where, message))


def _as_written(text: str, kind: Kind) -> str:
    """Return a duration, or a moment, in the one way it is written."""
    if kind is Kind.MOMENT:
        return rungs.when(*rungs.parse_when(text))
    return durations.as_text(durations.parse(text))


def _kind_of(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number with a fraction",
        str: "a text" if value else "an empty text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")
