"""A change of policies is itself a held call: proposed, decided by another person, and then made, once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from jit_approval import conf, facts, fingerprint, policies, services, signals, verdicts
from jit_approval.calls import Bound, Call, Origin, Shown
from jit_approval.clock import DatabaseNow
from jit_approval.exceptions import ApprovalDenied, ApprovalError, IllegalTransition
from jit_approval.models import ApprovalPolicy, ApprovalRequest, PolicyChange
from jit_approval.policies import versions
from jit_approval.redaction import storable, visible
from jit_approval.states import Effect, Execution, Outcome

logger = logging.getLogger(__name__)

ACTION = "jit_approval.policy.change"
_MAY_CHANGE = "jit_approval.change_approvalpolicy"


@dataclass
class Trial:
    """What an attempted change would make of the policies: snapshots by slug, only those that differ."""

    before: dict[str, versions.Snapshot | None] = field(default_factory=dict)
    proposed: dict[str, versions.Snapshot | None] = field(default_factory=dict)


def is_gated() -> bool:
    """Tell whether changes in the admin and by the command wait for approval (`GATE_POLICY_CHANGES`)."""
    return conf.get().GATE_POLICY_CHANGES


@contextmanager
def trial() -> Iterator[Trial]:
    """Let the block change policies as it likes, see what it did, and take it back.

    Nothing of the block stays in the database. What it raises is raised.
    """
    alias = policies.database()
    outcome = Trial()
    with transaction.atomic(using=alias):
        before = versions.snapshots()
        yield outcome
        after = versions.snapshots()
        transaction.set_rollback(True, using=alias)
    for slug in sorted(before.keys() | after.keys()):
        if before.get(slug) != after.get(slug):
            outcome.before[slug] = before.get(slug)
            outcome.proposed[slug] = after.get(slug)


def as_lines(outcome: Trial) -> list[str]:
    """Return the diff as people read it, one line per field."""
    lines = []
    for slug, wanted in outcome.proposed.items():
        had = outcome.before[slug]
        if wanted is None or had is None:
            lines.append(f"{slug}: {'deleted' if wanted is None else 'new policy'}")
        lines += [
            f"{slug}: {each.field}: {_shown(each.field, each.before)}"
            f" -> {_shown(each.field, each.after)}"
            for each in versions.differences(had, wanted)
        ]
    return lines


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return json.dumps(value, ensure_ascii=name in versions.EXACT, sort_keys=True)


# --- propose -----------------------------------------------------------------------------------------------


def propose(
    outcome: Trial, *, by: Any, reason: str = "", origin: Origin | None = None
) -> ApprovalRequest:
    """Hold the change until another person approves it; return the request, or the open one for this change.

    Raises:
        ApprovalError: as `services.open_request`; ApprovalDenied where a policy denies changes.
    """
    call = _call(outcome, by, reason, origin or Origin())
    # What allows everything was not written to let policies be changed alone: it takes no part.
    asked = [policy for policy in policies.named(ACTION) if policy.effect != Effect.ALLOW]
    found = policies.choose(asked, call.facts, or_default=True)
    if found.effect == Effect.DENY and found.policy is not None:
        verdicts.record(call, "denied", found.policy)
        raise ApprovalDenied(f"The policy {found.policy.slug} denies changes of policies.")
    verdicts.observe(call, found)

    def attach(row: ApprovalRequest, alias: str) -> None:
        PolicyChange.objects.using(alias).create(
            approval_request=row, base=outcome.before, proposed=outcome.proposed
        )

    try:
        # A change is no HTTP call: there is nothing to be kept, and nobody repeats it.
        terms = replace(policies.terms_of(found), execution=Execution.CALLER.value)
        return services.open_request(call, terms, troubles=found.troubles, also=attach)
    except IntegrityError:
        return _open_one(call)


def _open_one(call: Call) -> ApprovalRequest:
    rows = ApprovalRequest.objects.using(policies.database())
    return rows.get(open_key=call.bound.fingerprint)


def _call(outcome: Trial, by: Any, reason: str, origin: Origin) -> Call:
    slugs = ", ".join(outcome.proposed)
    return Call(
        action=ACTION,
        requester=by,
        persons=(policies.person_of(by),),
        credential=origin.credential,
        bound=_bound(outcome.before, outcome.proposed, by),
        shown=Shown(
            method="CHANGE",
            path=visible(f"policies: {slugs}"),
            object_label=visible(slugs)[:200],
            object_model="jit_approval.approvalpolicy",
            object_pk=visible(slugs)[:200],
            payload="\n".join(visible(line) for line in as_lines(outcome)),
            context=storable({"policies": list(outcome.proposed)}),
            reason=visible(reason)[: conf.get().MAX_REASON_LENGTH],
            ip=origin.ip,
            user_agent=origin.user_agent,
        ),
        facts=lambda: {
            "action": ACTION,
            "agent": "",
            "request": {
                "method": "CHANGE",
                "path": "",
                "query": {},
                "data": {"policies": list(outcome.proposed)},
                "ip": origin.ip,
                "agent": "",
                "headers": {},
            },
            "user": facts.of_user(by),
            "object": {},
            "now": timezone.now(),
        },
    )


def _bound(base: Mapping[str, Any], proposed: Mapping[str, Any], by: Any) -> Bound:
    """Return the digests that tie the approval to this change, by this person, of these versions."""
    return fingerprint.bind(
        dict.fromkeys(fingerprint.CALL_FIELDS)
        | {
            "action": ACTION.encode(),
            "requester": fingerprint.canonical_json([by._meta.label_lower, str(by.pk)]),
            "body": fingerprint.canonical_json(proposed),
        },
        {"base": fingerprint.canonical_json(base)},
        key=conf.get().fingerprint_key,
    )


# --- make --------------------------------------------------------------------------------------------------


def connect() -> None:
    """Make a change as soon as it is approved. Called once, when the app is ready."""
    signals.request_approved.connect(_approved, dispatch_uid="jit_approval.policy_changes")


def _approved(approval_request: ApprovalRequest, **_: Any) -> None:
    if approval_request.action == ACTION:
        make(approval_request)


def make_all() -> int:
    """Make what was approved and is still waiting: the process that was to do it died. Return how many."""
    rows = ApprovalRequest.objects.using(policies.database()).usable()
    made = 0
    for row in rows.filter(action=ACTION, policy_change__applied_at=None):
        try:
            made += make(row)
        except Exception:
            logger.exception("The sweep could not make the change of policies %s.", row.pk)
    return made


def make(approval_request: ApprovalRequest) -> bool:
    """Spend the approval and make the change, if the policies are as they were when it was proposed.

    Return whether it was made. At most once: what goes wrong after the approval is spent is recorded as the
    outcome, and the policies stay as they were.
    """
    rows = ApprovalRequest.objects.using(policies.database()).with_now()
    row = rows.select_related("requester").get(pk=approval_request.pk)
    change = PolicyChange.objects.using(policies.database()).filter(approval_request=row).first()
    obstacle = _obstacle(row, change)
    try:
        if change is None or obstacle:
            services.revoke(row, by=None, comment=obstacle)
            return False
        services.consume(row, state_digest=row.state_digest)
    except IllegalTransition:
        return False  # made already, or its time is over
    return _make(row, change)


def _obstacle(row: ApprovalRequest, change: PolicyChange | None) -> str:
    """Return why the change cannot be made as it was approved; "" where it can."""
    if change is None:
        return "There is no change to make."
    others = moved(change)
    if others:
        return f"Changed meanwhile: {', '.join(others)}"
    requester = row.requester
    if requester is None or not requester.is_active or not requester.has_perm(_MAY_CHANGE):
        return "Who proposed it may not change policies any more."
    bound = _bound(change.base, change.proposed, requester)
    if (bound.fingerprint, bound.state_digest) != (row.fingerprint, row.state_digest):
        return "What is stored is not what was approved."
    return ""


def moved(change: PolicyChange) -> list[str]:
    """Return the policies (slugs) that do not say what they said when the change was proposed.

    All that they say is compared, and no version number: what was changed past its versions has changed too.
    """
    rows = ApprovalPolicy.objects.using(policies.database()).filter(slug__in=change.base)
    current = versions.snapshots_of(rows)
    return [slug for slug, said in change.base.items() if current.get(slug) != said]


def _ensure_unmoved(change: PolicyChange) -> None:
    """Lock the policies, and look again: of two changes approved at one moment, one is made.

    Raises:
        IllegalTransition: the other one was.
    """
    rows = ApprovalPolicy.objects.using(policies.database()).filter(slug__in=change.base)
    list(rows.order_by("slug").select_for_update().values_list("pk"))
    if moved(change):
        raise IllegalTransition("The policies have changed meanwhile.")


def _make(row: ApprovalRequest, change: PolicyChange) -> bool:
    try:
        reason = f"{row.reason} [{row.match_code}]".strip()
        origin = Origin(row.credential, row.ip, row.user_agent)
        with versions.authored(row.requester, reason, origin=origin):
            _ensure_unmoved(change)
            # Of one priority the older is asked first: made in an order that no database's JSON changes.
            for slug, wanted in sorted(change.proposed.items(), key=_turn):
                _put(slug, wanted)
            PolicyChange.objects.using(policies.database()).filter(pk=change.pk).update(
                applied_at=DatabaseNow()
            )
    except (ValidationError, ProtectedError, ApprovalError, IntegrityError) as error:
        logger.exception("An approved change of policies failed: %s", row.pk)
        services.record_outcome(row, outcome=Outcome.FAILED, exception=type(error).__name__)
        return False
    services.record_outcome(row, outcome=Outcome.SUCCEEDED)
    return True


def _turn(item: tuple[str, Mapping[str, Any] | None]) -> tuple[int, str]:
    slug, wanted = item
    return (wanted["priority"] if wanted is not None else 0, slug)


def _put(slug: str, wanted: Mapping[str, Any] | None) -> None:
    if wanted is not None:
        versions.restore(wanted)
        return
    for policy in ApprovalPolicy.objects.using(policies.database()).filter(slug=slug):
        if policy.approval_requests.exists():
            # By now it held a call, perhaps this very change: it goes out of force, its requests stay.
            policy.enabled, policy.archived = False, True
            policy.save(using=policies.database())
        else:
            policy.delete(using=policies.database())
