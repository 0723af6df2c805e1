"""What is fetched as a file."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from jit_approval import services
from jit_approval.audit import issuing, receipts
from jit_approval.models import ApprovalRequest, AuditEvent

READ_TRAIL = "jit_approval.view_auditevent"


def receipt_file(approval_request: ApprovalRequest, *, reader: Any) -> HttpResponse:
    """Return the receipt of a call that ran, to be saved by `reader`, who may see the request.

    It says from where the reader acted. From where others did, it says to who may read the trail, and never to whom
    the call belongs: they hand it on.

    Raises:
        NoReceiptNow: there is none.
    """
    sees_all = reader.has_perm(READ_TRAIL) and not services.stands_behind(reader, approval_request)
    own = reader.pk

    def shows(event: AuditEvent) -> bool:
        return sees_all or (own is not None and event.actor_id == own)

    text = receipts.as_text(issuing.receipt(approval_request, shows=shows))
    headers = {
        "Content-Disposition": f'attachment; filename="receipt-{approval_request.pk}.json"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return HttpResponse(text.encode(), content_type="application/json", headers=headers)
