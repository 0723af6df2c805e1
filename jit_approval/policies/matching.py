"""Which policy a call falls under, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import connections, models

from jit_approval import conditions, prepared
from jit_approval.calls import Terms
from jit_approval.models import ApprovalPolicy, EscalationStep, PolicyGroupRequirement
from jit_approval.models.policy import matcher
from jit_approval.policies.persons import database
from jit_approval.policies.terms import strictness, terms, tightened
from jit_approval.states import Effect

Facts = Callable[[], Mapping[str, Any]]
"""What conditions are asked about; called only when there is a condition to ask."""


@dataclass(frozen=True)
class Trouble:
    """A policy whose condition could not be evaluated, and why."""

    policy: ApprovalPolicy
    error: str


@dataclass(frozen=True)
class Considered:
    """What one policy came to. `verdict` is a word for programs, `why` a sentence for people."""

    policy: ApprovalPolicy
    verdict: str
    why: str


@dataclass(frozen=True)
class Match:
    """The policy a call falls under, if any, and what was met on the way to it."""

    policy: ApprovalPolicy | None = None
    # Others that may apply as well, for a condition failed. None: the terms of the settings.
    beside: tuple[ApprovalPolicy | None, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    # Shadow policies that would have matched; one whose condition failed is among the troubles too.
    observed: tuple[ApprovalPolicy, ...] = ()
    considered: tuple[Considered, ...] = ()

    @property
    def effect(self) -> str:
        """What is to be done; without a policy, the gate's own default."""
        return Effect.REQUIRE if self.policy is None else self.policy.effect


def _extras(alias: str) -> tuple[prepared.Extra, ...]:
    quote = connections[alias].ops.quote_name
    policies = quote(ApprovalPolicy._meta.db_table)

    def has(model: Any) -> str:
        table = quote(model._meta.db_table)
        return (
            f"CASE WHEN EXISTS (SELECT 1 FROM {table} g "  # noqa: S608 - names alone
            f"WHERE g.policy_id = {policies}.{quote('id')}) THEN 1 ELSE 0 END"
        )

    return (
        ("has_groups", has(PolicyGroupRequirement), models.IntegerField()),
        ("has_steps", has(EscalationStep), models.IntegerField()),
    )


_POLICIES = prepared.Select(ApprovalPolicy, extras=_extras, without=("description", "fallback"))


_IN_ORDER = "ORDER BY priority, id"
# Up to so many policies are read whole, in one query; of more, first their globs.
_FEW = 50


class _Seen:
    """How many policies were in force when last asked: a guess at the cheaper way, never at the answer."""

    count = 0


def named(action: str) -> list[ApprovalPolicy]:
    """Return the enabled policies that name the action, in the order they are asked.

    One query; where policies are many and some name the action, two. Nothing is kept between calls, so that a
    policy is in force with the commit that made it.
    """
    if _Seen.count > _FEW:
        keys = _keys_of_named(action)
        return _whole(action, _only(keys), tuple(keys)) if keys else []
    return _whole(action)


def _whole(
    action: str, guards: tuple[str, ...] = (), params: tuple[Any, ...] = ()
) -> list[ApprovalPolicy]:
    where = {"enabled": True}
    rows = _POLICIES.rows(
        using=database(), where=where, guards=guards, params=params, tail=_IN_ORDER
    )
    if not guards:
        _Seen.count = len(rows)
    return [policy for policy in rows if policy.names(action)]


def _only(keys: list[int]) -> tuple[str, ...]:
    return (f"id IN ({', '.join(['%s'] * len(keys))})",)


def _keys_of_named(action: str) -> list[int]:
    connection = connections[database()]
    table = connection.ops.quote_name(ApprovalPolicy._meta.db_table)
    enabled = "TRUE" if connection.vendor == "postgresql" else "1"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, actions FROM {table} WHERE enabled = {enabled}")  # noqa: S608
        rows = cursor.fetchall()
    _Seen.count = len(rows)
    return [key for key, actions in rows if matcher(actions)(action)]


