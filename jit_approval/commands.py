"""Management commands that are held: `class Command(ApprovalCommand)`, and `--as NAME` says who asks."""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from jit_approval import conf, policies
from jit_approval.exceptions import ApprovalError, CallHeld
from jit_approval.guard import guard

HELD = 3
"""Exit status of a command that waits for approval; 1 where it was refused."""
_DJANGOS = "verbosity settings pythonpath traceback no_color force_color skip_checks stdout stderr"
_OURS = "approval_user approval_reason approval_wait"
_NOT_BOUND = frozenset((*_DJANGOS.split(), *_OURS.split()))


class ApprovalCommand(BaseCommand):
    """A command that runs once somebody else has approved exactly this run, with these options.

    `approval_action` is its label; by default `command.` and its name. Whoever may run commands on the machine may
    do much without this one: it guards against mistakes and acting alone by habit, not against them.
    """

    approval_action = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Add who asks, why, and for how long to wait."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        group = parser.add_argument_group("approval")
        group.add_argument("--as", dest="approval_user", metavar="NAME", help="The user who asks.")
        group.add_argument("--reason", dest="approval_reason", default="", help="Why.")
        group.add_argument(
            "--wait", dest="approval_wait", type=float, default=0.0, metavar="SECONDS"
        )
        return parser

    def execute(self, *args: Any, **options: Any) -> Any:
        """Ask, wait if told to, and run.

        Raises:
            CommandError: it is held (`returncode` 3), or refused (1); nothing ran.
        """
        bound = {name: value for name, value in options.items() if name not in _NOT_BOUND}
        action = self.approval_action or f"command.{type(self).__module__.rpartition('.')[2]}"
        ends = time.monotonic() + float(options.get("approval_wait") or 0)
        while True:
            try:
                grant = guard(
                    action,
                    {"args": list(args), **bound},
                    by=self._user(options.get("approval_user")),
                    reason=options.get("approval_reason") or "",
                )
                break
            except CallHeld as held:
                if time.monotonic() >= ends:
                    message = f"{held} Approval-Id: {held.approval_id}"
                    raise CommandError(message, returncode=HELD) from held
                time.sleep(min(conf.get().POLL_INTERVAL, max(0.0, ends - time.monotonic())))
            except ApprovalError as error:
                raise CommandError(f"{error.code}: {error}") from error
        with grant:
            return super().execute(*args, **options)

    @staticmethod
    def _user(name: str | None) -> Any:
        if not name:
            raise CommandError("Say who asks: --as NAME.", returncode=2)
        users = get_user_model()
        rows = users._base_manager.using(policies.database())
        found = rows.filter(**{users.USERNAME_FIELD: name}).first()
        if found is None:
            raise CommandError(f"There is no user {name!r}.", returncode=2)
        return found
