"""`manage.py approval_audit`: the key of the audit trail, sealing it, sending it on, verifying and reading it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, connections
from django.utils.translation import gettext as _

from jit_approval import appendonly, clock, commands, conf, erasure, keeping
from jit_approval.audit import export, findings, keys, live, notes, places, seal
from jit_approval.audit import verify as offline
from jit_approval.calls import COMMAND
from jit_approval.exceptions import ApprovalError
from jit_approval.models import Verification
from jit_approval.streaming import pump, selecting, standing

# Seconds: whoever sends by hand waits for it.
_PATIENCE = 3600.0


class Command(BaseCommand):
    """One verb each: keygen, rotate, seal, send, verify, events."""

    help = _("The audit trail: make its key, seal it, change its key, verify it.")
    # A monitor asks about the trail; what the settings are worth is `check`'s to say.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what may be asked for."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        _add_keys(verbs)
        _add_erasure(verbs)
        verbs.add_parser(
            "protect", help=_("Make the triggers anew that keep the trail append-only.")
        )
        verbs.add_parser("seal", help=_("Seal, sign and export all there is, now."))
        _add_verify(verbs)
        _add_events(verbs.add_parser("events", help=_("Print events as they are exported.")))
        verbs.add_parser("send", help=_("Send what waits to the webhook and the logger, now."))

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Do what the verb says."""
        try:
            getattr(self, f"_{verb}")(options)
        except Error as error:
            raise CommandError(_("The database cannot be asked: %s") % error) from error
        except UnicodeEncodeError as error:
            raise CommandError(_("What was given is no text: %s") % error) from error

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
            seal.SealBusy,
            export.ExportFailed,
        ) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(str(new.verifier))

    def _erase(self, options: dict[str, Any]) -> None:
        self._take_away(erasure.Scope(subject=options["subject"]), options)

    def _prune(self, options: dict[str, Any]) -> None:
        if options["older_than"] < 1:
            raise CommandError(_("--older-than is a number of days, 1 or more."))
        now = clock.now(places.database()).replace(hour=0, minute=0, second=0, microsecond=0)
        try:
            before = now - timedelta(days=options["older_than"])
        except OverflowError:
            raise CommandError(_("--older-than goes back to before there were years.")) from None
        self._take_away(erasure.Scope(before=before), options)

    def _take_away(self, scope: erasure.Scope, options: dict[str, Any]) -> None:
        users = get_user_model()
        rows = users._base_manager.using(places.database())
        by = rows.filter(**{users.USERNAME_FIELD: options["author"]}).first()
        if by is None:
            raise CommandError(_("There is no user %r.") % options["author"])
        try:
            if seal.is_configured():
                keeping.seal_now()
            if erasure.is_gated():
                row = erasure.propose(scope, by=by, reason=options["reason"], origin=COMMAND)
                self.stdout.write(_("It waits for approval: %s") % row.pk)
                sys.exit(commands.HELD)
            done = erasure.erase(scope, by=by, reason=options["reason"], origin=COMMAND)
            if seal.is_configured():
                seal.seal(at_once=True)
        except (
            erasure.ErasureRefused,
            PermissionDenied,
            ApprovalError,
            keys.KeyUnavailable,
            seal.SealRefused,
            seal.SealBusy,
            export.ExportFailed,
        ) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"events={done.events} requests={done.requests}")
        if done.still_in:
            names = ", ".join(done.still_in)
            self.stdout.write(_("Still named by policies, and in all their versions: %s") % names)

    def _protect(self, options: dict[str, Any]) -> None:
        connection = connections[places.database()]
        appendonly.install(connection)
        self.stdout.write(", ".join(appendonly.TABLES))

    def _seal(self, options: dict[str, Any]) -> None:
        if not seal.is_configured():
            raise CommandError(_("There is no key: JIT_APPROVAL['AUDIT_KEY_FILE'] is not set."))
        try:
            counts = keeping.seal_now()
        except (
            keys.KeyUnavailable,
            seal.SealRefused,
            seal.SealBusy,
            export.ExportFailed,
        ) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(" ".join(f"{name}={count}" for name, count in counts.items()))

    def _send(self, options: dict[str, Any]) -> None:
        sent = pump.run(_PATIENCE)
        if not sent:
            raise CommandError(
                _("There is no target: AUDIT_WEBHOOK_URL and AUDIT_LOGGER are not set.")
            )
        for target in standing.targets():
            if target.name == standing.DIRECTORY:
                continue  # which whoever seals writes to
            self.stdout.write(
                f"{target.name}: sent={sent.get(target.name, 0)} behind={target.behind}"
            )
        failing = [f"{each.name}: {each.error}" for each in standing.targets() if each.error]
        if failing:
            raise CommandError("\n".join(failing))

    def _events(self, options: dict[str, Any]) -> None:
        names = ("request", "kind", "by", "since", "until")
        wanted = selecting.Wanted(**{name: options[name] for name in names})
        try:
            for line in selecting.lines(wanted, options["format"]):
                self.stdout.write(line.decode(), ending="")
        except places.Damaged as error:
            raise CommandError(str(error)) from error

    def _verify(self, options: dict[str, Any]) -> None:
        try:
            trusted = [offline.read_key(text) for text in options["key"]] or [_own()]
            path = options["checkpoint"]
            kept = offline.read_kept(path) if path else None
            report = _verified(trusted, kept, key_given=bool(options["key"]))
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


