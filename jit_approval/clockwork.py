"""What `manage.py approval_clock` runs: it looks every second, and wakes up at the next deadline.

Looking is one statement that reads one index entry per table; only what is due then costs more. Messages are sent,
and calls are run, by threads of their own, so that a mail server that hangs makes no deadline late. Any number of
clocks may run: they share the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections

from jit_approval import conf, keeping, policies
from jit_approval.heartbeats import Pulse
from jit_approval.models import Heartbeat
from jit_approval.stopping import Stop
from jit_approval.sweeping import Due, Sweeper

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Most seconds of sleep: a window may be as short as a second, and was perhaps opened just now."""

# Least seconds of sleep, however close together the deadlines are.
_SHORTEST = 0.1
# So much later than the deadline it wakes up, or it might be a moment early and sleep again.
_AFTER = 0.005
# Seconds for rows before it looks again; what is left then is taken at once.
_ROWS = 2.0
# Seconds from one heartbeat, and one look for changes a dead process left, to the next.
_BEAT = 5.0
# Seconds from one look for requests that nobody is left to decide to the next.
_LOOK = 60.0
# Seconds for the trail before it looks whether it is to stop.
_TRAIL = 10.0
# Seconds of sleep after an error: the first, then twice as long each time, up to the last.
_BACKOFF, _LONGEST_BACKOFF = 0.5, 5.0
# Seconds that a message being sent, or a call being run, is given to end when the clock is stopped.
_PATIENCE = 8.0


class Clockwork:
    """A clock, until it is asked to stop."""

    def __init__(
        self,
        stop: Stop,
        *,
        health_file: Path | None = None,
        run: Callable[[UUID], bool] | None = None,
    ) -> None:
        """`run` runs an approved call on the server where no worker does; without it none is."""
        self._stop = stop
        self._health_file = health_file
        self._sweeper = Sweeper(lambda: stop.asked, run=run)
        self._messenger = _Aside("messages", stop, self._sweeper.send_what_waits)
        self._runner = _Aside("calls", stop, self._sweeper.run_calls)
        self._keeper = _Aside("trail", stop, self._keep)
        self._verifier = _Aside("verification", stop, self._verify)
        self._pulse = Pulse(Heartbeat.Kind.CLOCK)
        self._next_beat = 0.0
        self._next_look = 0.0
        self._trouble: str = ""
        self._failures = 0

    def run(self) -> None:
        """Sweep until asked to stop. Returns after the row, and the message, in hand."""
        for aside in self._asides():
            aside.start()
        try:
            while not self._stop.asked:
                self._stop.wait(self._tick())
        finally:
            # A verification takes long, and leaves nothing half done: it is not waited for.
            for aside in (self._messenger, self._runner, self._keeper):
                aside.end()
            self._last_beat()

    def once(self) -> dict[str, int]:
        """Sweep one time, messages included; return how many of each."""
        counts = self._sweeper.sweep()
        self._pulse.add(counts, self._sweeper.lateness)
        self._beat()
        return counts | keeping.keep(_TRAIL)

    def _asides(self) -> tuple[_Aside, ...]:
        return self._messenger, self._runner, self._keeper, self._verifier

    def _keep(self) -> int:
        return sum(keeping.keep(_TRAIL, lambda: self._stop.asked).values())

    def _verify(self) -> int:
        return int(keeping.verify_if_due(lambda: self._stop.asked) is not None)

    def _tick(self) -> float:
        """Do what is due; return the seconds to sleep. Whatever goes wrong, the clock goes on."""
        try:
            pause = self._work()
        except Exception as error:
            return self._back_off(error)
        if self._failures:
            logger.warning("The clock goes on, after %s attempts in vain.", self._failures)
        self._failures, self._trouble = 0, ""
        return pause

    def _work(self) -> float:
        seen, counts, late = self._sweeper.look(), dict[str, int](), None
        if seen.deadline is not None and seen.deadline <= 0:
            counts |= self._sweeper.record_due(_ROWS)
            late = self._sweeper.lateness
        if seen.step is not None and seen.step <= 0:
            counts |= self._sweeper.take_steps(_ROWS)
        if counts:
            self._pulse.add(counts, late)
        if seen.message is not None and seen.message <= 0:
            self._messenger.wake()
        if seen.call is not None and seen.call <= 0:
            self._runner.wake()
        if conf.get().AUDIT_STREAM_UNSEALED:
            self._keeper.wake()
        if monotonic() >= self._next_beat:
            self._pulse.add({"changes": self._sweeper.make_changes()})
            self._beat()
        if monotonic() >= self._next_look:
            self._next_look = monotonic() + _LOOK
            self._sweeper.look_for_stranded()
        return _pause(seen, moved=any(counts.values()))

    def _beat(self) -> None:
        self._next_beat = monotonic() + _BEAT
        self._pulse.counts["told"] += self._messenger.take()
        self._pulse.counts["run"] += self._runner.take()
        self._runner.wake()  # answers whose time is over
        self._keeper.wake()
        self._verifier.wake()
        self._pulse.beat()
        if self._health_file is not None:
            self._health_file.touch()

    def _last_beat(self) -> None:
        try:
            self._beat()
        except Exception as error:
            logger.warning("The clock stopped without saying so: %s", error)

    def _back_off(self, error: Exception) -> float:
        """Let go of the connection, say so once, and return how long to wait before another is tried."""
        trouble = type(error).__name__
        if trouble != self._trouble:
            expected = isinstance(error, OperationalError | InterfaceError)
            logger.warning(
                "The clock is held up, and goes on trying: %s",
                " ".join(str(error).split()),
                exc_info=None if expected else error,
            )
        self._trouble = trouble
        _let_go()
        self._failures += 1
        return min(_BACKOFF * 2.0 ** min(self._failures - 1, 10), _LONGEST_BACKOFF)


class _Aside(Thread):
    """Does one thing whenever it is woken up, on a connection of its own: what takes long makes no deadline late."""

    def __init__(self, name: str, stop: Stop, work: Callable[[], int]) -> None:
        super().__init__(name=f"approval_clock_{name}", daemon=True)
        self._what = name
        self._stop_asked = stop
        self._work = work
        self._woken = Event()
        self._done = self._taken = 0

    def wake(self) -> None:
        """Say that there is something to do."""
        self._woken.set()

    def take(self) -> int:
        """Return how many were done since this was last asked."""
        done = self._done
        taken, self._taken = self._taken, done
        return done - taken

    def end(self) -> None:
        """Wait for what is in hand, but not for ever: a message is sent again, a call becomes `unknown`."""
        self.wake()
        if self.is_alive():
            self.join(_PATIENCE)

    def run(self) -> None:
        """Work, each time it is woken up."""
        try:
            while self._woken.wait() and not self._stop_asked.asked:
                self._woken.clear()
                self._go()
        finally:
            connections.close_all()

    def _go(self) -> None:
        try:
            self._done += self._work()
        except (OperationalError, InterfaceError):
            _let_go()  # The clock says so; it will wake this thread again.
        except Exception:
            logger.exception("The clock failed at its %s.", self._what)
            _let_go()


def _pause(seen: Due, *, moved: bool) -> float:
    if moved:
        return _SHORTEST
    found = (seen.deadline, seen.message, seen.step, seen.call)
    ahead = [each for each in found if each is not None and each > 0]
    return max(_SHORTEST, min([INTERVAL, *(each + _AFTER for each in ahead)]))


def _let_go() -> None:
    try:
        connections[policies.database()].close()
    except Exception as error:
        logger.debug("Closing a lost connection failed: %s", error)
