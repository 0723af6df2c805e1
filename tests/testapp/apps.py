"""App configuration of the test application."""

from django.apps import AppConfig


class TestAppConfig(AppConfig):
    """Has no migrations: its tables are made by syncdb."""

    name = "tests.testapp"
    label = "testapp"
