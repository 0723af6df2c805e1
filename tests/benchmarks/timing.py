"""Time several things in turn, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter_ns

Prepare = Callable[[], Callable[[], object]]
"""Makes ready, untimed, for one call; returns what is timed."""


def interleaved(things: dict[str, Prepare], rounds: int) -> dict[str, float]:
    """Return the median of each thing in microseconds over `rounds`, in changing order within a round."""
    taken: dict[str, list[int]] = {name: [] for name in things}
    order, chance = list(things), random.Random(0)
    with _no_garbage_collection():
        for _ in range(rounds):
            chance.shuffle(order)
            for name in order:
                action = things[name]()
                start = perf_counter_ns()
                action()
                taken[name].append(perf_counter_ns() - start)
    return {name: median(values) / 1000 for name, values in taken.items()}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
