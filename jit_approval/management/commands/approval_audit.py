"""`manage.py approval_audit`: the key of the audit trail, sealing it, and verifying it on the live database."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext as _

from jit_approval import conf
from jit_approval.audit import export, keys, live, notes, seal
from jit_approval.audit import verify as offline


class Command(BaseCommand):
    """One verb each: keygen, rotate, seal, verify."""

    help = _("The audit trail: make its key, seal it, change its key, verify it.")
    # A monitor asks about the trail; what the settings are worth is `check`'s to say.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what may be asked for."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        made = verbs.add_parser(
            "keygen", help=_("Write a new private key to a file; print the public one.")
        )
        made.add_argument(
            "--name",
            required=True,
            help=_("The trail's name, such as approvals.example.com/trail."),
        )
        made.add_argument(
            "--out", required=True, type=Path, help=_("A file that is not there yet.")
        )
        rotated = verbs.add_parser(
            "rotate",
            help=_("Let the key in use name the next one; then put that into the settings."),
        )
        rotated.add_argument(
            "--to", required=True, type=Path, help=_("The new private key's file.")
        )
        verbs.add_parser("seal", help=_("Seal, sign and export all there is, now."))
        verified = verbs.add_parser(
            "verify",
            help=_(
                "Verify the database. Exits 0 (verified), 1 (something is wrong), 2 (it could not be checked) "
                "or 3 (right as far as it is sealed)."
            ),
        )
        verified.add_argument(
            "--key",
            action="append",
            default=[],
            help=_("A public key to trust, or its file. Without one, that of the key in use."),
        )
        verified.add_argument(
            "--checkpoint", type=Path, help=_("A checkpoint that was kept elsewhere.")
        )
        verified.add_argument("--json", dest="as_json", action="store_true", help=_("Print JSON."))

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Do what the verb says."""
        getattr(self, f"_{verb}")(options)

    def _keygen(self, options: dict[str, Any]) -> None:
        try:
            public = keys.generate(options["name"], options["out"])
        except (notes.KeyFormatError, notes.LibraryMissing, OSError) as error:
            raise CommandError(_("No key was made: %s") % error) from error
        self.stdout.write(str(public))

    def _rotate(self, options: dict[str, Any]) -> None:
        try:
            new = keys.load(options["to"], {})
            seal.rotate(new)
        except (
            keys.KeyUnavailable,
            notes.KeyFormatError,
            seal.SealRefused,
            export.ExportFailed,
        ) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(str(new.verifier))

    def _seal(self, options: dict[str, Any]) -> None:
        if not seal.is_configured():
            raise CommandError(_("There is no key: JIT_APPROVAL['AUDIT_KEY_FILE'] is not set."))
        try:
            counts = seal.seal(at_once=True)
        except (keys.KeyUnavailable, seal.SealRefused, export.ExportFailed) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(" ".join(f"{name}={count}" for name, count in counts.items()))

    def _verify(self, options: dict[str, Any]) -> None:
        try:
            trusted = [offline.read_key(text) for text in options["key"]] or [_own()]
            path = options["checkpoint"]
            report = live.verify(trusted, path.read_text(encoding="utf-8") if path else None)
        except (
            keys.KeyUnavailable,
            notes.KeyFormatError,
            notes.NoteError,
            notes.LibraryMissing,
            OSError,
            UnicodeDecodeError,
            Error,
        ) as error:
            self.stderr.write(_("It cannot be checked: %s") % error)
            sys.exit(offline.CANNOT_CHECK)
        as_json = options["as_json"]
        self.stdout.write(
            json.dumps(report.as_json(), indent=2) if as_json else offline.as_text(report)
        )
        if not options["key"] and not as_json:
            self.stdout.write(_("The key in use was trusted, for none was given with --key."))
        if report.status():
            sys.exit(report.status())


def _own() -> notes.Verifier:
    return keys.load(conf.get().AUDIT_KEY_FILE).verifier
