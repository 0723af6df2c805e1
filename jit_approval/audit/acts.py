"""Acts of erasure: who did them, and whether the approval that they name is in the trail, given and spent. Pure.

An act is an event like others: that it is signed shows that it was written, and by what account, not that somebody
agreed. Where erasing is gated, it names the approval; what is said of that here is what earlier events say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ERASED = "erased"
"""The kind of the event that says what was erased: `data.leaves`, a list of [first, beyond the last]."""

ERASURE = "jit_approval.trail.erase"
"""The action of a call that asks for an erasure."""

_GIVEN = {"approved", "consumed"}


@dataclass(frozen=True)
class Act:
    """One act, at its place. `is_approved`: the approval it names is one for an erasure, given and spent before."""

    index: int
    at: str
    by: str
    approval: str
    is_approved: bool
    leaves: tuple[tuple[int, int], ...]

    @property
    def events(self) -> int:
        """How many places it names, those before its own."""
        return sum(max(0, min(end, self.index) - max(0, begin)) for begin, end in self.leaves)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a program."""
        names = ("index", "at", "by", "approval", "is_approved", "events")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        said = f"approval {self.approval}" if self.approval else "no approval"
        if self.approval and not self.is_approved:
            said += ", which this trail does not show as given and spent"
        return f"event {self.index}, {self.at}, by {self.by or 'the system'}: {said}"


class Acts:
    """The acts of a trail, as its events are read in order."""

    def __init__(self) -> None:
        self.found: list[Act] = []
        # Of each request that asks for an erasure: what happened to it.
        self._asked: dict[str, set[str]] = {}

    def read(self, index: int, body: Any) -> None:
        """Take note of an event whose content is what its hash says; it comes from whoever wrote it."""
        request, kind, data = body["request"], body["kind"], body.get("data")
        data = data if isinstance(data, dict) else {}
        if isinstance(request, str) and isinstance(kind, str):
            if kind == "held" and data.get("action") == ERASURE:
                self._asked.setdefault(request, set())
            if request in self._asked:
                self._asked[request].add(kind)
        if kind == ERASED:
            self.found.append(self._act(index, body, data))

    def _act(self, index: int, body: Any, data: dict[str, Any]) -> Act:
        by, approval = body.get("by"), str(data.get("approval") or "")
        label = str(by.get("label", "")) if isinstance(by, dict) else ""
        is_approved = self._asked.get(approval, set()) >= _GIVEN
        return Act(index, str(body.get("at", "")), label, approval, is_approved, leaves(body))


def leaves(body: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return the places that an act of erasure names."""
    try:
        return tuple((int(begin), int(end)) for begin, end in body["data"]["leaves"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return ()
