"""The versions of a policy: one for each change, with who made it, when and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import F

from jit_approval import clock, prepared
from jit_approval.audit import chain
from jit_approval.calls import Origin
from jit_approval.models import ApprovalPolicy, PolicyVersion
from jit_approval.policies.persons import database, person_of
from jit_approval.policies.versions.snapshots import (
    Snapshot,
    differences,
    snapshot,
    snapshots_by_slug,
)


@dataclass
class _Author:
    """Who changes policies in the block, why, and which they touched."""

    by: Any
    reason: str
    label: str = ""
    origin: Origin | None = None
    touched: set[Any] = field(default_factory=set)


_author: ContextVar[_Author | None] = ContextVar("jit_approval_policy_author", default=None)


@contextmanager
def authored(
    by: Any, reason: str = "", *, label: str = "", origin: Origin | None = None
) -> Iterator[None]:
    """Record what the block does to policies as one version each, with who and why.

    `label`: where the change came from, if nobody is said to have made it. The block and its versions are one
    transaction.
    """
    with transaction.atomic(using=database()):
        author = _Author(by, reason, label, origin)
        token = _author.set(author)
        try:
            yield
        finally:
            _author.reset(token)
        for key in sorted(author.touched):
            _record(key, author)


_going: ContextVar[frozenset[Any]] = ContextVar("jit_approval_policies_going", default=frozenset())


def touched(policy_id: Any) -> None:
    """Note that a policy, or who may decide under it, was changed; past the admin and the command too."""
    author = _author.get()
    if policy_id in _going.get():
        return  # its permissions go with it
    if author is not None:
        author.touched.add(policy_id)
    else:
        _record(policy_id, _Author(None, ""))


def _record(policy_id: Any, author: _Author) -> None:
    """Write the next version, if the policy does not say what it said."""
    alias = database()
    with transaction.atomic(using=alias):
        rows = ApprovalPolicy.objects.using(alias).select_for_update()
        policy = rows.filter(pk=policy_id).first()
        if policy is None:
            return
        now, newest = snapshot(policy), _newest(policy)
        if newest is not None and not differences(newest.data, now):
            return
        number = (newest.number if newest else policy.version) + 1
        at = clock.now(alias)
        PolicyVersion.objects.using(alias).create(
            policy=policy,
            slug=policy.slug,
            number=number,
            at=at,
            author=author.by,
            author_label=str(author.by.get_username()) if author.by is not None else author.label,
            reason=author.reason,
            data=now,
        )
        ApprovalPolicy.objects.using(alias).filter(pk=policy.pk).update(version=number)
        _write("policy_changed", newest.data if newest else None, now, number, author, at)


def _newest(policy: ApprovalPolicy) -> PolicyVersion | None:
    return PolicyVersion.objects.using(database()).filter(policy=policy).order_by("-number").first()


def changed_past(policies: Iterable[ApprovalPolicy]) -> set[Any]:
    """Return the keys of policies that do not say what their newest version says. A few queries.

    Changed by `update()`, a fixture or SQL; or a user or group named in them was renamed.
    """
    rows = list(policies)
    newest = PolicyVersion.objects.using(database()).filter(
        policy__in=[row.pk for row in rows], number=F("policy__version")
    )
    recorded = dict(newest.values_list("policy_id", "data"))
    now = snapshots_by_slug(rows)
    return {row.pk for row in rows if differences(recorded.get(row.pk), now[row.slug])}


def deleted(policy: ApprovalPolicy) -> None:
    """Write that a policy is about to be deleted: its last words."""
    _going.set(_going.get() | {policy.pk})
    author = _author.get() or _Author(None, "")
    at = clock.now(database())
    _write("policy_deleted", snapshot(policy), None, policy.version, author, at)


def gone(policy_id: Any) -> None:
    """Forget about a policy whose deletion has ended."""
    _going.set(_going.get() - {policy_id})


def _write(
    kind: str,
    before: Snapshot | None,
    after: Snapshot | None,
    number: int,
    author: _Author,
    at: Any,
) -> None:
    said = after or before or {}
    data = {
        "policy": said.get("slug", ""),
        "version": number,
        "reason": author.reason,
        "changes": [
            {"field": each.field, "before": each.before, "after": each.after}
            for each in differences(before, after)
        ],
    }
    label = "" if author.by is not None else author.label or "past the admin and the command"
    origin = author.origin
    if author.by is not None:
        origin = (origin or Origin()).of(person_of(author.by))
    event = chain.single_event(kind, at=at, by=author.by, label=label, data=data, origin=origin)
    prepared.insert(event, using=database())
