"""`manage.py approval_explain`: what would come of a call, and what a draft policy would have done."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.utils.translation import gettext as _

from jit_approval import body, explaining, policies, portable
from jit_approval.exceptions import UnbindableCall
from jit_approval.explaining import as_text, drafts
from jit_approval.inventory import actions
from jit_approval.models import ApprovalPolicy
from jit_approval.policies import durations
from jit_approval.portable.reading import MAX_BYTES
from jit_approval.redaction import visible
from jit_approval.states import Effect


class Command(BaseCommand):
    """Exit status: 0; 2 where something given is unknown or malformed. Changes nothing."""

    help = _("Explain which policy a call falls under, or replay recorded calls against a draft.")
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--json", action="store_true", help=_("Print JSON, for programs."))
        _add_call(parser)
        _add_replay(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the explanation, or the replay.

        Raises:
            CommandError: status 2, with what is unknown or malformed.
        """
        try:
            if options["replay_since"] is not None:
                self._replay(options)
            elif options["action"] is None:
                _refuse("Name an action, or --replay-since with a draft.")
            else:
                self._explain(options)
        except Error as error:
            _refuse(f"The database cannot be read: {error}")

    def _explain(self, options: dict[str, Any]) -> None:
        known = actions.known()
        asked = _asked(options, known.get(options["action"]))
        found = explaining.explain(asked)
        self._write(options, explaining.as_data(found), as_text.of_explanation(found))
        if asked.action not in known:
            similar = actions.similar(asked.action, known)
            hint = f" Did you mean {', '.join(similar)}?" if similar else ""
            _refuse(f"No route has the action {asked.action!r}.{hint}")

    def _replay(self, options: dict[str, Any]) -> None:
        draft = _draft(options)
        try:
            period = durations.parse(options["replay_since"])
            found = explaining.replay(draft, period)
        except (ValueError, OverflowError) as error:
            _refuse(f"--replay-since: {error}")
        self._write(options, explaining.replay_as_data(found), as_text.of_replay(found))

    def _write(self, options: dict[str, Any], data: Any, lines: Iterable[str]) -> None:
        text = json.dumps(data, indent=2) if options["json"] else "\n".join(lines)
        self.stdout.write(text)


def _add_call(parser: ArgumentParser) -> None:
    call = parser.add_argument_group(_("a call"))
    call.add_argument("action", nargs="?", help=_("Its action label: transfers.create"))
    call.add_argument("--user", help=_("Who makes it, by user name."))
    call.add_argument("--data", metavar="JSON", default="{}", help=_("Its payload."))
    call.add_argument("--object", metavar="JSON", default="{}", help=_("What the view exposes."))
    call.add_argument("--object-pk", default="", help=_("Key of the object that is called."))
    call.add_argument("--method", help=_("Default: what the action's route takes, else POST."))
    call.add_argument("--path", default="/", help=_("Path, without the query."))
    call.add_argument("--query", default="", help=_("Query string, without the question mark."))
    call.add_argument("--ip", default="", help=_("Address it comes from."))
    call.add_argument("--agent", default="", help=_("User agent."))
    call.add_argument("--approval-agent", default="", help=_("Who acts for the user."))
    call.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    call.add_argument(
        "--by-policy",
        action="store_true",
        help=_("The gate is RequiresApprovalByPolicy; told from the routes where they have it."),
    )


def _add_replay(parser: ArgumentParser) -> None:
    replay = parser.add_argument_group(_("a draft policy over recorded calls"))
    replay.add_argument("--replay-since", metavar="30d", help=_("How far back: 90m, 12h, 30d."))
    replay.add_argument("--draft", metavar="FILE.toml", help=_("A policy file."))
    replay.add_argument(
        "--draft-policy",
        metavar="SLUG",
        help=_("A policy of that file; else of the database, in force or not."),
    )
    replay.add_argument("--draft-actions", action="append", default=[], metavar="GLOB")
    replay.add_argument("--draft-condition", default="", metavar="CEL")
    replay.add_argument("--draft-effect", default=Effect.REQUIRE, choices=list(Effect.values))


def _refuse(message: str) -> NoReturn:
    raise CommandError(message, returncode=2)


# --- a call ------------------------------------------------------------------------------------------------


def _asked(options: dict[str, Any], known: actions.Known | None) -> explaining.Asked:
    method = options["method"] or (known.methods[0] if known else "POST")
    return explaining.Asked(
        action=options["action"],
        user=_user(options["user"]),
        method=method.upper(),
        path=options["path"],
        query=options["query"],
        ip=options["ip"],
        agent=options["agent"],
        acts_for=options["approval_agent"],
        headers=dict(_header(text) for text in options["header"]),
        data=_payload(options["data"]),
        context=_mapping("--object", options["object"]),
        object_pk=options["object_pk"],
        by_policy=options["by_policy"] or (known is not None and known.is_by_policy),
        is_open=known is not None and known.is_open,
    )


def _user(name: str | None) -> Any:
    if not name:
        _refuse("Say who makes the call: --user NAME.")
    users = get_user_model()
    try:
        return users._base_manager.using(policies.database()).get(**{users.USERNAME_FIELD: name})
    except users.DoesNotExist:
        _refuse(f"There is no user {name!r}.")


def _payload(text: str) -> Any:
    try:
        return body.of_json(text)
    except UnbindableCall as error:
        _refuse(f"--data: whoever makes the call, it is answered with {error.status}: {error}")
    except ValueError as error:
        _refuse(f"--data is not JSON: {error}")


def _json(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        _refuse(f"{option} is not JSON: {error}")
    except RecursionError:
        _refuse(f"{option} is nested too deep.")


def _mapping(option: str, text: str) -> dict[str, Any]:
    found = _json(option, text)
    if not isinstance(found, dict):
        _refuse(f'{option} is an object, as in {{"tier": "gold"}}.')
    return found


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        _refuse(f"--header {text!r}: write NAME=VALUE.")
    return name.strip(), value


# --- a draft -----------------------------------------------------------------------------------------------


def _draft(options: dict[str, Any]) -> ApprovalPolicy:
    file, slug = options["draft"], options["draft_policy"] or ""
    if bool(options["draft_actions"]) == bool(file or slug):
        _refuse("Name one draft: --draft FILE.toml, --draft-policy SLUG or --draft-actions GLOB.")
    if options["draft_actions"]:
        return _of_words(options)
    try:
        return drafts.of_file(_content(file), slug) if file else drafts.of_slug(slug)
    except drafts.NoSuchPolicy as error:
        similar = actions.similar(slug, error.others) if slug else error.others
        _refuse(f"{error}" + (f" Did you mean {', '.join(similar)}?" if similar else ""))
    except portable.FileRefused as error:
        _refuse("\n".join(f"{file}:{visible(str(problem))}" for problem in error.problems))


def _content(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        _refuse(str(error))


def _of_words(options: dict[str, Any]) -> ApprovalPolicy:
    try:
        return drafts.of_words(
            options["draft_actions"], options["draft_condition"], options["draft_effect"]
        )
    except ValidationError as error:
        said = "; ".join(
            f"--draft-{name}: {text}"
            for name, texts in error.message_dict.items()
            for text in texts
        )
        _refuse(said)
