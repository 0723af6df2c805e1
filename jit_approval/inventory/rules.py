"""Which policies name an action, in the order they are asked, and whether their deciders suffice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from jit_approval import policies, policy_changes
from jit_approval.models import ApprovalPolicy
from jit_approval.states import Effect


class Deciders(StrEnum):
    """Whether enough persons could approve a call now, whoever makes it left aside."""

    ENOUGH = "enough"
    TOO_FEW = "too_few"  # every such call is refused
    BY_OBJECT = "by_object"  # holders of a permission on the object may make up for it
    NOT_ASKED = "not_asked"  # the effect is `allow` or `deny`


@dataclass(frozen=True)
class Applied:
    """A policy that names an action; with a condition, one that may apply."""

    slug: str
    effect: str
    condition: str
    # In all: the groups that must be represented may take more than the policy's own number.
    required_approvals: int
    deciders: Deciders


@dataclass(frozen=True)
class Naming:
    """What the policies in force say of one action.

    `chain` are those that could apply, in order, up to the first without a condition; `observed` only watch.
    """

    chain: tuple[Applied, ...] = ()
    observed: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether one of them is sure to apply, so that no default is reached."""
        return bool(self.chain) and not self.chain[-1].condition


@dataclass(frozen=True)
class Idle:
    """A policy, or some of its globs, that no call can fall under; `similar` are unnamed actions like them."""

    slug: str
    globs: tuple[str, ...]
    whole: bool
    why: str  # "no_route" or "no_gate"
    similar: tuple[str, ...] = ()


class Rules:
    """The policies in force, each action and each policy's deciders looked up once."""

    def __init__(self) -> None:
        self._namings: dict[str, Naming] = {}
        self._deciders: dict[int | None, Deciders] = {}

    def of(self, action: str) -> Naming:
        """Return what the policies say of the action. One query per action, and some per policy."""
        if action not in self._namings:
            self._namings[action] = self._naming(policies.named(action)) if action else Naming()
        return self._namings[action]

    def default_deciders(self) -> Deciders:
        """Return whether deciders suffice where no policy matches and the settings' terms apply."""
        return self._deciders_of(None)

    def _naming(self, named: Iterable[ApprovalPolicy]) -> Naming:
        chain: list[Applied] = []
        observed: list[str] = []
        for policy in named:
            if policy.effect == Effect.OBSERVE:
                observed.append(policy.slug)
            elif not chain or chain[-1].condition:
                chain.append(self._applied(policy))
        return Naming(tuple(chain), tuple(observed))

    def _applied(self, policy: ApprovalPolicy) -> Applied:
        asked = policy.effect == Effect.REQUIRE
        terms = policies.terms(policy)
        return Applied(
            policy.slug,
            str(policy.effect),
            policy.condition.strip(),
            max(terms.required_approvals, sum(count for *_, count in terms.group_requirements)),
            self._deciders_of(policy) if asked else Deciders.NOT_ASKED,
        )

    def _deciders_of(self, policy: ApprovalPolicy | None) -> Deciders:
        key = None if policy is None else policy.pk
        if key not in self._deciders:
            terms = policies.terms(policy)
            if policies.quorum_is_reachable(terms):
                found = Deciders.ENOUGH
            else:
                by_object = terms.object_permission is not None
                found = Deciders.BY_OBJECT if by_object else Deciders.TOO_FEW
            self._deciders[key] = found
        return self._deciders[key]


def idle(actions: Mapping[str, bool]) -> list[Idle]:
    """Return the policies in force that no call can fall under, given every action and whether it is held."""
    known = {policy_changes.ACTION: True, **actions}
    enabled = ApprovalPolicy.objects.using(policies.database()).filter(enabled=True)
    found = (_idle(policy, known) for policy in enabled.order_by("priority", "id"))
    unnamed = _unnamed(known, enabled)
    return [
        Idle(one.slug, one.globs, one.whole, one.why, _similar(one, unnamed))
        for one in found
        if one is not None
    ]


def _idle(policy: ApprovalPolicy, known: Mapping[str, bool]) -> Idle | None:
    dead = tuple(glob for glob in policy.globs if not _fits_any(glob, known))
    if len(dead) == len(policy.globs):
        return Idle(policy.slug, dead, True, "no_route")
    if not any(held for name, held in known.items() if policy.names(name)):
        return Idle(policy.slug, tuple(policy.globs), True, "no_gate")
    return Idle(policy.slug, dead, False, "no_route") if dead else None


def _fits_any(glob: str, actions: Iterable[str]) -> bool:
    alone = ApprovalPolicy(actions=glob)
    return any(alone.names(action) for action in actions)


def _unnamed(known: Mapping[str, bool], enabled: Iterable[ApprovalPolicy]) -> list[str]:
    return [name for name in known if not any(policy.names(name) for policy in enabled)]


def _similar(one: Idle, unnamed: list[str]) -> tuple[str, ...]:
    """Return actions that a glob may have meant before something was renamed. A hint, no more."""
    if one.why != "no_route":
        return ()
    close = (get_close_matches(glob, unnamed, n=2, cutoff=0.75) for glob in one.globs)
    return tuple(dict.fromkeys(name for names in close for name in names))
