"""Every action label that may be held, for whoever has to name one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from jit_approval import policy_changes, routes
from jit_approval.inventory.gates import Gate, Status, guarded


@dataclass(frozen=True)
class Known:
    """One action: the methods it is called by, and the gates that stand before it."""

    methods: tuple[str, ...]
    gates: frozenset[Gate]
    # None of its methods is held: it only reads, or nobody has put a gate there.
    is_open: bool

    @property
    def is_by_policy(self) -> bool:
        """Whether it runs where no policy applies."""
        return self.gates == {Gate.BY_POLICY}


def known() -> dict[str, Known]:
    """Return every action of ROOT_URLCONF by its label, in order, and that of changes of policies."""
    found = {policy_changes.ACTION: _change_of_policies()}
    for route in routes.all_routes():
        for one in guarded(route):
            if not one.action:
                continue
            had = found.get(one.action, Known((), frozenset(), True))
            found[one.action] = Known(
                tuple(dict.fromkeys([*had.methods, one.method])),
                had.gates | {one.gate},
                had.is_open and one.status in (Status.UNGATED, Status.READS),
            )
    return dict(sorted(found.items()))


def _change_of_policies() -> Known:
    """Return the action that has no route: pages of the admin and a command take its place."""
    is_open = not policy_changes.is_gated()
    gate = Gate.NONE if is_open else Gate.ALWAYS
    return Known(("CHANGE",), frozenset({gate}), is_open)


def similar(action: str, labels: Iterable[str]) -> list[str]:
    """Return the labels that may have been meant, the likeliest first."""
    known_labels = list(labels)
    close = get_close_matches(action, known_labels, n=5, cutoff=0.6)
    word = action.partition(".")[0]
    beside = [label for label in known_labels if label.partition(".")[0] == word]
    return list(dict.fromkeys([*close, *beside]))[:5]
