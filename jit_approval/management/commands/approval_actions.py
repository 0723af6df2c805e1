"""`manage.py approval_actions`: every route that can write, and what stands before it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.utils.translation import gettext as _

from jit_approval import inventory
from jit_approval.inventory.as_json import as_json
from jit_approval.inventory.as_text import as_text, place


class Command(BaseCommand):
    """Exit status: 0; 1 with `--fail-ungated` where a method lacks a gate; 2 where that cannot be found out."""

    help = _("List every route that can write: its action, gate, policies and deciders.")
    # What the system checks refuse is shown here as well, among the rest.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--all",
            action="store_true",
            dest="everything",
            help=_("Also list other Django views, the admin and the package's own."),
        )
        parser.add_argument("--json", action="store_true", help=_("Print JSON, for programs."))
        parser.add_argument(
            "--fail-ungated",
            action="store_true",
            help=_("Exit with 1 if a listed method has no gate, or none that can be told."),
        )
        parser.add_argument(
            "--allow",
            metavar="FILE",
            help=_("Methods that need no gate: one METHOD and glob of path or action per line."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the inventory.

        Raises:
            CommandError: status 1, ungated methods; 2, a malformed allow-list or no database.
        """
        found = _taken(options)
        if options["json"]:
            self.stdout.write(json.dumps(as_json(found), indent=2))
        else:
            self.stdout.write("\n".join(as_text(found)))
        if options["fail_ungated"] and found.failing:
            places = "\n".join(f"  {place(one, line)}" for one, line in found.failing)
            raise CommandError(f"Without a gate, and not allowed:\n{places}")


def _taken(options: dict[str, Any]) -> inventory.Inventory:
    try:
        allow = inventory.read(options["allow"]) if options["allow"] else []
        return inventory.take(everything=options["everything"], allow=allow)
    except inventory.MalformedAllowList as error:
        raise CommandError(str(error), returncode=2) from error
    except Error as error:
        message = f"The policies cannot be read: {error}"
        raise CommandError(message, returncode=2) from error