def _verified(
    trusted: list[notes.Verifier], kept: str | None, *, key_given: bool
) -> findings.Report:
    """Verify, and write down what came out: where that is not allowed, it is verified all the same."""
    at = clock.now(places.database())
    if sys.stderr.isatty():
        report = live.verify(trusted, kept, watch=_watched)
        offline.end_progress()
    else:
        report = live.verify(trusted, kept)
    if key_given and report.status() == findings.NOT_JUDGED:
        # What stands there is of a key that could tell.
        report.warnings.append("with keys that signed nothing here: that is not written down")
        return report
    try:
        source = Verification.Source.COMMAND
        keeping.record(report, at=at, key_given=key_given, source=source)
    except Error as error:
        report.warnings.append(f"what was found could not be written down: {error}")
    return report


def _watched(done: int, total: int) -> None:
    offline.show_progress(done / max(total, 1), done)


def _add_keys(verbs: Any) -> None:
    made = verbs.add_parser(
        "keygen", help=_("Write a new private key to a file; print the public one.")
    )
    name = _("The trail's name, such as approvals.example.com/trail.")
    made.add_argument("--name", required=True, help=name)
    made.add_argument("--out", required=True, type=Path, help=_("A file that is not there yet."))
    rotated = verbs.add_parser(
        "rotate",
        help=_("Let the key in use name the next one; then put that into the settings."),
    )
    rotated.add_argument("--to", required=True, type=Path, help=_("The new private key's file."))


def _add_erasure(verbs: Any) -> None:
    erased = verbs.add_parser(
        "erase",
        help=_("Erase all about a person; hashes stay. Exits 3 where it waits for approval."),
    )
    erased.add_argument("--subject", required=True, metavar="USER", help=_("Whose data."))
    pruned = verbs.add_parser(
        "prune", help=_("Erase all that ended long ago; hashes stay. Exits 3 where it waits.")
    )
    pruned.add_argument(
        "--older-than", required=True, type=int, metavar="DAYS", help=_("How long ago.")
    )
    for parser in (erased, pruned):
        parser.add_argument("--as", dest="author", required=True, metavar="USER")
        parser.add_argument("--reason", default="", help=_("Why."))


def _add_verify(verbs: Any) -> None:
    verified = verbs.add_parser(
        "verify",
        help=_(
            "Verify the database. Exits 0 (verified), 1 (something is wrong), 2 (it could not be checked), "
            "3 (right as far as it is sealed) or 4 (not judged with these keys)."
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


def _add_events(parser: CommandParser) -> None:
    parser.add_argument("--request", type=UUID, help=_("Of this request."))
    parser.add_argument("--kind", default="", help=_("Of this kind, such as held or approved."))
    parser.add_argument("--by", default="", help=_("By this account."))
    parser.add_argument("--since", type=_moment, help=_("Since this time, such as 2026-11-29."))
    parser.add_argument("--until", type=_moment, help=_("Before this time."))
    parser.add_argument(
        "--format",
        choices=selecting.FORMATS,
        default="jsonl",
        help=_("JSON Lines with proofs, which the offline verifier takes; or OCSF."),
    )


def _moment(text: str) -> datetime:
    """Read a time; without a time zone it is in UTC."""
    found = datetime.fromisoformat(text)
    try:
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("in UTC, there is no such time") from None


def _own() -> notes.Verifier:
    return keys.load(conf.get().AUDIT_KEY_FILE).verifier
