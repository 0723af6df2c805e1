"""The allow-list: which routes a project has decided to leave without a gate, one `METHOD glob` per line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_COMMENT = re.compile(r"(^|\s)#.*$")
_METHOD = re.compile(r"\*|[A-Z]+")


class MalformedAllowList(ValueError):
    """The file cannot be read, or a line of it cannot be understood; with the line's number."""


@dataclass(frozen=True)
class Entry:
    """One line of the file: `POST /api/token/`, `* customers.*`. The glob is of a path or of an action label."""

    line: int
    method: str
    glob: str

    def names(self, method: str, path: str, action: str) -> bool:
        """Tell whether it names this method of this route, case and all."""
        if self.method not in ("*", method):
            return False
        return fnmatchcase(path, self.glob) or (bool(action) and fnmatchcase(action, self.glob))

    def __str__(self) -> str:
        """Return the line as it would be written."""
        return f"{self.method} {self.glob}"


def read(path: str | Path) -> list[Entry]:
    """Return the entries of the file; `#` begins a comment.

    Raises:
        MalformedAllowList: it cannot be read, or a line is no entry, or allows everything.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedAllowList(f"{path}: {error}") from error
    return list(_entries(str(path), text.splitlines()))


def _entries(name: str, lines: Iterable[str]) -> Iterable[Entry]:
    for number, line in enumerate(lines, start=1):
        words = _COMMENT.sub("", line).split()
        if not words:
            continue
        problem = _problem(words)
        if problem:
            raise MalformedAllowList(f"{name}, line {number}: {problem}: {line.strip()!r}")
        yield Entry(number, *words)


def _problem(words: list[str]) -> str:
    if len(words) != 2:
        return "not METHOD and glob, with a blank between"
    method, glob = words
    if not _METHOD.fullmatch(method):
        return "the method is neither in capitals nor *"
    # A list that allows everything checks nothing, and says that it does.
    if not glob.strip("*?/"):
        return "the glob names every route"
    return ""