def match(action: str, facts: Facts = dict, *, or_default: bool = True) -> Match:
    """Return what an action falls under; see `choose`. One query."""
    return choose(named(action), facts, or_default=or_default)


def choose(candidates: Iterable[ApprovalPolicy], facts: Facts, *, or_default: bool) -> Match:
    """Return the first of the candidates, in order, whose condition holds.

    A condition that fails never lowers the bar: the strictest of the policies that failed before the first
    clean match, and of that match, is the one. `allow` that fails does not match. Where nothing matches
    cleanly, `or_default` lets the terms of the settings take part too.
    """
    troubles: list[Trouble] = []
    observed: list[ApprovalPolicy] = []
    failed: list[ApprovalPolicy | None] = []
    clean: list[ApprovalPolicy | None] = []
    for policy in candidates:
        if clean and policy.effect != Effect.OBSERVE:
            continue
        holds, error = _ask(policy, facts)
        if error:
            troubles.append(Trouble(policy, error))
        if policy.effect == Effect.OBSERVE:
            observed += [policy] if holds or error else []
        elif error:
            failed += [policy] if policy.effect != Effect.ALLOW else []
        elif holds:
            clean.append(policy)
    options = [*failed, *(clean or ([None] if or_default else []))]
    chosen = options[0] if len(options) == 1 else max(options, key=strictness, default=None)
    beside = tuple(option for option in options if option is not chosen)
    return Match(chosen, beside, tuple(troubles), tuple(observed))


def terms_of(found: Match) -> Terms:
    """Return the terms of a match: its policy's, and nothing looser than those that may apply as well."""
    held = terms(found.policy)
    for other in found.beside:
        if other is None or other.effect == Effect.REQUIRE:
            held = tightened(held, terms(other))
    return held


def _ask(policy: ApprovalPolicy, facts: Facts) -> tuple[bool, str]:
    """Return whether the condition holds, or why that is not known."""
    if not policy.condition.strip():
        return True, ""
    try:
        return conditions.evaluate(policy.condition, facts()), ""
    except conditions.ConditionFailed as error:
        return False, str(error)


def explain(
    action: str, facts: Facts = dict, *, or_default: bool = True, without: Collection[str] = ()
) -> Match:
    """Return the match, with what every policy came to: those out of force and of other actions too.

    Policies of an effect in `without` take no part.
    """
    rows = _POLICIES.rows(using=database(), where={}, tail="ORDER BY priority, id")
    out = [_out_of_question(policy, action, without) for policy in rows]
    asked = [policy for policy, reason in zip(rows, out, strict=True) if reason is None]
    found = choose(asked, facts, or_default=or_default)
    considered = tuple(
        Considered(policy, *(reason or _asked(policy, facts, found)))
        for policy, reason in zip(rows, out, strict=True)
    )
    return replace(found, considered=considered)


def _out_of_question(
    policy: ApprovalPolicy, action: str, without: Collection[str]
) -> tuple[str, str] | None:
    if policy.archived:
        return "archived", "It is archived."
    if not policy.enabled:
        return "disabled", "It is disabled."
    if not policy.names(action):
        return "other_action", f"Its globs do not name {action}."
    if policy.effect in without:
        return "left_out", f"No policy with the effect {policy.effect} is asked about {action}."
    return None


def _asked(policy: ApprovalPolicy, facts: Facts, found: Match) -> tuple[str, str]:
    if found.policy is not None and policy.pk == found.policy.pk:
        failed = [each.error for each in found.troubles if each.policy.pk == policy.pk]
        why = f"It applies, for its condition failed: {failed[0]}" if failed else "It applies."
        return "matches", why
    holds, error = _ask(policy, facts)
    if error:
        return "condition_failed", f"Its condition failed: {error}"
    if not holds:
        return "condition_false", "Its condition does not hold."
    if policy.effect == Effect.OBSERVE:
        return "observes", "It only observes."
    return "later", "Another one comes first, or is stricter."
