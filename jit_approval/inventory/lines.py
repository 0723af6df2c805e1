"""One line of the inventory, and the route it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from jit_approval.inventory import rules
from jit_approval.inventory.gates import Gate, Status
from jit_approval.inventory.kinds import Kind


@dataclass(frozen=True)
class Line:
    """One method of a route, with the policies that name it. `otherwise` is what happens if none applies."""

    method: str
    action: str
    gate: Gate
    status: Status
    why: str
    naming: rules.Naming
    otherwise: str = ""  # "settings" or "passes"; empty where a policy is sure to apply
    deciders: str = ""
    allowed: int | None = None  # line of the allow-list

    @property
    def fails(self) -> bool:
        """Whether `--fail-ungated` minds it: no gate, or none that can be told, and not allowed."""
        return self.status in (Status.UNGATED, Status.CANNOT_TELL) and self.allowed is None


@dataclass(frozen=True)
class Listed:
    """One route that can write. `also` are its `.format` variants; `models` those it is known to work on."""

    path: str
    view: str
    kind: Kind
    lines: tuple[Line, ...]
    models: frozenset[str] = frozenset()
    also: tuple[str, ...] = ()
    # Actions of its reading methods, for which nothing is held.
    reads: tuple[str, ...] = ()
