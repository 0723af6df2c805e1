"""What is fetched as a file."""

from __future__ import annotations

from django.http import HttpResponse

from jit_approval.audit import issuing, receipts
from jit_approval.models import ApprovalRequest


def receipt_file(approval_request: ApprovalRequest) -> HttpResponse:
    """Return the receipt of a call that ran, to be saved.

    Raises:
        NoReceiptNow: there is none.
    """
    text = receipts.as_text(issuing.receipt(approval_request))
    headers = {
        "Content-Disposition": f'attachment; filename="receipt-{approval_request.pk}.json"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return HttpResponse(text.encode(), content_type="application/json", headers=headers)
