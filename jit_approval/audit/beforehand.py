"""`SEAL_BEFORE_EXECUTE`: a call of the highest severity runs only once all that led to it is signed.

Rows of the database are not believed: whoever writes there could write a seal and a checkpoint, too. The newest
checkpoint must be signed by the key of this process, and each event of the request be proven to be under it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from jit_approval import conf
from jit_approval.audit import chain, export, issuing, keys, newest, notes, places, seal, shown
from jit_approval.exceptions import NotSealed
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint
from jit_approval.states import Severity, Status

logger = logging.getLogger(__name__)


class _Doubt(Exception):
    """Why it is not known that all is signed."""


def ensure_signed(approval_request: ApprovalRequest) -> None:
    """Refuse to go on unless every event of the request until now is signed; seal at once where this process can.

    Raises:
        NotSealed: it is not, or it cannot be told. Nothing was spent; the call can be repeated.
    """
    if not conf.get().SEAL_BEFORE_EXECUTE or not _is_critical(approval_request):
        return
    if not _doubt(approval_request):
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
    if why := _doubt(approval_request):
        logger.error("The request %s does not run: %s", approval_request.pk, why)
        raise NotSealed("The audit trail is not sealed; nothing ran. Repeat the call.")


def _is_critical(row: ApprovalRequest) -> bool:
    """Tell whether the row, or the event that it was held, says so: to rewrite one of them is not enough."""
    if row.severity == Severity.CRITICAL:
        return True
    held = AuditEvent.objects.using(places.database()).filter(approval_request=row.pk, sequence=1)
    try:
        said = json.loads(held.values_list("body", flat=True).get())["data"]["terms"]["severity"]
    except (AuditEvent.DoesNotExist, ValueError, KeyError, TypeError, RecursionError):
        return True
    return bool(said == Severity.CRITICAL)


def _doubt(approval_request: ApprovalRequest) -> str:
    """Return why it is not sure that all is signed; "" where it is."""
    alias = places.database()
    try:
        last = Checkpoint.objects.using(alias).order_by("-number").first()
        if last is None:
            raise _Doubt("There is no checkpoint.")
        signed, _ = newest.checkpoint(alias, last, seal.key_in_use())
        rows = AuditEvent.objects.using(alias).filter(approval_request=approval_request.pk)
        events = list(rows.select_related("seal").order_by("sequence"))
        _ensure_whole(events, approval_request)
        _ensure_under(events, signed.size, signed.root, alias)
        _ensure_led_here(
            [json.loads(event.body) for event in events if event.body], approval_request
        )
        _ensure_as_held(events[0].body, approval_request, alias)
    except (
        _Doubt,
        newest.NotVouchedFor,
        places.Damaged,
        keys.KeyUnavailable,
        notes.LibraryMissing,
    ) as error:
        return str(error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "An event does not say what it should."
    return ""


def _ensure_whole(events: Sequence[AuditEvent], row: ApprovalRequest) -> None:
    if len(events) != row.audit_seq or not events or events[-1].hash != row.audit_head:
        raise _Doubt("Its events are not all there.")
    if chain.first_broken(events) is not None:
        raise _Doubt("Its events do not follow one another.")


def _ensure_under(events: Sequence[AuditEvent], size: int, root: bytes, alias: str) -> None:
    seals = [event.seal for event in events if hasattr(event, "seal")]
    if len(seals) != len(events) or any(each.index >= size for each in seals):
        raise _Doubt("Not all of its events are sealed and signed.")
    if not all(found.is_under(root) for found in issuing.prove(seals, size, alias)):
        raise _Doubt("Its events are not among those that were signed.")


def _ensure_led_here(said: Sequence[Any], row: ApprovalRequest) -> None:
    """What was signed must be of this request, about this call, and have it approved: events could be another's."""
    if any(body["request"] != str(row.pk) for body in said):
        raise _Doubt("Its events are of another request.")
    held = [body["data"]["fingerprint"] for body in said if body["kind"] == "held"]
    if held != [row.fingerprint]:
        raise _Doubt("What was signed is about another call.")
    if [body["to"] for body in said if body.get("to")][-1:] != [Status.APPROVED]:
        raise _Doubt("That it was approved, and still is, is not what was signed.")


def _ensure_as_held(body: str, row: ApprovalRequest, alias: str) -> None:
    """What the row says of the call, its requester and its terms must be what was signed when it was held."""
    values = ApprovalRequest.objects.using(alias).values(*shown.COLUMNS).get(pk=row.pk)
    if differing := shown.differing(values, body):
        raise _Doubt(f"Its row is not what was signed when it was held: {', '.join(differing)}.")
