"""What a held change of policies would make of them, field by field, for who decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jit_approval import policies, policy_changes
from jit_approval.admin import deadline, diffs
from jit_approval.models import ApprovalPolicy, ApprovalRequest, PolicyChange, PolicyVersion


@dataclass(frozen=True)
class PolicyDiff:
    """What becomes of one policy. `moved`: it has changed since, so an approval will be void."""

    slug: str
    is_new: bool
    is_deleted: bool
    moved: bool
    changes: list[diffs.Change]


def of(row: ApprovalRequest) -> list[PolicyDiff]:
    """Return the differences of a held change, from what the approval is bound to; of other calls none."""
    if row.action != policy_changes.ACTION:
        return []
    alias = policies.database()
    change = PolicyChange.objects.using(alias).filter(approval_request=row).first()
    if change is None:
        return []
    found = ApprovalPolicy.objects.using(alias).filter(slug__in=list(change.proposed))
    current = dict(found.values_list("slug", "version"))
    is_open = deadline.left(row) is not None
    return [
        PolicyDiff(
            slug=slug,
            is_new=not change.base.get(slug),
            is_deleted=wanted is None,
            moved=is_open and current.get(slug, 0) != change.base.get(slug, 0),
            changes=diffs.between(_as_it_was(slug, change.base.get(slug, 0)), wanted),
        )
        for slug, wanted in sorted(change.proposed.items())
    ]


def _as_it_was(slug: str, number: int) -> dict[str, Any] | None:
    rows = PolicyVersion.objects.using(policies.database()).filter(slug=slug, number=number)
    newest = rows.order_by("-pk").first()
    return newest.data if newest is not None else None
