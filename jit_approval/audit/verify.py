"""`python -m jit_approval.audit.verify EXPORT_DIR --key PUB`: check a trail from its export alone.

It needs no Django and no database, and believes no key but those it is given, and those that these have named as
their successors. Exit status: 0 all is verified, 1 something is wrong, 2 it could not be checked, 3 it is right as far
as it is finished.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

from jit_approval.audit import checking, notes
from jit_approval.audit.findings import Report, plain
from jit_approval.audit.folder import Folder
from jit_approval.audit.records import Record

CANNOT_CHECK = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify as the arguments say; print what was found; return the exit status."""
    given = _parser().parse_args(arguments)
    folder = Folder(Path(given.export))
    try:
        keys = [read_key(text) for text in given.key]
        kept = _read_note(Path(given.checkpoint)) if given.checkpoint else None
        events = _with_progress(folder) if sys.stderr.isatty() else folder.events()
        report = checking.verify(events, folder.statements(), keys, kept)
    except notes.NoteError as error:
        return _cannot(f"the checkpoint in {given.checkpoint} cannot be used: {error}")
    except (notes.KeyFormatError, notes.LibraryMissing, OSError, UnicodeDecodeError) as error:
        return _cannot(str(error))
    report.unfinished += folder.unfinished
    print(json.dumps(report.as_json(), indent=2) if given.json else as_text(report))
    return report.status()


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
    return notes.parse_verifier(path.read_text(encoding="utf-8") if is_file else text)


def as_text(report: Report) -> str:
    """Return a report for people."""
    counts = ", ".join(f"{number:,} {name}" for name, number in report.counts.items())
    lines = [
        f"trail       {plain(report.origin) or 'unknown'}",
        f"verified    {report.verified:,} of {report.events:,} events",
        *([f"checkpoint  {checking.moment(report.time)}, root {report.root}"] if report.time is not None else []),
        *([f"erased      {report.erased:,} by authority"] if report.erased else []),
        *([f"not sealed  {report.unsealed:,} at the end: no signature covers them yet"] if report.unsealed else []),
        *[f"unfinished  {text}" for text in report.unfinished],
        *[f"warning     {plain(text)}" for text in report.warnings[:20]],
        "truncation  checked" if report.truncation_checked else
        "truncation  not checked: give a checkpoint that was kept elsewhere (--checkpoint)",
    ]  # fmt: skip
    if report.is_sound:
        return "\n".join(
            [
                *lines,
                "All that is signed is as it was." if report.verified else "Nothing was verified.",
            ]
        )
    found = [f"  {each}" for each in report.findings]
    return "\n".join([*lines, f"NOT AS IT WAS: {counts}", *found, f"First: {report.first}"])


def _with_progress(folder: Folder) -> Iterator[Record | None]:
    total, shown = max(folder.size(), 1), 0.0
    for number, record in enumerate(folder.events()):
        if number % 1000 == 0 and monotonic() - shown > 0.2:
            shown = monotonic()
            done = min(folder.done / total, 1.0)
            bar = "#" * int(done * 30)
            print(
                f"\r[{bar:<30}] {done:4.0%} {number:,} events", end="", file=sys.stderr, flush=True
            )
        yield record
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr, flush=True)


def _read_note(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise notes.NoteError("it is no text") from None


def _cannot(why: str) -> int:
    print(f"Cannot be checked: {why}", file=sys.stderr)
    return CANNOT_CHECK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jit_approval.audit.verify",
        description="Check an exported audit trail, without Django and without the database.",
        epilog="Exit status: 0 verified, 1 something is wrong, 2 it could not be checked, 3 right as far as finished.",
    )
    parser.add_argument("export", metavar="EXPORT_DIR")
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
        help="a checkpoint that was kept elsewhere: shows whether the end was cut off",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
