"""The keys of a policy in a file, in the order they are written in."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from jit_approval.models import ApprovalPolicy
from jit_approval.policies import durations, rungs
from jit_approval.policies.versions import Snapshot


class Kind(StrEnum):
    """What a value looks like."""

    PROSE = "a text"  # for people; nothing depends on it
    TEXT = "a text, in quotes"
    FLAG = "true or false"
    NUMBER = "a whole number"
    DURATION = 'a duration in quotes, such as "90s", "15m", "1h30m" or "7d"'
    MOMENT = 'a time or a share of decide_within, in quotes: "10m" or "50%"'
    LINES = 'a list of texts: ["one", "two"]'
    STEPS = 'a list of steps: [{ after = "50%", groups = ["managers"], may_decide = true }]'
    CHANNELS = 'a list of slugs: ["ops", "pager"]'
    COUNTS = "a table of groups and numbers: { security = 2 }"
    HOLDERS = 'a table of users and groups: { users = ["ada"], groups = ["security"] }'
    PERMISSIONS = 'a table: { view_approvalpolicy = { groups = ["audit"] } }'


KEYS = {
    "name": Kind.PROSE,
    "description": Kind.PROSE,
    "archived": Kind.FLAG,
    "enabled": Kind.FLAG,
    "priority": Kind.NUMBER,
    "actions": Kind.LINES,
    "effect": Kind.TEXT,
    "condition": Kind.TEXT,
    "severity": Kind.TEXT,
    "execution": Kind.TEXT,
    "required_approvals": Kind.NUMBER,
    "groups_required": Kind.COUNTS,
    "deciders": Kind.HOLDERS,
    "permissions": Kind.PERMISSIONS,
    "object_permission": Kind.TEXT,
    "decide_within": Kind.DURATION,
    "usable_within": Kind.DURATION,
    "rejection_cooldown": Kind.DURATION,
    "max_wait": Kind.DURATION,
    "require_reason": Kind.FLAG,
    "reason_pattern": Kind.TEXT,
    "require_approval_id": Kind.FLAG,
    "fallback": Kind.LINES,
    "channels": Kind.CHANNELS,
    "steps": Kind.STEPS,
}
STEP_KEYS = {
    "after": Kind.MOMENT,
    "deciders": Kind.FLAG,
    "users": Kind.HOLDERS,
    "groups": Kind.HOLDERS,
    "addresses": Kind.LINES,
    "channels": Kind.CHANNELS,
    "may_decide": Kind.FLAG,
}
REQUIRED = ("name", "actions")
HOLDERS = ("users", "groups")
DECIDE = "decide"
# Those that are the policy's own, under the same name.
FIELDS = tuple(
    key
    for key, kind in KEYS.items()
    if kind not in {Kind.CHANNELS, Kind.STEPS, Kind.COUNTS, Kind.HOLDERS, Kind.PERMISSIONS}
)


def defaults(slug: str) -> Snapshot:
    """Return the snapshot of a policy of which nothing but the slug was written."""
    row = ApprovalPolicy(slug=slug)
    made: Snapshot = {
        "slug": slug,
        "channels": [],
        "steps": [],
        "group_requirements": {},
        "users": {},
        "groups": {},
    }
    for key in FIELDS:
        value = getattr(row, key)
        if KEYS[key] is Kind.LINES:
            value = []
        elif KEYS[key] is Kind.DURATION:
            value = durations.as_text(value)
        made[key] = str(value) if isinstance(value, str) else value
    return made


def flat(said: Snapshot) -> dict[str, Any]:
    """Return what a snapshot says under the names of the file, dots between them, in the order of the file."""
    found: dict[str, Any] = {}
    for key, kind in KEYS.items():
        if kind is Kind.COUNTS:
            counts = said["group_requirements"]
            found |= {f"{key}.{name}": counts[name] for name in sorted(counts)}
        elif kind is Kind.HOLDERS:
            found |= _holders(key, said, DECIDE)
        elif kind is Kind.STEPS:
            found[key] = [rungs.as_text(step) for step in said[key]]
        elif kind is Kind.PERMISSIONS:
            for codename in sorted({*said["users"], *said["groups"]} - {DECIDE}):
                found |= _holders(f"{key}.{codename}", said, codename)
        else:
            found[key] = said[key]
    return found


def _holders(key: str, said: Snapshot, codename: str) -> dict[str, list[str]]:
    return {
        f"{key}.{holder}": said[holder][codename]
        for holder in HOLDERS
        if said[holder].get(codename)
    }
