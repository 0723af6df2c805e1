"""What is wrong with a policy file: all of it at once, each with its line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, order=True)
class Problem:
    """One fault. `line` counts from 1; `where` is the policy and the key, "" for the file as such."""

    line: int
    where: str
    message: str

    def __str__(self) -> str:
        """Return line, place and message, as compilers do."""
        return f"{self.line}: {f'{self.where}: ' if self.where else ''}{self.message}"


class FileRefused(Exception):
    """The file is not applied. `problems`, in the order of their lines, say why."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep them sorted, each once."""
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


def refused(line: int, message: str, where: str = "") -> FileRefused:
    """Return the refusal for a single fault."""
    return FileRefused([Problem(line, where, message)])


def like(name: str, known: Iterable[str]) -> str:
    """Return a hint at the name that was probably meant, with its question mark; "" where none is near."""
    near = get_close_matches(name.casefold(), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
