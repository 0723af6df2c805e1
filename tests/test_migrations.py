"""What is in the database when it is migrated is there afterwards, and guarded as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor

from jit_approval import appendonly
from jit_approval.models import ApprovalRequest
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def held_before(settings: Any) -> Iterator[Any]:
    """A call that was held when one open request per call was still `unique=True`; then migrated."""
    settings.JIT_APPROVAL = {}
    (latest,) = MigrationExecutor(connection).loader.graph.leaf_nodes("jit_approval")
    factories.decider()
    row = factories.held()
    appendonly.install(connection)
    try:
        MigrationExecutor(connection).migrate([("jit_approval", "0008_event_list")])
        MigrationExecutor(connection).migrate([latest])
        yield row
    finally:
        MigrationExecutor(connection).migrate([latest])
        appendonly.uninstall(connection)


def test_a_call_that_was_open_cannot_be_opened_twice_after_the_migration(held_before: Any) -> None:
    again = ApprovalRequest.objects.get(pk=held_before.pk)
    assert again.audit_events.count() == 1
    again.pk = None
    with pytest.raises(IntegrityError):
        again.save(force_insert=True)


def test_the_migration_leaves_one_unique_index_and_the_triggers(held_before: Any) -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, ApprovalRequest._meta.db_table)
    alone = {name for name, each in found.items() if each["columns"] == ["open_key"]}
    assert alone == {"jit_request_one_open_per_call"}
    assert appendonly.missing(connection) == []
