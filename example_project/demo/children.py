"""The processes of a demo: started together, watched, and always stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

MANAGE_PY = Path(__file__).resolve().parents[2] / "manage.py"
STOP_SECONDS = 10

T = TypeVar("T")


class DemoFailed(Exception):
    """Something was not as told; the message says what."""


class Children:
    """Runs `manage.py` commands in an environment of its own, with a log file for each."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self.env = {**os.environ, **env, "PYTHONUNBUFFERED": "1"}
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *command: str) -> str:
        """Run one command to its end and return what it printed."""
        done = subprocess.run(
            self._argv(command), env=self.env, capture_output=True, text=True, timeout=120
        )
        if done.returncode != 0:
            raise DemoFailed(f"manage.py {command[0]} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def start(self, name: str, *command: str) -> None:
        """Start a command that stays."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self._argv(command),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches us alone, and what it forks is stopped with it.
                start_new_session=True,
            )

    def wait_for(self, what: str, look: Callable[[], T | None], seconds: float = 30) -> T:
        """Look until there is something to see; fail if a process dies or the time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (seen := look()) is not None:
                return seen
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise DemoFailed(f"the {name} ended by itself ({process.returncode})")
            time.sleep(0.1)
        raise DemoFailed(f"waited {seconds:g} s in vain for {what}")

    def stop(self) -> None:
        """Ask every process to end, then make it."""
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            # Whatever is left of the group: a worker's children may outlive it.
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()

    def log_tails(self, lines: int = 15) -> str:
        """The last lines of every log, for a failure's report."""
        tails = []
        for path in sorted(self.folder.glob("*.log")):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            tails.append("\n".join([f"--- {path.name}", *text]))
        return "\n".join(tails)

    @staticmethod
    def _argv(command: tuple[str, ...]) -> list[str]:
        return [sys.executable, str(MANAGE_PY), *command]


def _signal_group(pid: int, signum: int) -> None:
    """Send a signal to a process group that may be gone already."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


@contextmanager
def stopped_at_the_end(children: Children) -> Iterator[Children]:
    """Stop the children however the block ends: its end, an error, Ctrl-C, SIGTERM or SIGHUP."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    ends = [signal.SIGTERM, signal.SIGHUP]
    before = {signum: signal.signal(signum, end) for signum in ends}
    try:
        yield children
    finally:
        # A second Ctrl-C must not leave half of them behind.
        ignored = {
            signum: signal.signal(signum, signal.SIG_IGN) for signum in [*ends, signal.SIGINT]
        }
        children.stop()
        for signum, handler in {**ignored, **before}.items():
            signal.signal(signum, handler)
