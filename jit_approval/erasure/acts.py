"""Erasing, now: events are emptied and named by an act, then the rows beside them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from jit_approval import clock, conf, policies, prepared
from jit_approval.audit import chain, places
from jit_approval.audit.acts import ERASED
from jit_approval.audit.ranges import Ranges
from jit_approval.calls import Origin
from jit_approval.erasure.found import Found
from jit_approval.erasure.scope import Erased, Scope, ensure_may
from jit_approval.models import AuditEvent
from jit_approval.redaction import visible


def erase(
    scope: Scope,
    *,
    by: Any,
    reason: str = "",
    approval: str = "",
    origin: Origin | None = None,
) -> Erased:
    """Erase it now. What a crash leaves undone, the next call does.

    Raises:
        PermissionDenied: `by` may not.
        ErasureRefused: something of it is not over yet, or not sealed; nothing was erased.
    """
    ensure_may(by)
    found = Found(scope)
    found.ensure_over()
    found.ensure_sealed()
    said = {"why": "subject" if scope.subject else "age", "before": scope.as_data()["before"]}
    said |= {"reason": visible(reason)[: conf.get().MAX_REASON_LENGTH], "approval": approval}
    origin = (origin or Origin()).of(policies.person_of(by))
    events = sum(_empty(batch, by, said, origin) for batch in found.batches())
    # Last: by these rows the events are found, should this be done twice.
    return Erased(events, *found.clear_rows())


def _empty(batch: Sequence[tuple[int, int]], by: Any, said: dict[str, str], origin: Origin) -> int:
    """Empty some events and write the act that names them, in one transaction."""
    alias, leaves = places.database(), Ranges()
    for _, index in batch:
        leaves.add(index, index + 1)
    with transaction.atomic(using=alias):
        data = {**said, "leaves": [list(each) for each in leaves], "events": len(batch)}
        at = clock.now(alias)
        event = chain.single_event(ERASED, at=at, by=by, data=data, origin=origin)
        prepared.insert(event, using=alias)
        rows = AuditEvent.objects.using(alias).filter(pk__in=[pk for pk, _ in batch])
        rows.update(body="", origin="", actor_label="", actor=None)
    return len(batch)
