"""The Django admin: the approvers' inbox and decision page, the policies, delegations, channels, the trail."""

from jit_approval.admin.channel import ChannelAdmin
from jit_approval.admin.delegation import DelegationAdmin
from jit_approval.admin.heartbeat import HeartbeatAdmin
from jit_approval.admin.inbox import ApprovalRequestAdmin
from jit_approval.admin.notification import NotificationAdmin
from jit_approval.admin.policy import ApprovalPolicyAdmin
from jit_approval.admin.trail import AuditEventAdmin, DecisionAdmin

__all__ = [
    "ApprovalPolicyAdmin",
    "ApprovalRequestAdmin",
    "AuditEventAdmin",
    "ChannelAdmin",
    "DecisionAdmin",
    "DelegationAdmin",
    "HeartbeatAdmin",
    "NotificationAdmin",
]
