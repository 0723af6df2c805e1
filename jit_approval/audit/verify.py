"""`python -m jit_approval.audit.verify EXPORT --key PUB`: check a trail from its export alone, or a receipt.

EXPORT is the directory of a whole trail, a receipt, or a file of events with their proofs. It needs no Django and no
database, and believes no key but those it is given, and those that these have named as their successors. Exit status:
0 all is verified, 1 something is wrong, 2 it could not be checked, 3 it is right as far as it is finished, 4 no key
that was given signed it, so that nobody can say.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from jit_approval.audit import checking, folder, notes, receipts
from jit_approval.audit.findings import NothingToCheck, Report, many, plain
from jit_approval.audit.folder import Folder
from jit_approval.audit.notes import Verifier
from jit_approval.audit.selection import Selection

CANNOT_CHECK = 2

_Item = TypeVar("_Item")


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify as the arguments say; print what was found; return the exit status."""
    given = _parser().parse_args(arguments)
    path = Path(given.export)
    try:
        keys = [read_key(text) for text in given.key]
        if path.is_dir():
            report = _verify_folder(path, keys, given.checkpoint)
        elif given.checkpoint:
            return _cannot("--checkpoint goes with the directory of a whole trail")
        else:
            report = _verify_file(path, keys)
    except notes.NoteError as error:
        return _cannot(f"the checkpoint in {given.checkpoint} cannot be used: {error}")
    except NothingToCheck as error:
        return _cannot(f"{path}: {error}")
    except (notes.KeyFormatError, notes.LibraryMissing, OSError, UnicodeDecodeError) as error:
        return _cannot(str(error))
    _print(json.dumps(report.as_json(), indent=2) if given.json else as_text(report))
    return report.status()


def _verify_folder(path: Path, keys: Sequence[Verifier], checkpoint: str | None) -> Report:
    export = Folder(path)
    if not checkpoint and not export.is_begun():
        # With a checkpoint that was kept, it is known that something was there.
        raise NothingToCheck("no trail was exported to this directory, or all of it is gone")
    kept = read_kept(Path(checkpoint)) if checkpoint else None
    events = _with_progress(export.events(), export) if sys.stderr.isatty() else export.events()
    report = checking.verify(events, export.statements(), keys, kept)
    report.unfinished += export.unfinished
    return report


def _verify_file(path: Path, keys: Sequence[Verifier]) -> Report:
    with path.open("rb") as file:
        line = file.readline(64)
        # A receipt is one object; a selection has one to a line.
        is_receipt = line.strip() in (b"", b"{") or line.lstrip().startswith(b'{"receipt"')
        if is_receipt:
            file.seek(0)
            return receipts.verify(file.read(receipts.MOST_BYTES), keys)
    selection = Selection(path)
    is_watched = sys.stderr.isatty()
    lines = _with_progress(selection.lines(), selection) if is_watched else None
    return selection.verify(keys, lines)


def read_key(text: str) -> notes.Verifier:
    """Return the public key that is this text, or that the file of this name holds.

    Raises:
        KeyFormatError: it is none.
        OSError: the file cannot be read.
    """
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file:
        return notes.parse_verifier(path.read_text(encoding="utf-8"))
    if "+" not in text:
        # No key is without one: it was meant as the name of a file, and is no secret.
        raise notes.KeyFormatError(
            f"there is no file {plain(text)!r}, and no public key is like that"
        )
    return notes.parse_verifier(text)


