"""Where a request, its answer and its receipt are read, and how moments are written: of what goes over the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from django.urls import NoReverseMatch, reverse

from jit_approval import waiting
from jit_approval.audit import issuing
from jit_approval.models import ApprovalRequest


def status_url(approval_request: ApprovalRequest | waiting.Held) -> str | None:
    """Return where the request can be read; None where the project does not include our urls."""
    try:
        return reverse("jit_approval:request-detail", args=[approval_request.pk])
    except NoReverseMatch:
        return None


def receipt_url(approval_request: ApprovalRequest) -> str | None:
    """Return where the receipt of a call that ran is fetched; None without our urls, or while there is none."""
    if issuing.has_not_ended(approval_request) is not None:
        return None
    try:
        return reverse("jit_approval:request-receipt", args=[approval_request.pk])
    except NoReverseMatch:
        return None


def result_url(approval_request: ApprovalRequest) -> str | None:
    """Return where the answer to a call that the server ran is fetched; None without our urls."""
    try:
        return reverse("jit_approval:request-result", args=[approval_request.pk])
    except NoReverseMatch:
        return None


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with `Z`, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
