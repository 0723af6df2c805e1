"""`manage.py demo_data`: migrate, then put the demo's people, policies and things in place."""

import json
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Safe to run again. Its people have well-known passwords: not for a database that matters."""

    help = "Prepares the database for the demo and prints what the demo needs, as JSON."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare, then print one line of JSON."""
        call_command("migrate", verbosity=0)
        # Imported late, so that `--help` needs no models.
        from example_project.demo import people

        self.stdout.write(json.dumps(people.prepare()))
