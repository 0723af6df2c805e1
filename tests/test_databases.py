"""The suite's databases are set up the way the rest of the tests take for granted."""

import pytest
from django.conf import settings
from django.db import connection, transaction

from tests.testapp.models import Account, Customer

pytestmark = pytest.mark.django_db


def scalar(sql: str) -> object:
    """The one value a query answers."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def test_the_run_is_on_the_database_its_header_names() -> None:
    vendor = {"sqlite": "sqlite", "postgres": "postgresql", "mariadb": "mysql"}[settings.TEST_DB]
    assert connection.vendor == vendor
    assert vendor != "mysql" or connection.mysql_is_mariadb


def test_rows_of_the_test_application_are_kept() -> None:
    customer = Customer.objects.create(name="ingrid", balance=12)
    Account.objects.create(owner=customer, balance=10)
    assert customer.accounts.get().balance == 10


if settings.TEST_DB == "sqlite":

    def test_sqlite_is_a_file_in_wal_mode_with_immediate_transactions() -> None:
        assert scalar("PRAGMA journal_mode") == "wal"
        assert connection.transaction_mode == "IMMEDIATE"
        assert not connection.is_in_memory_db()


if settings.TEST_DB == "mariadb":

    def test_the_session_is_not_in_utc() -> None:
        assert scalar("SELECT TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), NOW())") == 5 * 60 + 30

    @pytest.mark.django_db(transaction=True)
    def test_tables_take_part_in_transactions() -> None:
        with transaction.atomic():
            Customer.objects.create(name="gone")
            transaction.set_rollback(True)
        assert not Customer.objects.exists()
