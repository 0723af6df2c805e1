"""`SEAL_BEFORE_EXECUTE`: a call of the highest severity runs only once all that led to it is signed."""

from __future__ import annotations

import logging

from django.db.models import Max

from jit_approval import conf
from jit_approval.audit import export, keys, notes, places, seal
from jit_approval.exceptions import NotSealed
from jit_approval.models import ApprovalRequest, Checkpoint, Seal
from jit_approval.states import Severity

logger = logging.getLogger(__name__)


def ensure_signed(approval_request: ApprovalRequest) -> None:
    """Refuse to go on unless every event of the request until now is signed; seal at once where this process can.

    Raises:
        NotSealed: it is not. Nothing was spent; the call can be repeated.
    """
    if not conf.get().SEAL_BEFORE_EXECUTE or approval_request.severity != Severity.CRITICAL:
        return
    if _is_signed(approval_request):
        return
    try:
        seal.seal(at_once=True)
    except (
        keys.KeyUnavailable,
        notes.LibraryMissing,
        seal.SealRefused,
        export.ExportFailed,
    ) as error:
        logger.error("The trail could not be sealed for a call: %s", error)
    if not _is_signed(approval_request):
        raise NotSealed("The audit trail is not sealed; nothing ran. Repeat the call.")


def _is_signed(approval_request: ApprovalRequest) -> bool:
    alias = places.database()
    signed = Checkpoint.objects.using(alias).aggregate(size=Max("size"))["size"] or 0
    sealed = Seal.objects.using(alias).filter(
        event__approval_request=approval_request.pk, index__lt=signed
    )
    return sealed.count() == approval_request.audit_seq
