"""Prepared statements mean what the ORM's mean: the same values in, the same values out, on every database."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import DateTimeField
from django.db.models.signals import post_save

from jit_approval import clock, policies, prepared, services
from jit_approval.models import (
    ApprovalRequest,
    AuditEvent,
    Decision,
    Notification,
    PolicyUserPermission,
)
from tests import factories

pytestmark = pytest.mark.django_db

ALIAS = "default"


def columns_of(row) -> dict[str, object]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def decided() -> ApprovalRequest:
    """A request with something in most of its columns."""
    bob = factories.decider()
    row = factories.held(
        context={"orders": [1, "zwei", None]}, payload="ünïcödé", reason="50% off, isn't it?"
    )
    services.approve(row, by=bob, comment="100%")
    services.consume(factories.fresh(row), state_digest=factories.STATE)
    return ApprovalRequest.objects.get(pk=row.pk)


@pytest.mark.parametrize("model", [ApprovalRequest, AuditEvent, Decision, Notification])
def test_rows_are_read_as_the_orm_reads_them(model) -> None:
    decided()
    read = prepared.Select(model).rows(using=ALIAS, where={}, tail="ORDER BY id")
    assert [columns_of(row) for row in read] == [
        columns_of(row) for row in model.objects.order_by("id")
    ]
    assert not read[0]._state.adding
    assert read[0]._state.db == ALIAS


def test_rows_are_written_as_the_orm_writes_them() -> None:
    row = decided()
    ours, theirs = (ApprovalRequest.objects.get(pk=row.pk) for _ in range(2))
    for copy in (ours, theirs):
        copy.pk, copy.open_key = uuid.uuid4(), None
    prepared.insert(ours, using=ALIAS)
    theirs.save(force_insert=True)
    written = [columns_of(ApprovalRequest.objects.get(pk=copy.pk)) for copy in (ours, theirs)]
    assert [{**columns, "id": None} for columns in written] == [
        {**columns_of(row), "id": None, "open_key": None}
    ] * 2


def test_an_inserted_row_knows_its_key() -> None:
    event = AuditEvent.objects.filter(approval_request=decided()).last()
    event.pk, event.sequence = None, 99
    prepared.insert(event, using=ALIAS)
    assert AuditEvent.objects.get(sequence=99).pk == event.pk
    assert not event._state.adding


def test_a_second_row_of_one_key_is_an_integrity_error() -> None:
    row = decided()
    with pytest.raises(IntegrityError), transaction.atomic():
        prepared.insert(row, using=ALIAS)


def test_a_host_that_listens_to_our_models_is_told() -> None:
    told = []

    def listen(instance, created, **kwargs):
        told.append((type(instance), created))

    factories.decider()
    post_save.connect(listen, sender=AuditEvent)
    try:
        factories.held()
    finally:
        post_save.disconnect(listen, sender=AuditEvent)
    assert told == [(AuditEvent, True)]


def test_an_update_changes_what_equals_and_passes_and_nothing_else() -> None:
    row, other = decided(), decided()
    changes = {"consumed_at": row.created_at, "usable_within": timedelta(days=2), "parts": {"a": 1}}
    change = {"model": ApprovalRequest, "changes": changes, "using": ALIAS}
    late = f"due_at <= {clock.now_sql(ALIAS)}"
    assert prepared.update(**change, where={"id": row.pk}, guards=(late,)) == 0
    assert prepared.update(**change, where={"id": row.pk, "status": "pending"}) == 0
    assert prepared.update(**change, where={"id": row.pk}) == 1
    # Counted though nothing differs any more: matched, not changed.
    assert prepared.update(**change, where={"id": row.pk}) == 1
    changed = ApprovalRequest.objects.get(pk=row.pk)
    assert {name: getattr(changed, name) for name in changes} == changes
    assert columns_of(ApprovalRequest.objects.get(pk=other.pk)) == columns_of(other)


def test_extras_come_as_the_type_they_are_said_to_be() -> None:
    row = decided()
    select = prepared.Select(
        ApprovalRequest,
        extras=lambda alias: (("now", clock.now_sql(alias), DateTimeField()),),
        without=("payload",),
    )
    (read,) = select.rows(using=ALIAS, where={"id": row.pk})
    assert abs(read.now - clock.now(ALIAS)) < timedelta(minutes=1)
    assert read.get_deferred_fields() == {"payload"}
    assert read.payload == "ünïcödé"


def test_the_sql_of_deciders_and_the_sql_of_one_user_agree() -> None:
    wide, of_group, of_policy, root, gone, nobody = (factories.user() for _ in range(6))
    policy, other = factories.policy(), factories.policy()
    decide = factories.decide_permission()
    wide.user_permissions.add(decide)
    made = of_group.groups.create(name="deciders")
    made.permissions.add(decide)
    PolicyUserPermission.objects.create(user=of_policy, permission=decide, content_object=policy)
    type(root).objects.filter(pk=root.pk).update(is_superuser=True)
    gone.user_permissions.add(decide)
    type(gone).objects.filter(pk=gone.pk).update(is_active=False)
    for terms in (policy, other, None):
        pk = terms and terms.pk
        row = factories.held(nobody, terms={"policy_id": pk})
        users = type(nobody).objects.all()
        able = {user.pk for user in users if policies.may_decide(user, row)}
        assert able == set(policies.deciders(pk).values_list("pk", flat=True))
        assert (of_policy.pk in able) == (terms is policy)
        assert able >= {wide.pk, of_group.pk, root.pk}
        assert not able & {gone.pk, nobody.pk}
