"""The rows that are the truth: tasks and messages only carry their keys."""

from jit_approval.models.policy import (
    ApprovalPolicy,
    PolicyGroupPermission,
    PolicyUserPermission,
)
from jit_approval.models.request import ApprovalRequest
from jit_approval.models.trail import AuditEvent, Decision, Notification

__all__ = [
    "ApprovalPolicy",
    "ApprovalRequest",
    "AuditEvent",
    "Decision",
    "Notification",
    "PolicyGroupPermission",
    "PolicyUserPermission",
]
