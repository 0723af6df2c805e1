"""The policies of a file made those of the database: all of them, or none."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.core.exceptions import ValidationError

from jit_approval.models import ApprovalPolicy
from jit_approval.policies import versions
from jit_approval.policies.persons import database
from jit_approval.policies.versions import Snapshot
from jit_approval.portable import checking, doubts
from jit_approval.portable.problems import FileRefused
from jit_approval.portable.reading import PolicyFile


@dataclass
class Made:
    """What became of it. `left` are policies that are not in the file and were left alone, by slug."""

    before: dict[str, Snapshot] = field(default_factory=dict)
    after: dict[str, Snapshot] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def slugs(self) -> list[str]:
        """The policies that are not what they were."""
        return [
            slug
            for slug in sorted(self.before.keys() | self.after.keys())
            if self.before.get(slug) != self.after.get(slug)
        ]


def make(file: PolicyFile, *, prune: bool = False) -> Made:
    """Make every policy of the file say what the file says; to be called in a transaction.

    `prune`: those that are not in it are archived where they have requests, and deleted where not.

    Raises:
        FileRefused: with everything that is wrong; nothing was written.
    """
    alias = database()
    # Two files applied at once, each half, would be a third that nobody wrote.
    rows = list(ApprovalPolicy.objects.using(alias).select_for_update().order_by("pk"))
    made = Made(before=versions.snapshots())
    found = checking.problems(file, made.before)
    if prune and not file.snapshots:
        found.append(file.problem("names no policy at all: --prune would leave none"))
    if found:
        raise FileRefused(found)
    # In the order they are asked in: among those of one priority the older one comes first.
    for said in sorted(file.snapshots.values(), key=lambda said: (said["priority"], said["slug"])):
        if made.before.get(said["slug"]) != said:
            _restore(file, said)
    others = [row for row in rows if row.slug not in file.snapshots and not row.archived]
    if prune:
        for row in others:
            _remove(row)
    else:
        made.left = sorted(row.slug for row in others)
    made.after = versions.snapshots()
    made.warnings = doubts.about(file.snapshots)
    return made


def _restore(file: PolicyFile, said: Snapshot) -> None:
    try:
        versions.restore(said)
    except ValidationError as error:
        raise FileRefused(
            file.problem(message, said["slug"]) for message in error.messages
        ) from None


def _remove(policy: ApprovalPolicy) -> None:
    if policy.approval_requests.exists():
        policy.archived, policy.enabled = True, False
        policy.save(using=database())
    else:
        policy.delete(using=database())
