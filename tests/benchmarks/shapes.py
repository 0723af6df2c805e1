"""What statements something makes, in one line of letters, and the same statements on a two-column table.

R reads, L reads and locks, I inserts, U updates; `[ … ]` is a transaction that commits, `( … )` one that is
rolled back. `R R [R R I I I I]` is two reads, then six statements and one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.benchmarks.models import Pair

_KINDS = {"SELECT": "R", "INSERT": "I", "UPDATE": "U", "DELETE": "D"}


def of(action: Callable[[], object]) -> str:
    """Run `action` once and return its shape."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        action()
    letters: list[str] = []
    for query in captured:
        letters.append(_letter(query["sql"]))
        if letters[-1] == ")":
            begin = len(letters) - 1 - letters[::-1].index("[")
            letters[begin] = "("
    return "".join(letters)


def _letter(sql: str) -> str:
    word = sql.split(None, 1)[0].upper().rstrip(";")
    if word in ("BEGIN", "START"):
        return "["
    if word in ("COMMIT", "ROLLBACK"):
        return "]" if word == "COMMIT" else ")"
    if word in ("SAVEPOINT", "RELEASE"):
        return ""
    return "L" if "FOR UPDATE" in sql or "for_update" in sql else _KINDS[word]


def statements(shape: str) -> int:
    """Return how many statements a shape has; BEGIN, COMMIT and SAVEPOINT are none."""
    return sum(letter.isalpha() for letter in shape)


def without(shape: str, plain: str) -> str:
    """Return a shape without the statements that the plain view makes before the gate is asked."""
    if not shape.startswith(plain):
        raise ValueError(f"{shape} does not begin like {plain}")
    return shape.removeprefix(plain)


def replay(shape: str, pk: int) -> Callable[[], None]:
    """Return a function that makes the same statements, in the same transactions, on `Pair`."""
    steps = {
        "R": lambda: Pair.objects.get(pk=pk),
        "L": lambda: Pair.objects.select_for_update().get(pk=pk),
        "I": lambda: Pair.objects.create(value=1),
        "U": lambda: Pair.objects.filter(pk=pk).update(value=2),
    }

    def run(letters: Iterator[str]) -> None:
        for letter in letters:
            if letter in "[(":
                with _block(letter):
                    run(letters)
            elif letter in "])":
                return
            else:
                steps[letter]()

    return lambda: run(iter(shape))


@contextmanager
def _block(letter: str) -> Iterator[None]:
    with transaction.atomic():
        yield
        if letter == "(":
            transaction.set_rollback(True)