def read_kept(path: Path) -> str:
    """Return the note of a checkpoint that was kept: as a file, or as the line of `checkpoints.jsonl` that has it.

    Tools add newlines at the end, or take them away: what is signed is not touched by that.

    Raises:
        NoteError: it is neither.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8").strip("\n")
    except UnicodeDecodeError:
        raise notes.NoteError("it is no text") from None
    if text.startswith("{"):
        if "\n" in text:
            raise notes.NoteError("it has more than one line: give the one to be compared")
        note = folder.parse_note(f"{text}\n".encode())
        if note is None:
            raise notes.NoteError("it is no line of checkpoints.jsonl")
        return note
    return f"{text}\n"


def as_text(report: Report) -> str:
    """Return a report for people."""
    return "\n".join([*_facts(report), *_conclusion(report)])


def _facts(report: Report) -> list[str]:
    limits = {
        "trail": "truncation  not checked: give a checkpoint that was kept elsewhere (--checkpoint)",
        "receipt": "later       not checked: a receipt says nothing of what happened after its last event",
        "selection": "missing     not checked: only an export in a directory shows whether all is there",
    }
    return [
        f"{report.what:<11} {plain(report.origin) or 'unknown'}",
        f"verified    {report.verified:,} of {many(report.events, 'event')}",
        *([f"checkpoint  {checking.moment(report.time)}, root {report.root}"] if report.time is not None else []),
        *([f"erased      {report.erased:,} by authority"] if report.erased else []),
        *_acts(report),
        *([f"withheld    of {many(report.withheld, 'event')}: the address"] if report.withheld else []),
        *([f"not sealed  {_waiting(report)}: no signature covers them yet"] if report.unsealed else []),
        *[f"unfinished  {text}" for text in report.unfinished],
        *[f"warning     {plain(text)}" for text in report.warnings[:20]],
        *_told(report),
        "truncation  checked" if report.truncation_checked else limits[report.what],
    ]  # fmt: skip


def _waiting(report: Report) -> str:
    """Return how many events are not sealed, and the age of the oldest where it is known."""
    since = report.unsealed_since
    return f"{report.unsealed:,}" + (f", the oldest of {checking.moment(since)}" if since else "")


def _acts(report: Report) -> list[str]:
    """Name the acts of erasure, those that nobody is known to have approved first."""
    shown = sorted(report.acts, key=lambda act: act.is_approved)
    lines = [plain(f"act         {many(act.events, 'event')} by {act}") for act in shown[:20]]
    more = [f"act         and {len(shown) - 20:,} more"] if len(shown) > 20 else []
    return [*lines, *more]


def _told(report: Report) -> list[str]:
    """Return what a verified receipt says, in short."""
    if not report.told:
        return []
    told = report.told
    policy = f"{told['policy'] or 'none'}, version {told['policy_version']}"
    votes = [f"{vote['verdict']} by {_who(vote['by'])} at {vote['at']}" for vote in told["votes"]]
    ended = told["settled"] or told["outcome"]
    lines = [
        f"asked       {told['action']} by {_who(told['asked']['by'])} at {told['asked']['at']}",
        f"fingerprint {told['fingerprint']}",
        f"policy      {policy}",
        *[f"vote        {vote}" for vote in votes],
        f"run         {told['run']['at']}",
        f"outcome     {ended.get('outcome')} {told['outcome'].get('status') or ''}".rstrip(),
    ]
    return [plain(line) for line in lines]


def _who(by: Any) -> str:
    return str(by.get("label", "")) if isinstance(by, dict) else "the system"


def _conclusion(report: Report) -> list[str]:
    if report.is_sound:
        whole = "All that is signed is as it was." if report.verified else "Nothing was verified."
        return [whole]
    if not report.counts:
        return [
            "CANNOT BE JUDGED WITH THESE KEYS: this is not to say that it is as it was",
            *[f"  {plain(text)}" for text in report.unjudged],
            "Either another key is wanted, or all of it was replaced: ask whoever keeps the keys.",
        ]
    counts = ", ".join(f"{number:,} {name}" for name, number in report.counts.items())
    found = [f"  {each}" for each in [*report.findings, *map(plain, report.unjudged)]]
    return [f"NOT AS IT WAS: {counts}", *found, f"First: {report.first}"]


def _with_progress(items: Iterator[_Item], source: Folder | Selection) -> Iterator[_Item]:
    total, shown = max(source.size(), 1), 0.0
    for number, item in enumerate(items):
        if number % 1000 == 0 and monotonic() - shown > 0.2:
            shown = monotonic()
            show_progress(min(source.done / total, 1.0), number)
        yield item
    end_progress()


def show_progress(done: float, number: int) -> None:
    """Draw the bar: how far (0 to 1), and how many events."""
    bar = "#" * int(done * 30)
    print(f"\r[{bar:<30}] {done:4.0%} {number:,} events", end="", file=sys.stderr, flush=True)


def end_progress() -> None:
    """Remove the bar."""
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever reads has had enough (`| head`). What was found is the exit status all the same; and nothing is left
        # to be written when Python ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cannot(why: str) -> int:
    print(f"Cannot be checked: {why}", file=sys.stderr)
    return CANNOT_CHECK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jit_approval.audit.verify",
        description="Check an exported audit trail, or a receipt, without Django and without the database.",
        epilog="Exit status: 0 verified, 1 something is wrong, 2 it could not be checked, 3 right as far as finished, "
        "4 it cannot be judged with the keys that were given.",
    )
    parser.add_argument(
        "export",
        metavar="EXPORT",
        help="the directory of a trail, a receipt, or a file of events with their proofs",
    )
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="PUB",
        help="a public key to trust, or a file that holds it; may be given several times",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="a checkpoint that was kept elsewhere, a line of checkpoints.jsonl or its note: "
        "shows whether the end was cut off",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
