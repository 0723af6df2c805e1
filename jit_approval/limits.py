"""What one requester, or one policy, may open in a time: approvers' attention is a resource too."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from django.db import connections
from django.utils.translation import ngettext

from jit_approval import clock, conf
from jit_approval.calls import Call, Terms
from jit_approval.exceptions import CoolingDown, TooManyPending
from jit_approval.models import ApprovalRequest


def ensure_may_open(call: Call, terms: Terms, *, using: str) -> datetime:
    """Return the database's time if the limits leave room for one more request. One query.

    Two openings at the same instant may both see the last free place: these limits guard attention, not
    access, and are not worth a lock.

    Raises:
        CoolingDown: a like call (requester, action, object) was rejected within its cool-down.
        TooManyPending: too many are open, or were opened lately, whatever became of them.
    """
    config = conf.get()
    now, waiting, opened, by_policy, rejected = _counts(call, terms, using)
    if rejected is not None:
        raise CoolingDown("A like call was rejected moments ago.", approval_id=rejected)
    if waiting >= config.MAX_OPEN_PER_REQUESTER:
        text = ngettext(
            "You have %(count)d open request; that is the most one may have.",
            "You have %(count)d open requests; that is the most one may have.",
            waiting,
        )
        raise TooManyPending(text % {"count": waiting})
    for count, rate in (
        (opened, config.OPENINGS_PER_REQUESTER),
        (by_policy, config.OPENINGS_PER_POLICY),
    ):
        if count >= rate.count:
            seconds = int(rate.period.total_seconds())
            text = ngettext(
                "%(count)d request was opened in the last %(seconds)d s; that is the limit.",
                "%(count)d requests were opened in the last %(seconds)d s; that is the limit.",
                count,
            )
            said = text % {"count": count, "seconds": seconds}
            raise TooManyPending(said, retry_after=seconds)
    return now


def _counts(call: Call, terms: Terms, using: str) -> tuple[datetime, int, int, int, str | None]:
    config = conf.get()
    sql = _sql(
        using,
        int(config.OPENINGS_PER_REQUESTER.period.total_seconds()),
        int(config.OPENINGS_PER_POLICY.period.total_seconds()),
        terms.policy_id is None,
    )
    requester = call.requester.pk
    policy = () if terms.policy_id is None else (terms.policy_id,)
    shown = call.shown
    like = (requester, call.action, shown.object_model, shown.object_pk)
    with connections[using].cursor() as cursor:
        cursor.execute(sql, (requester, requester, *policy, *like))
        now, waiting, opened, by_policy, rejected = cursor.fetchone()
    return clock.from_database(now), waiting, opened, by_policy, rejected


@cache
def _sql(using: str, requester_seconds: int, policy_seconds: int, no_policy: bool) -> str:
    table = connections[using].ops.quote_name(ApprovalRequest._meta.db_table)
    now = clock.now_sql(using)
    of_policy = "policy_id IS NULL" if no_policy else "policy_id = %s"
    return f"""SELECT {now},
(SELECT COUNT(*) FROM {table} WHERE requester_id = %s AND status IN ('pending', 'approved')
AND due_at > {now}),
(SELECT COUNT(*) FROM {table} WHERE requester_id = %s
AND created_at > {clock.ago_sql(using, requester_seconds)}),
(SELECT COUNT(*) FROM {table} WHERE {of_policy}
AND created_at > {clock.ago_sql(using, policy_seconds)}),
(SELECT id FROM {table} WHERE requester_id = %s AND status = 'rejected' AND cooldown_until > {now}
AND action = %s AND object_model = %s AND object_pk = %s
ORDER BY cooldown_until DESC LIMIT 1)"""  # noqa: S608 - made of names and numbers alone
