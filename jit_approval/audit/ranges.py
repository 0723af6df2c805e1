"""Sets of events as ranges of their places in the trail: what is erased is erased in stretches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of whole numbers, in memory by the number of its stretches."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []

    def add(self, begin: int, end: int) -> None:
        """Put in all from `begin` to before `end`."""
        if begin >= end:
            return
        # Every stretch that touches this one becomes part of it.
        first = bisect_right(self._ends, begin - 1)
        last = bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
        self._begins[first:last] = [begin]
        self._ends[first:last] = [end]

    def discard(self, number: int) -> bool:
        """Take one out; tell whether it was in."""
        place = bisect_right(self._begins, number) - 1
        if place < 0 or self._ends[place] <= number:
            return False
        begin, end = self._begins.pop(place), self._ends.pop(place)
        self.add(begin, number)
        self.add(number + 1, end)
        return True

    def without(self, other: Ranges) -> Iterator[tuple[int, int]]:
        """Return the stretches of what is in this set and not in the other."""
        for begin, end in self:
            for there, gone in other.touching(begin, end):
                if begin < there:
                    yield begin, there
                begin = max(begin, gone)
            if begin < end:
                yield begin, end

    def touching(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Return the stretches that have a number from `begin` to before `end`."""
        place = bisect_right(self._ends, begin)
        while place < len(self._begins) and self._begins[place] < end:
            yield self._begins[place], self._ends[place]
            place += 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._begins, self._ends, strict=True)

    def __len__(self) -> int:
        return sum(end - begin for begin, end in self)


def total(stretches: Iterable[tuple[int, int]]) -> int:
    """Return how many numbers there are in stretches."""
    return sum(end - begin for begin, end in stretches)
