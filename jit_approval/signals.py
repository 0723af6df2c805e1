"""Sent after a transition has been committed, never inside its transaction. Receivers cannot undo it.

Each carries `approval_request`; the sender is the `ApprovalRequest` class. A receiver that raises is logged.
"""

from __future__ import annotations

from django.dispatch import Signal

request_opened = Signal()
request_escalated = Signal()
request_approved = Signal()
request_rejected = Signal()
request_cancelled = Signal()
request_revoked = Signal()
request_expired = Signal()
request_consumed = Signal()
outcome_recorded = Signal()
