"""One API call as plain data: what is bound, what is shown, who stands behind it. No HTTP objects here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any


@dataclass(frozen=True)
class Bound:
    """Digests that tie an approval to one call. All hex, all keyed (see `fingerprint`)."""

    fingerprint: str
    parts: Mapping[str, str]
    state_digest: str
    state_parts: Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """What the decider sees: escaped, redacted, capped. Never what is executed."""

    method: str
    path: str
    object_label: str = ""
    object_model: str = ""
    object_pk: str = ""
    payload: str = ""
    payload_truncated: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    ip: str = ""
    user_agent: str = ""
    # Who acts for the requester: as the call claims, or as its credential proves.
    agent: str = ""
    agent_proven: bool = False


@dataclass(frozen=True)
class Call:
    """A live call that somebody wants to make now."""

    action: str
    requester: Any
    persons: tuple[str, ...]
    credential: str
    bound: Bound
    shown: Shown
    idempotent: bool = False
    # What conditions are asked about; see `facts`.
    facts: Callable[[], Mapping[str, Any]] = field(default=dict, compare=False)


@dataclass(frozen=True)
class Origin:
    """Where a person's act came from, for the record alone: nothing is decided by it."""

    credential: str = ""
    ip: str = ""
    user_agent: str = ""
    # Filled in by the service, which knows it.
    person: str = ""

    def of(self, person: str) -> Origin:
        """Return it as that of a person's act."""
        return replace(self, person=person)


COMMAND = Origin(credential="command")
"""The origin of what a management command did: it has no address."""


@dataclass(frozen=True)
class Step:
    """One rung of a ladder: when silence has lasted so long, whom to tell, and whether they may decide then.

    `after` the call was held, or after a `share` (percent) of the time to decide: one of the two.
    """

    after: timedelta | None = None
    share: int | None = None
    # Those who may decide already, once more.
    deciders: bool = False
    # (key, name) of each: a user's key as text, a group's as a number.
    users: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[int, str], ...] = ()
    addresses: tuple[str, ...] = ()
    # Slugs.
    channels: tuple[str, ...] = ()
    # The users and the members of the groups may decide from then on.
    may_decide: bool = False

    def moment(self, window: timedelta) -> timedelta:
        """Return how long after the call was held, of which `window` is the time to decide."""
        return self.after if self.after is not None else window * (self.share or 0) / 100


@dataclass(frozen=True)
class Terms:
    """On what terms a call is held: from a policy, or from the settings when none matches."""

    policy_id: int | None
    policy_slug: str
    policy_version: int
    required_approvals: int
    decide_within: timedelta
    usable_within: timedelta
    rejection_cooldown: timedelta
    # How long the caller may wait on the line; the setting caps it.
    max_wait: timedelta = timedelta(0)
    require_reason: bool = False
    reason_pattern: str = ""
    require_approval_id: bool = False
    severity: str = "normal"
    execution: str = "caller"
    # (key, name, count) of each group that must be represented.
    group_requirements: tuple[tuple[int, str, int], ...] = ()
    # The permission whose holders on the object itself may decide too: its key, the model it is for, its name.
    object_permission: int | None = None
    object_permission_model: str = ""
    object_permission_label: str = ""
    # The ladder, in order of its moments only once it is pinned: see `policies.ladder`.
    steps: tuple[Step, ...] = ()
