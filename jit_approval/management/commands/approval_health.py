"""`manage.py approval_health`: are deadlines recorded and people told? For monitors."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import Error
from django.utils.translation import gettext as _

from jit_approval import health
from jit_approval.health import Level


class Command(BaseCommand):
    """Exit status: 0 all is well, 1 warning, 2 critical (or the database cannot be asked)."""

    help = _(
        "Say whether deadlines are recorded and people told. Exits 0 (ok), 1 (warning) or 2 (critical)."
    )
    # A monitor asks about now; what the settings are worth is `check --deploy`'s to say.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what may be asked for."""
        parser.add_argument(
            "--json", dest="as_json", action="store_true", help=_("Print JSON instead of a table.")
        )

    def handle(self, *args: Any, as_json: bool, **options: Any) -> None:
        """Print what was found, and exit with its level."""
        try:
            report = health.report()
        except Error as error:
            self._print_unreachable(error, as_json=as_json)
            sys.exit(Level.CRITICAL)
        self.stdout.write(_as_json(report) if as_json else self._table(report))
        sys.exit(report.level)

    def _print_unreachable(self, error: Error, *, as_json: bool) -> None:
        said = " ".join(str(error).split())
        found: dict[str, Any] = {"at": None, "level": "critical", "error": said, "findings": []}
        text = _("critical  database          It cannot be asked: %s") % said
        self.stdout.write(json.dumps(found) if as_json else self.style.ERROR(text))

    def _table(self, report: health.Report) -> str:
        lines = []
        for finding in report.findings:
            line = f"{finding.level.name.lower():<9} {finding.name:<17} {finding.message}"
            style = (self.style.SUCCESS, self.style.WARNING, self.style.ERROR)[finding.level]
            lines.append(style(line))
            if finding.hint:
                lines.append(" " * 28 + finding.hint)
        return "\n".join(lines)


def _as_json(report: health.Report) -> str:
    found = {
        "at": report.at.isoformat(),
        "level": report.level.name.lower(),
        "findings": [finding.as_dict() for finding in report.findings],
    }
    return json.dumps(found, indent=2)
