"""The Django admin: the approvers' inbox and decision page, the policies, delegations, the trail."""

from jit_approval.admin.delegation import DelegationAdmin
from jit_approval.admin.inbox import ApprovalRequestAdmin
from jit_approval.admin.policy import ApprovalPolicyAdmin
from jit_approval.admin.trail import AuditEventAdmin, DecisionAdmin, NotificationAdmin

__all__ = [
    "ApprovalPolicyAdmin",
    "ApprovalRequestAdmin",
    "AuditEventAdmin",
    "DecisionAdmin",
    "DelegationAdmin",
    "NotificationAdmin",
]
