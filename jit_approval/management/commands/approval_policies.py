"""`manage.py approval_policies`: policies as a file, to be reviewed and applied like code."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any, NoReturn

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from jit_approval import conf, policies, policy_changes, portable
from jit_approval.calls import COMMAND
from jit_approval.exceptions import ApprovalError
from jit_approval.models import ApprovalRequest
from jit_approval.policies import versions
from jit_approval.portable import doubts
from jit_approval.portable.reading import MAX_BYTES
from jit_approval.redaction import visible

SAME, REFUSED, DIFFERENT, WAITS = 0, 1, 2, 3
_MAY_CHANGE = "jit_approval.change_approvalpolicy"
_STDIN = "-"
# What belongs to each verb; the file is never optional.
_OPTIONS = {
    "export": {"output", "all"},
    "plan": {"file", "prune", "strict"},
    "apply": {"file", "prune", "strict", "author", "reason"},
}
# Of versions that nobody is said to have made.
_LABEL = "manage.py approval_policies"


class Command(BaseCommand):
    """Exit status: 0 done, or no difference; 1 refused; 2 `plan` found a difference; 3 `apply` waits for approval."""

    help = _(
        "Policies as code. export: write them as TOML. plan: show what a file would change. "
        "apply: change it, all or nothing."
    )
    _started = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the verb, the file and the options; flat, so that Django's own are taken anywhere."""
        add = parser.add_argument
        add("verb", choices=list(_OPTIONS), help=_("plan exits with 2 if anything would change."))
        add(
            "file", nargs="?", metavar="FILE.toml", help=_("To plan or apply; - is standard input.")
        )
        add("-o", "--output", metavar="FILE", help=_("export: write here."))
        add("--all", action="store_true", help=_("export: archived ones too."))
        add(
            "--prune",
            action="store_true",
            help=_("Archive, or delete, the policies that are not in the file."),
        )
        add("--strict", action="store_true", help=_("Refuse what is warned of."))
        add("--as", dest="author", metavar="USERNAME", help=_("apply: who changes them."))
        add("--reason", help=_("apply: why."))

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser, which takes the file before, between and after the options."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # Else argparse gives up on an optional file at the first option that follows the verb.
        parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """Run; a mistake in the arguments exits with 1, for 2 means that `plan` found a difference."""
        try:
            super().run_from_argv(argv)
        except SystemExit as end:
            if end.code == DIFFERENT and not self._started:
                sys.exit(REFUSED)
            raise

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the verb says.

        Raises:
            CommandError: status 1, with everything that is wrong.
            SystemExit: status 2 or 3.
        """
        self._started = True
        _check(options)
        verb = {"export": self._export, "plan": self._plan, "apply": self._apply}
        try:
            verb[options["verb"]](options)
        except OSError as error:
            raise CommandError(str(error)) from None
        except Error as error:
            raise CommandError(
                f"{error}\nThe database refused. Nothing has changed; were they changed meanwhile?"
            ) from None

    # --- export --------------------------------------------------------------------------------------------

    def _export(self, options: dict[str, Any]) -> None:
        found = versions.snapshots()
        text = portable.write(
            said for said in found.values() if options["all"] or not said["archived"]
        )
        for warning in doubts.about_order(found):
            self.stderr.write(f"Warning: {warning}.")
        if options["output"]:
            Path(options["output"]).write_bytes(text.encode())
        else:
            self.stdout.write(text, ending="")

    # --- plan ----------------------------------------------------------------------------------------------

    def _plan(self, options: dict[str, Any]) -> None:
        with _refusals(options["file"]):
            file = portable.read(_content(options["file"]))
            with policy_changes.trial(), versions.authored(None):
                made = portable.make(file, prune=options["prune"])
        self._tell(made, options)
        if made.slugs:
            sys.exit(DIFFERENT)

    def _tell(self, made: portable.Made, options: dict[str, Any]) -> None:
        """Print the difference, what is left alone, and what is doubtful."""
        for line in portable.lines(made) or ["No difference."]:
            self.stdout.write(line)
        if made.left:
            names = ", ".join(visible(slug) for slug in made.left)
            self.stdout.write(f"Not in the file, left alone (--prune removes them): {names}")
        for warning in made.warnings:
            self.stderr.write(f"Warning: {warning}.")
        if options["strict"] and made.warnings:
            raise CommandError("Refused, for --strict: see the warnings.")

    # --- apply ---------------------------------------------------------------------------------------------

    def _apply(self, options: dict[str, Any]) -> None:
        author, gated = _author(options["author"]), policy_changes.is_gated()
        if gated and author is None:
            raise CommandError("Changes of policies need approval: say whose this is with --as.")
        reason = visible(" ".join((options["reason"] or "").split()))[
            : conf.get().MAX_REASON_LENGTH
        ]
        with _refusals(options["file"]):
            file = portable.read(_content(options["file"]))
            if gated:
                self._propose(file, author, reason, options)
                return
            with versions.authored(author, reason, label=_LABEL, origin=COMMAND):
                made = portable.make(file, prune=options["prune"])
                self._tell(made, options)
        if made.slugs:
            self.stdout.write("Applied.")

    def _propose(
        self, file: portable.PolicyFile, author: Any, reason: str, options: dict[str, Any]
    ) -> None:
        with policy_changes.trial() as trial, versions.authored(author, reason):
            made = portable.make(file, prune=options["prune"])
        self._tell(made, options)
        if not trial.proposed:
            return
        try:
            row = policy_changes.propose(trial, by=author, reason=reason, origin=COMMAND)
        except ApprovalError as error:
            raise CommandError(f"Nothing has changed, and nothing was proposed: {error}") from None
        except ObjectDoesNotExist:
            raise CommandError("The same change was being decided just now; try again.") from None
        self.stdout.write(
            f"Nothing has changed yet. Approval {row.pk} [{row.match_code}] waits for another "
            f"person until {row.decide_by.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        )
        self.stdout.write(f"To be decided at {_decision_page(row)}")
        sys.exit(WAITS)


def _check(options: dict[str, Any]) -> None:
    """Refuse what the verb does not take: an option that is ignored would be believed in."""
    verb = options["verb"]
    for name in sorted(set().union(*_OPTIONS.values()) - _OPTIONS[verb]):
        if options[name]:
            raise CommandError(f"{verb} takes no {name if name == 'file' else _flag(name)}.")
    if "file" in _OPTIONS[verb] and not options["file"]:
        raise CommandError(f"{verb} takes the name of a file.")


def _flag(name: str) -> str:
    return "--as" if name == "author" else f"--{name}"


def _content(name: str) -> bytes:
    """Return what is in the file; of one too large enough to see that."""
    if name == _STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_BYTES + 1)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Print what is wrong with the file as compilers do, one fault a line."""
    try:
        yield
    except portable.FileRefused as error:
        lines = [f"{name}:{visible(str(problem))}" for problem in error.problems]
        _refuse([*lines, f"Faults: {len(lines)}. Nothing has changed."])


def _refuse(lines: list[str]) -> NoReturn:
    raise CommandError("\n".join(lines))


def _author(name: str | None) -> Any:
    if name is None:
        return None
    model = get_user_model()
    rows = model._base_manager.using(policies.database())
    found = rows.filter(**{model.USERNAME_FIELD: name}).first()
    # A database may compare without capital letters.
    if found is None or str(found.get_username()) != name or not found.is_active:
        raise CommandError(f"There is no active user {visible(name)!r}.")
    if not found.has_perm(_MAY_CHANGE):
        raise CommandError(f"{visible(name)!r} may not change policies ({_MAY_CHANGE}).")
    return found


def _decision_page(row: ApprovalRequest) -> str:
    try:
        path = reverse("admin:jit_approval_approvalrequest_decide", args=[row.pk])
    except NoReverseMatch:
        return "the project's decision page or API"
    return conf.get().BASE_URL.rstrip("/") + path
