"""The rows that are the truth: tasks and messages only carry their keys."""

from jit_approval.models.callback import Callback
from jit_approval.models.channel import Channel, PreferredChannel
from jit_approval.models.delegation import Delegation
from jit_approval.models.escalation import EscalatedDecider, EscalationStep
from jit_approval.models.execution import StoredAnswer, StoredCall
from jit_approval.models.heartbeat import Heartbeat
from jit_approval.models.policy import (
    ApprovalPolicy,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)
from jit_approval.models.request import ApprovalRequest
from jit_approval.models.sealing import Checkpoint, Seal, TrailTask, TreeHead, Verification
from jit_approval.models.trail import AuditEvent, Decision, Notification
from jit_approval.models.version import PolicyChange, PolicyVersion

__all__ = [
    "ApprovalPolicy",
    "ApprovalRequest",
    "AuditEvent",
    "Callback",
    "Channel",
    "Checkpoint",
    "Decision",
    "Delegation",
    "EscalatedDecider",
    "EscalationStep",
    "Heartbeat",
    "Notification",
    "PolicyChange",
    "PolicyGroupPermission",
    "PolicyGroupRequirement",
    "PolicyUserPermission",
    "PolicyVersion",
    "PreferredChannel",
    "Seal",
    "StoredAnswer",
    "StoredCall",
    "TrailTask",
    "TreeHead",
    "Verification",
]
