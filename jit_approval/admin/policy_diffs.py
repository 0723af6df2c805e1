"""What a held change of policies would make of them, field by field, for who decides it."""

from __future__ import annotations

from dataclasses import dataclass

from jit_approval import policies, policy_changes
from jit_approval.admin import deadline, diffs
from jit_approval.models import ApprovalRequest, PolicyChange


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
    moved = policy_changes.moved(change) if deadline.left(row) is not None else []
    return [
        PolicyDiff(
            slug=slug,
            is_new=change.base.get(slug) is None,
            is_deleted=wanted is None,
            moved=slug in moved,
            changes=diffs.between(change.base.get(slug), wanted),
        )
        for slug, wanted in sorted(change.proposed.items())
    ]
