"""A small installation: web server, django-q2 cluster and clock, each a process group of its own on one database."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.urls import include, path
from django_q.brokers import get_broker
from django_q.conf import Conf

from tests import mailers, receivers
from tests.faults import dying
from tests.races.views import CountedView
from tests.sinks import SMTP_BACKEND

REDIS = os.environ.get("JIT_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
_KEYS = {"SECRET_KEYS": ["k" * 43]}
_LOGGER = logging.getLogger("django-q")
urlpatterns = [
    path("counted/", CountedView.as_view()),
    path("approvals/", include("jit_approval.urls")),
]


@dataclass(frozen=True)
class Plant:
    """What all its processes share."""

    smtp_port: int
    runs: str
    broker: str = "orm"
    queue: str = field(default_factory=lambda: f"jit_approval_{uuid4().hex}")
    database: str = field(default_factory=lambda: str(connections["default"].settings_dict["NAME"]))
    approval: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    # How often its parts look, in seconds.
    poll: float = 0.05
    guard_cycle: float = 0.1
    # Port and authority of an HTTPS server that seems to be on the open Internet (see `receivers`).
    internet: tuple[int, Path] | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings of its processes, the test's own included."""
        plenty: dict[str, Any] = {"MAX_OPEN_PER_REQUESTER": 10_000}
        plenty["REJECTION_COOLDOWN"] = timedelta(0)
        plenty |= dict.fromkeys(("OPENINGS_PER_REQUESTER", "OPENINGS_PER_POLICY"), "100000/hour")
        return {
            "ROOT_URLCONF": __name__,
            "JIT_APPROVAL": {
                "BASE_URL": "https://office.example",
                **plenty,
                **_KEYS,
                **self.approval,
            },
            **mailers.using(SMTP_BACKEND, host="127.0.0.1", port=self.smtp_port),
        }

    @contextmanager
    def here(self) -> Iterator[Plant]:
        """Let the test's own process be a part of it; its queue is deleted in the end."""
        before = {name: getattr(Conf, name) for name in self._queue()}
        said = _LOGGER.level
        _LOGGER.setLevel(logging.WARNING)
        self.choose_broker()
        try:
            with override_settings(**self.settings()):
                yield self
        finally:
            get_broker().delete_queue()
            _LOGGER.setLevel(said)
            for name, value in before.items():
                setattr(Conf, name, value)

    def choose_broker(self) -> None:
        """Tell django-q2, which read its settings long ago."""
        for name, value in self._queue().items():
            setattr(Conf, name, value)

    def _queue(self) -> dict[str, Any]:
        chosen = {"ORM": None, "REDIS": REDIS} if self.broker == "redis" else {"ORM": "default"}
        names = dict.fromkeys(("PREFIX", "CLUSTER_NAME"), self.queue)
        return {
            **chosen,
            **names,
            "WORKERS": self.workers,
            "POLL": self.poll,
            "GUARD_CYCLE": self.guard_cycle,
        }


@contextmanager
def running(
    plant: Plant, target: Callable[..., None], *args: Any, fault: dying.Fault | None = None
) -> Iterator[BaseProcess]:
    """Run one part of it, until it is killed with all its children."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.races.preload"])
    process = context.Process(target=_run, args=(plant, fault, target, args))
    process.start()
    try:
        yield process
    finally:
        kill(process)


def kill(process: BaseProcess) -> None:
    """Kill it and whatever it has started: they have a process group of their own."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _run(
    plant: Plant, fault: dying.Fault | None, target: Callable[..., None], args: tuple[Any, ...]
) -> None:
    """In the process: its own group, the test's database, the plant's settings."""
    import django

    os.setsid()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    django.setup()
    connections["default"].settings_dict["NAME"] = plant.database
    override_settings(**plant.settings()).enable()
    os.environ["JIT_TEST_RUNS"] = plant.runs
    plant.choose_broker()
    _LOGGER.setLevel(logging.ERROR)
    if plant.internet is not None:
        receivers.put_host_on_the_internet(*plant.internet)
    if fault is not None:
        dying.arm(fault)
    target(*args)


def _end_with(parent: int) -> None:
    """Leave nothing behind where the test itself was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def cluster() -> None:
    """`manage.py qcluster`."""
    call_command("qcluster")


def clock() -> None:
    """`manage.py approval_clock`."""
    call_command("approval_clock", stdout=io.StringIO())


def web(port: int) -> None:
    """Gunicorn with one worker, which it replaces when it dies."""
    from django.core.wsgi import get_wsgi_application
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("bind", f"127.0.0.1:{port}")
            self.cfg.set("loglevel", "critical")

        def load(self) -> Any:
            return get_wsgi_application()

    Server().run()


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
