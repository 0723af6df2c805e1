"""`manage.py approval_clock`: record deadlines as they pass. For windows of seconds; run it beside `qcluster`."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from jit_approval import execution
from jit_approval.clockwork import Clockwork
from jit_approval.stopping import Stop


class Command(BaseCommand):
    """Runs a clock until SIGTERM or SIGINT, and then ends with status 0."""

    # Django 6.1's own checks ask every database; this starts, and says so, where none answers.
    requires_system_checks = []
    help = _(
        "Record deadlines as they pass and send messages whose task was lost, until SIGTERM. May run several times."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what may be asked for."""
        parser.add_argument("--once", action="store_true", help=_("Sweep once, and end."))
        parser.add_argument(
            "--health-file",
            type=Path,
            metavar="PATH",
            help=_("Touch this file at every heartbeat (every 5 seconds), for a liveness probe."),
        )

    def handle(self, *args: Any, once: bool, health_file: Path | None, **options: Any) -> None:
        """Run; say how it began and how it ended."""
        if health_file is not None:
            _ensure_writable(health_file)
        stop = Stop()
        clock = Clockwork(stop, health_file=health_file, run=execution.run)
        with ExitStack() as stack:
            stack.callback(stop.close)
            if once:
                counts = clock.once()
                self.stdout.write(" ".join(f"{name}={count}" for name, count in counts.items()))
                return
            if threading.current_thread() is threading.main_thread():
                stack.enter_context(stop.on_signals())
            self.stdout.write(f"approval_clock: started, process {os.getpid()}")
            self.stdout.flush()
            clock.run()
            self.stdout.write("approval_clock: stopped")


def _ensure_writable(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise CommandError(_("The health file cannot be written: %s") % error) from error
