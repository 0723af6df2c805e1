"""To be killed (-9) right before or right after a commit: the n-th of a process and all its children.

A commit is a transaction that wrote something, or one statement that did so in autocommit. Which one it was is left in
a log, with the kill, so that a test can tell where a process died, and that it did.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

_WRITES = re.compile(
    r'\s*(INSERT INTO|UPDATE|DELETE FROM)\s+"?(\w+)"?(?:\s+SET\s+"?(\w+)"?)?', re.I
)


@dataclass(frozen=True)
class Fault:
    """Where to die. `whole`: with all processes of the group, as when a machine loses power."""

    log: Path
    at: int = 0
    before: bool = True
    whole: bool = False

    def __str__(self) -> str:
        """Return it as a line of a report."""
        return f"{'before' if self.before else 'after'} commit {self.at}{' (all)' * self.whole}"

    def commits(self) -> list[str]:
        """Return what was written by each commit so far."""
        return [line for line in self._lines() if not line.startswith("killed")]

    def killed(self) -> str:
        """Return what the commit wrote at which it died, or "" if it did not."""
        found = [line for line in self._lines() if line.startswith("killed")]
        return found[0] if found else ""

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def arm(fault: Fault) -> None:
    """Count from now on, in this process and in those that it forks."""

    def install(connection: Any, **_: Any) -> None:
        if getattr(connection, "_counts_commits", False):
            return
        connection._counts_commits = True
        _count(connection, fault)

    connection_created.connect(install, weak=False)


def _count(connection: Any, fault: Fault) -> None:
    written: list[str] = []
    commit = connection._commit

    def executed(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        match = _WRITES.match(sql)
        if match is None:
            return execute(sql, params, many, context)
        what = " ".join(filter(None, match.groups())).replace("jit_approval_", "")
        if connection.in_atomic_block:
            written.append(what)
            return execute(sql, params, many, context)
        return _at_boundary(fault, what, lambda: execute(sql, params, many, context))

    def committed() -> None:
        what = ", ".join(written)
        written.clear()
        if what:
            _at_boundary(fault, what, commit)
        else:
            commit()

    connection.execute_wrappers.append(executed)
    connection._commit = committed


def _at_boundary(fault: Fault, what: str, commit: Callable[[], Any]) -> Any:
    number = _write(fault.log, what)
    if number == fault.at and fault.before:
        _die(fault, what)
    done = commit()
    if number == fault.at:
        _die(fault, what)
    return done


def _write(log: Path, line: str) -> int:
    """Add a line, and return how many of its kind there are now. Any number of processes may do so at once."""
    with log.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line + "\n")
        file.flush()
        file.seek(0)
        return sum(not each.startswith("killed") for each in file)


def _die(fault: Fault, what: str) -> None:
    _write(fault.log, f"killed {fault}: {what}")
    if fault.whole:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
