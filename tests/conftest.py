"""Which tests a run includes: nothing is left out without a line in the header saying so."""

import socket
from collections.abc import Iterator
from os import environ
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import SimpleTestCase
from django.utils import timezone, translation

from tests import flushing


def _left_out() -> dict[str, str]:
    """Markers this run does not include, each with what would include it."""
    reasons = {}
    if settings.TEST_DB != "postgres":
        reasons["postgres"] = reasons["race"] = "JIT_TEST_DB=postgres"
    if environ.get("JIT_TEST_BROWSER") != "1":
        reasons["browser"] = "JIT_TEST_BROWSER=1"
    return reasons


_DATABASE = {"db", "transactional_db", "live_server"}
# They start processes of their own on the database at hand.
_PROCESSES = ("faults", "journeys", "races")


def _is_the_same_everywhere(item: pytest.Item) -> bool:
    """Tell whether a test asks no database, so that one run, on SQLite, is enough."""
    if settings.TEST_DB == "sqlite" or any(part in _PROCESSES for part in item.path.parts):
        return False
    names = set(getattr(item, "fixturenames", ()))
    if issubclass(getattr(item, "cls", None) or object, SimpleTestCase):
        return False
    return item.get_closest_marker("django_db") is None and not names & _DATABASE


def pytest_report_header() -> list[str]:
    """Say on which database the run is, and what it leaves to other runs."""
    left_out = ", ".join(f"{marker} ({how})" for marker, how in _left_out().items())
    if settings.TEST_DB != "sqlite":
        left_out = ", ".join(filter(None, [left_out, "what asks no database (sqlite)"]))
    return [f"jit_approval: on {settings.TEST_DB}; not in this run: {left_out or 'nothing'}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a service this run was not given."""
    left_out = _left_out()
    here, elsewhere = [], []
    for item in items:
        out = any(map(item.get_closest_marker, left_out)) or _is_the_same_everywhere(item)
        (elsewhere if out else here).append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = here


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """End what other threads and processes left open: PostgreSQL drops no database that is in use."""
    with django_db_blocker.unblock():
        flushing.by_what_is_there()
    yield
    if connection.vendor != "postgresql":
        return
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(autouse=True)
def _no_language_or_zone_left_over() -> Iterator[None]:
    """Undo what middleware of a test activated: both are bound, and threads would not have them."""
    yield
    translation.deactivate()
    timezone.deactivate()


_RESOLVE = socket.getaddrinfo


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail the test that leaves names or connections redirected, not whichever meets that later."""
    yield
    left = socket.getaddrinfo is not _RESOLVE or "connect" in vars(socket.socket)
    socket.getaddrinfo = _RESOLVE
    assert not left, "it left the network patched"
