"""Django's name for this app."""

from django.apps import AppConfig


class BackofficeConfig(AppConfig):
    """The back office."""

    name = "example_project.backoffice"
    label = "backoffice"
    verbose_name = "Back office"
