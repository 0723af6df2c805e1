"""The rows of the table: each thing against its floor and against its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

from tests.benchmarks import scenes, shapes
from tests.benchmarks.timing import Prepare, interleaved

# So many rounds, then the tables are emptied: nobody has more calls waiting than the default limits allow.
BATCH = 50


@dataclass(frozen=True)
class Measured:
    """One row. Times are medians in microseconds; `added` is without what the plain view costs."""

    name: str
    shape: str
    statements: int
    p50: float
    added: float
    floor_name: str
    floor: float
    to_floor: float
    to_shape: float | None
    lowest: float
    highest: float
    target: float | None
    # Most microseconds it may take, where the target is a time and no ratio.
    limit: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.limit is not None:
            return self.p50 <= self.limit
        measured = self.to_floor if self.to_shape is None else self.to_shape
        return None if self.target is None else measured <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return the row for `--json`."""
        return {**asdict(self), "reached": self.reached}


def measure(
    name: str,
    thing: Prepare,
    *,
    plain: Prepare | None = None,
    floor: tuple[str, Callable[[], object]] | None = None,
    target: float | None,
    runs: int,
    rounds: int,
    pair: int,
) -> Measured:
    """Measure a thing, less its plain view, together with its floor and its shape."""
    thing()()  # whatever is made once is made
    shape = shapes.of(thing())
    if plain is not None:
        shape = shapes.without(shape, shapes.of(plain()))
    imitation = shapes.replay(shape, pair)
    together: dict[str, Prepare] = {"thing": thing, "shape": lambda: imitation}
    if plain is not None:
        together["plain"] = plain
    if floor is not None:
        together["floor"] = lambda: floor[1]
    found = [_run(together, rounds) for _ in range(runs)]
    added = [one["thing"] - one.get("plain", 0.0) for one in found]
    floors = [one["floor" if floor else "plain"] for one in found]
    over = added if floor else [one["thing"] for one in found]
    ratios = [mine / one["shape"] for mine, one in zip(added, found, strict=True)]
    return Measured(
        name=name,
        shape=shape,
        statements=shapes.statements(shape),
        p50=median(one["thing"] for one in found),
        added=median(added),
        floor_name=floor[0] if floor else "plain view",
        floor=median(floors),
        to_floor=median(a / b for a, b in zip(over, floors, strict=True)),
        to_shape=median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        target=target,
    )


def _run(together: dict[str, Prepare], rounds: int) -> dict[str, float]:
    """Return the medians of one run, the tables emptied every `BATCH` rounds."""
    batches = []
    for _ in range(max(1, rounds // BATCH)):
        scenes.forget()
        batches.append(interleaved(together, min(rounds, BATCH)))
    return {name: median(batch[name] for batch in batches) for name in together}


def measure_pairs(
    name: str, thing: Prepare, plain: Prepare, *, target: float | None, runs: int, pairs: int
) -> Measured:
    """Measure a method that is not gated against the plain view, call by call."""
    shape = shapes.without(shapes.of(thing()), shapes.of(plain()))
    together = {"thing": thing, "plain": plain}
    interleaved(together, 200)
    found = [interleaved(together, max(1, pairs // runs)) for _ in range(runs)]
    ratios = [one["thing"] / one["plain"] for one in found]
    return Measured(
        name=name,
        shape=shape,
        statements=shapes.statements(shape),
        p50=median(one["thing"] for one in found),
        added=median(one["thing"] - one["plain"] for one in found),
        floor_name="plain view",
        floor=median(one["plain"] for one in found),
        to_floor=median(ratios),
        to_shape=None,
        lowest=min(ratios),
        highest=max(ratios),
        target=target,
    )


def all_rows(*, runs: int, rounds: int, pairs: int, target: float) -> list[Measured]:
    """Measure everything on the database at hand; `target` is the ratio to the shape to reach."""
    scene = scenes.Scenes()
    of = partial(measure, runs=runs, rounds=rounds, pair=scene.pair.pk)
    ungated = partial(measure_pairs, runs=runs, pairs=pairs)
    insert = ("one INSERT", shapes.replay("I", scene.pair.pk))
    decide = ("lock, read, update", shapes.replay("[LU]", scene.pair.pk))
    plain = scene.plain
    found = [
        ungated("un-gated method", scene.ungated, scene.plain_read, target=1.05),
        ungated("un-gated, view alone", scene.ungated_alone, scene.plain_alone, target=None),
        of("opening", scene.opening, plain=plain, floor=insert, target=target),
        of("repeating, pending", scene.repeating, plain=plain, target=None),
        of(
            "repeating, with object",
            scene.repeating_object,
            plain=scene.plain_object,
            target=None,
        ),
        of("deciding, quorum 1", scene.deciding, floor=decide, target=target),
        of("an approved call", scene.approved, plain=plain, target=target),
        of(
            "opening, CONN_MAX_AGE=0",
            lambda: scene.reconnecting(scene.opening),
            plain=lambda: scene.reconnecting(scene.plain),
            floor=insert,
            target=None,
        ),
    ]
    scenes.add_deciders(1000)
    return [
        *found,
        of("opening, 1,000 deciders", scene.opening, plain=plain, floor=insert, target=None),
    ]
