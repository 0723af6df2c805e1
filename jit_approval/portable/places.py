"""Where in a TOML text each key and value stands. `tomllib` reads values, but tells no lines.

It reads the part of TOML that a policy file needs and refuses the rest, in linear time and memory, before
`tomllib` sees the text: a dotted key of 1 MB would cost that one all of the machine's memory.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass

from jit_approval.portable.problems import FileRefused, refused

Path = tuple[str | int, ...]
# policies, slug, permissions, codename, users, index
_MAX_DEPTH = 6

_BLANK = re.compile(r"[ \t]*+")
_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*+")
_LINE_END = re.compile(r"[ \t]*+(?:#[^\n]*)?(?:\n|\Z)")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED_KEY = re.compile(r'"(?:[^"\\\n]|\\[^\n])*+"|' + r"'[^'\n]*+'")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*+"""(?:"{0,2})'
    r"|'''(?:[^']|'(?!''))*+'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\[^\n])*+"'
    r"|'[^'\n]*+'"
)
_LONGEST_NUMBER = 40
_SCALAR = re.compile(r"[^\s,\[\]{}#\"'=]+")


@dataclass(frozen=True)
class Place:
    """The line of a key or of an item, from 1, and how the key and the value are written."""

    line: int
    key: str = ""
    written: str = ""


class Places:
    """The places in one text, by the path that leads to the value in the parsed document.

    `quoted`: the lines of keys in quotes, by path.
    """

    def __init__(self, text: str) -> None:
        """Find them all.

        Raises:
            FileRefused: not TOML, or TOML that no policy file needs.
        """
        self._text, self._at = text, 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._found: dict[Path, Place] = {}
        self._tables: dict[Path, int] = {}
        self.quoted: dict[Path, int] = {}
        self._document()

    def __getitem__(self, path: Path) -> Place:
        """Return the place of a path."""
        return self._found[path]

    @property
    def paths(self) -> set[Path]:
        """Every path that leads to a value or a table."""
        return set(self._found)

    def line(self, path: Path) -> int:
        """Return the line of a path, or of the nearest table around it."""
        while path not in self._found and path:
            path = path[:-1]
        return self._found[path].line if path else 1

    # --- the text, from the outside in ---------------------------------------------------------------------

    def _document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_SPACE)
            if self._at == len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            if not self._skip(_LINE_END):
                raise self._refused("this line goes on where it should end")

    def _header(self) -> Path:
        start = self._at
        if self._text.startswith("[[", start):
            raise self._refused("[[...]] is not used here; write [policies.the-slug]")
        self._at += 1
        path = self._key(())
        if not self._takes("]"):
            raise self._refused("a table is written [policies.the-slug]")
        if path in self._tables:
            first = self._tables[path]
            name = ".".join(map(str, path))
            raise self._refused(f"[{name}] is written twice; first in line {first}", start)
        self._tables[path] = self._line(start)
        if self._found.get(path, Place(0)).written:
            raise self._refused(f"{path[-1]} is written twice", start)
        self._found[path] = Place(self._line(start), self._found[path].key)
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        path = self._key(table)
        known = self._found[path]
        if known.line != self._line(start) or known.written or path in self._tables:
            raise self._refused(f"{path[-1]} is written twice; first in line {known.line}", start)
        if not self._takes("="):
            raise self._refused("a line is a [table], or a key = value")
        self._skip(_BLANK)
        written = self._value(path)
        self._found[path] = Place(known.line, known.key, written)

    def _key(self, path: Path) -> Path:
        """Read a dotted key; every part of it leads somewhere."""
        while True:
            self._skip(_BLANK)
            start = self._at
            part = self._name()
            path = (*path, part)
            self._deep(path)
            line, written = self._line(start), self._text[start : self._at]
            self._found.setdefault(path, Place(line, written))
            if written[0] in "\"'":
                self.quoted.setdefault(path, line)
            self._skip(_BLANK)
            if not self._takes("."):
                return path

    def _name(self) -> str:
        bare = _BARE.match(self._text, self._at)
        quoted = _QUOTED_KEY.match(self._text, self._at)
        match = bare or quoted
        if match is None:
            raise self._refused("a key is expected here")
        self._at = match.end()
        return match[0] if bare else self._unquoted(match[0])

    def _unquoted(self, written: str) -> str:
        try:
            return str(tomllib.loads(f"key = {written}")["key"])
        except ValueError:
            raise self._refused(f"{written} is no key") from None

    def _value(self, path: Path) -> str:
        """Read one value and what is in it; return how it is written."""
        start = self._at
        self._deep(path)
        opening = self._text[start : start + 1]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline(path)
        elif not self._skip(_STRING) and not self._skip(_SCALAR):
            raise self._refused("a value is expected here, whole and on this line")
        elif opening not in "\"'" and self._at - start > _LONGEST_NUMBER:
            raise self._refused("a number this long is none of ours", start)
        return self._text[start : self._at]

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            self._skip(_SPACE)
            if self._takes("]"):
                return
            line = self._line(self._at)
            self._found[(*path, number)] = Place(line, "", self._value((*path, number)))
            number += 1
            self._skip(_SPACE)
            if not self._takes(",") and self._text[self._at : self._at + 1] != "]":
                raise self._refused("this list goes on without a comma, or does not end")

    def _inline(self, path: Path) -> None:
        self._at += 1
        self._skip(_BLANK)
        if self._takes("}"):
            return
        while True:
            self._skip(_BLANK)
            self._pair(path)
            self._skip(_BLANK)
            if self._takes("}"):
                return
            if not self._takes(","):
                raise self._refused("this { } goes on without a comma, or does not end")

    # --- steps ---------------------------------------------------------------------------------------------

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._text, self._at)
        if match is None:
            return False
        self._at = match.end()
        return True

    def _takes(self, sign: str) -> bool:
        found = self._text.startswith(sign, self._at)
        self._at += len(sign) if found else 0
        return found

    def _deep(self, path: Path) -> None:
        if len(path) > _MAX_DEPTH:
            raise self._refused("nothing in a policy file lies this deep")

    def _line(self, position: int) -> int:
        return bisect_right(self._breaks, position - 1) + 1

    def _refused(self, message: str, position: int | None = None) -> FileRefused:
        return refused(self._line(self._at if position is None else position), message)
