"""Start processes that race: each has its own connection, and all leave the same barrier at once."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

from django.db import connections

# Seconds. A process that died leaves the others waiting; they must not wait for ever.
TIME_LIMIT = 120


def race(
    runner: Callable[..., Any], *runners_args: tuple[Any, ...], settings: dict[str, Any]
) -> list[Any]:
    """Run `runner(barrier, *args)` in one process per tuple of arguments; return what each returned.

    `settings` are overridden in every process, as they must be in the caller's.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.races.preload"])
    barrier = context.Barrier(len(runners_args), timeout=TIME_LIMIT)
    results = context.Queue()
    name = connections["default"].settings_dict["NAME"]
    processes = [
        context.Process(
            target=_run, args=(runner, args, barrier, results, number, str(name), settings)
        )
        for number, args in enumerate(runners_args)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(results.get(timeout=TIME_LIMIT) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()
    return [_result(found[number]) for number in range(len(processes))]


def _run(
    runner: Callable[..., Any],
    args: tuple[Any, ...],
    barrier: Any,
    results: Any,
    number: int,
    name: str,
    settings: dict[str, Any],
) -> None:
    import django

    django.setup()  # done already, where this process came from
    from django.test import override_settings

    connections["default"].settings_dict["NAME"] = name
    override_settings(**settings).enable()
    try:
        results.put((number, (runner(barrier, *args), None)))
    except BaseException:
        barrier.abort()
        results.put((number, (None, traceback.format_exc())))
    finally:
        connections.close_all()


def _result(found: tuple[Any, str | None]) -> Any:
    value, error = found
    if error is not None:
        raise AssertionError(f"a racing process failed:\n{error}")
    return value
