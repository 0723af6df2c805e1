"""The caller's side: an HTTP client that waits for approval and then makes the very same call. No Django here.

```python
httpx.Client(auth=ApprovalAuth(wait=600, on_pending=print))
```

`ApprovalAuth` needs httpx (extra `client`); `jit_approval.client.requests` has the same for requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jit_approval.client.errors import (
    ApprovalError,
    Cancelled,
    Consumed,
    Denied,
    Expired,
    GateUnavailable,
    Mismatch,
    NotFound,
    NotReplayable,
    ReasonRequired,
    Rejected,
    Revoked,
    Stale,
    TimedOut,
    TooManyPending,
    Unavailable,
    Unbindable,
)
from jit_approval.client.pending import Pending

if TYPE_CHECKING:
    from jit_approval.client.auth import ApprovalAuth
    from jit_approval.client.transport import ApprovalTransport, AsyncApprovalTransport

__all__ = [
    "ApprovalAuth",
    "ApprovalError",
    "ApprovalTransport",
    "AsyncApprovalTransport",
    "Cancelled",
    "Consumed",
    "Denied",
    "Expired",
    "GateUnavailable",
    "Mismatch",
    "NotFound",
    "NotReplayable",
    "Pending",
    "ReasonRequired",
    "Rejected",
    "Revoked",
    "Stale",
    "TimedOut",
    "TooManyPending",
    "Unavailable",
    "Unbindable",
]


def __getattr__(name: str) -> Any:
    """Import what needs httpx when it is first named: the errors, and requests, do without it."""
    if name == "ApprovalAuth":
        from jit_approval.client.auth import ApprovalAuth

        return ApprovalAuth
    if name in ("ApprovalTransport", "AsyncApprovalTransport"):
        from jit_approval.client import transport

        return getattr(transport, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
