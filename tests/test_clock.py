"""One clock, the database's, in whatever zone its session is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, models, transaction
from django.db.models import F
from django.utils import timezone

from jit_approval import clock
from jit_approval.models import ApprovalRequest
from tests import factories

pytestmark = pytest.mark.django_db
ZONES = {
    "mysql": "SET time_zone = '{}'",
    "postgresql": "SET TIME ZONE INTERVAL '{}' HOUR TO MINUTE",
    "sqlite": "SELECT '{}'",  # has no session zone
}


@pytest.fixture(params=["+05:30", "-08:00", "+00:00"])
def zone(request):
    with connection.cursor() as cursor:
        cursor.execute(ZONES[connection.vendor].format(request.param))
    yield request.param
    connection.close()


@pytest.fixture
def row():
    factories.decider()
    return factories.held()


def close_to_now(moment: datetime) -> bool:
    return abs(moment - datetime.now(UTC)) < timedelta(seconds=20)


def test_the_time_is_utc_in_any_session_zone(zone, row):
    moment = clock.now("default")
    assert moment.utcoffset() == timedelta(0)
    assert close_to_now(moment)
    assert close_to_now(ApprovalRequest.objects.with_now().get().now)


def test_what_django_wrote_is_ordered_with_it(zone, row):
    for seconds, open_still in ((-60, False), (60, True), (-5 * 3600, False), (5 * 3600, True)):
        ApprovalRequest.objects.update(due_at=timezone.now() + timedelta(seconds=seconds))
        assert ApprovalRequest.objects.pending().exists() is open_still
        assert ApprovalRequest.objects.due().exists() is not open_still


@pytest.mark.parametrize("microseconds", [0, 1000, 1])
def test_fractions_of_a_second_compare_as_times_not_as_text(row, microseconds):
    # SQLite compares text: "12:00:00" must not come after "12:00:00.500000" of the same second.
    now = clock.now("default")
    for offset, overdue in ((-1, True), (1, False)):
        moment = (now + timedelta(minutes=offset)).replace(microsecond=microseconds)
        ApprovalRequest.objects.update(due_at=moment)
        assert ApprovalRequest.objects.due().exists() is overdue


def test_what_the_clock_wrote_reads_back_as_the_same_moment(zone, row):
    ApprovalRequest.objects.update(due_at=clock.DatabaseNow())
    read = ApprovalRequest.objects.get().due_at
    assert read.tzinfo is not None
    assert close_to_now(read)
    assert ApprovalRequest.objects.filter(due_at__lte=clock.DatabaseNow()).exists()


def test_the_clock_never_runs_backwards():
    moments = [clock.now("default") for _ in range(20)]
    assert moments == sorted(moments)


@pytest.mark.django_db(transaction=True)
def test_within_a_transaction_the_clock_goes_on(row):
    # PostgreSQL's NOW() is the time the transaction began: a lock wait would age it.
    with transaction.atomic():
        first = clock.now("default")
        while clock.now("default") == first:
            pass
        assert clock.now("default") > first


def test_an_interval_ago_is_that_long_ago(zone):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {clock.ago_sql('default', 3600)}", ())
        ago = clock.from_database(cursor.fetchone()[0])
    assert abs(datetime.now(UTC) - ago - timedelta(hours=1)) < timedelta(seconds=20)


def test_an_annotated_now_can_be_compared_with_a_column(row):
    ahead = ApprovalRequest.objects.with_now().filter(due_at__gt=F("now"))
    assert ahead.exists()


def test_a_text_that_is_no_time_is_refused():
    with pytest.raises(ValueError, match="not a time"):
        clock.from_database("soon")


def test_an_unknown_database_is_an_error_never_a_guess():
    class Other:
        vendor = "oracle"

    with pytest.raises(KeyError):
        clock.DatabaseNow().as_sql(None, Other())
    assert isinstance(clock.DatabaseNow.output_field, models.DateTimeField)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="other databases have a type for times")
def test_sqlite_writes_as_many_digits_as_django_does():
    # Text is compared: ".123" comes before ".123000", which is the same time.
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {clock.now_sql('default')}", ())
        text = cursor.fetchone()[0]
    django = connection.ops.adapt_datetimefield_value(datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC))
    assert len(text) == len(django)
