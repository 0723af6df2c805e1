"""What policies say, and said: as plain data that is compared, kept, written down and put back."""

from jit_approval.policies.versions.history import (
    authored,
    changed_past,
    deleted,
    gone,
    touched,
)
from jit_approval.policies.versions.restoring import restore
from jit_approval.policies.versions.snapshots import (
    EXACT,
    Difference,
    Snapshot,
    differences,
    snapshot,
    snapshots,
    snapshots_of,
)

__all__ = [
    "EXACT",
    "Difference",
    "Snapshot",
    "authored",
    "changed_past",
    "deleted",
    "differences",
    "gone",
    "restore",
    "snapshot",
    "snapshots",
    "snapshots_of",
    "touched",
]
