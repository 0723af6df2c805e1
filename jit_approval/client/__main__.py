"""`python -m jit_approval.client DELETE https://… --reason "GDPR erasure #811"`: a small curl that waits.

The body of the answer goes to standard output, progress and refusals to standard error.

Exit statuses: 0 it ran (2xx, 3xx); 1 it ran, and answered 4xx or 5xx; 2 wrong usage; 3 rejected or denied;
4 expired, cancelled, revoked or stale; 5 nobody decided in the time to wait; 6 another refusal, nothing ran;
7 the network failed (after approval it may have run); 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from jit_approval.client import errors
from jit_approval.client.progress import Progress

_STATUSES: dict[type[errors.ApprovalError], int] = {
    errors.Rejected: 3,
    errors.Denied: 3,
    errors.Expired: 4,
    errors.Cancelled: 4,
    errors.Revoked: 4,
    errors.Stale: 4,
    errors.TimedOut: 5,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one call and return the exit status."""
    given = _parser().parse_args(arguments)
    try:
        import httpx
    except ImportError:
        print("This needs httpx: pip install django-jit-approval[client]", file=sys.stderr)
        return 2
    try:
        with Progress() as progress:
            return _call(given, progress)
    except errors.ApprovalError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return _STATUSES.get(type(error), 6)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"{type(error).__name__}: {errors.printable(error)}", file=sys.stderr)
        return 7
    except KeyboardInterrupt:
        print(
            "Interrupted. The request is open still; the same call goes on waiting.",
            file=sys.stderr,
        )
        return 130


def _call(given: argparse.Namespace, progress: Progress) -> int:
    import httpx

    from jit_approval.client.transport import ApprovalTransport

    waiting = ApprovalTransport(
        httpx.HTTPTransport(verify=not given.insecure),
        wait=given.wait,
        on_pending=None if given.quiet else progress,
        reason=given.reason,
        agent=given.agent,
    )
    with (
        httpx.Client(transport=waiting, timeout=given.timeout) as client,
        client.stream(given.method, given.url, headers=given.header, content=given.data) as answer,
    ):
        print(f"HTTP {answer.status_code} {answer.reason_phrase}", file=sys.stderr)
        if given.include:
            for name, value in answer.headers.multi_items():
                print(f"{errors.printable(name)}: {errors.printable(value)}", file=sys.stderr)
        for piece in answer.iter_bytes():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return 0 if answer.status_code < 400 else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jit_approval.client",
        description="Make one API call; where it is held, wait until it is approved, and make it again.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", type=str.upper)
    parser.add_argument("url", type=_url)
    parser.add_argument(
        "--reason", default="", type=_line, help="Approval-Reason: why, for who decides"
    )
    parser.add_argument(
        "--agent", default="", type=_line, help="Approval-Agent: on whose behalf a program calls"
    )
    parser.add_argument("-H", "--header", action="append", default=[], type=_header)
    parser.add_argument("-d", "--data", type=_data, help="the body, or @FILE")
    parser.add_argument("--wait", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="of one answer"
    )
    parser.add_argument("-i", "--include", action="store_true", help="show the answer's headers")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("-k", "--insecure", action="store_true", help="trust any certificate")
    return parser


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("a URL begins with http:// or https://")
    return text


def _line(text: str) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise argparse.ArgumentTypeError("it is one line, for it is sent as a header")
    return text


def _header(text: str) -> tuple[str, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("a header is written as Name: value")
    return name.strip(), _line(value.strip()).encode()


def _data(text: str) -> bytes:
    if text == "@-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
