"""Sends what is next to each target, as far as it goes in the time there is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic

from jit_approval import clock, conf
from jit_approval.audit import places
from jit_approval.models import TrailTask
from jit_approval.streaming import cursor, early, lines
from jit_approval.streaming.lines import Next
from jit_approval.streaming.targets import Target, TargetFailed, configured

logger = logging.getLogger(__name__)

_LEASE = timedelta(minutes=1)
_MAX_BYTES = 512 * 1024


def run(seconds: float, stopping: Callable[[], bool] = lambda: False) -> dict[str, int]:
    """Send to all targets, for about so long; return how many lines each has taken. Nothing raises but the database."""
    return {target.name: _feed(target, seconds, stopping) for target in configured()}


def _feed(target: Target, seconds: float, stopping: Callable[[], bool]) -> int:
    alias, until, count = places.database(), monotonic() + seconds, 0
    with cursor.claimed(target.name, lasting=_LEASE, start={"early": early.start(alias)}) as task:
        while task is not None and not stopping():
            try:
                sent = _send(target, task, alias)
            except (TargetFailed, places.Damaged, ValueError, KeyError) as error:
                _give_up(target, error)
                break
            count += sent
            if not sent or monotonic() > until:
                break
    return count


def _give_up(target: Target, error: Exception) -> None:
    wait = error.retry_after if isinstance(error, TargetFailed) else None
    if cursor.failed(target.name, str(error), retry_after=wait):
        logger.error("The trail does not reach %s: %s", target.name, error)


def _send(target: Target, task: TrailTask, alias: str) -> int:
    """Send one batch of each kind; return how many lines were taken."""
    # Sealed ones first: a flood of new events must not keep them from leaving with their proofs.
    sent = _send_sealed(target, task, alias)
    if conf.get().AUDIT_STREAM_UNSEALED:
        sent += _send_early(target, task, alias)
    return sent


def _send_sealed(target: Target, task: TrailTask, alias: str) -> int:
    batch = _cut(lines.sealed(alias, task.statement, task.index), target.most)
    if not batch:
        return 0
    taken = len(batch)
    try:
        target.send([each.line for each in batch], at=clock.now(alias))
    except TargetFailed as error:
        _moved(task, batch[: error.taken])
        raise
    return taken if _moved(task, batch) else 0


def _moved(task: TrailTask, taken: list[Next]) -> bool:
    if not taken:
        return False
    last = taken[-1]
    return cursor.advance(task, lasting=_LEASE, statement=last.statement, index=last.index)


def _cut(found: Iterable[Next], most: int) -> list[Next]:
    batch, size = list[Next](), 0
    for each in found:
        batch.append(each)
        size += len(each.line)
        if len(batch) >= most or size > _MAX_BYTES:
            break
    return batch


def _send_early(target: Target, task: TrailTask, alias: str) -> int:
    events = early.batch(task, target.most, alias)
    if not events:
        return 0
    now = clock.now(alias)
    texts = [lines.unsealed_line(event) for event in events]
    try:
        target.send(texts, at=now)
    except TargetFailed as error:
        taken = events[: error.taken]
        if taken:
            cursor.advance(task, lasting=_LEASE, **early.after(task, taken, now))
        raise
    moved = cursor.advance(task, lasting=_LEASE, **early.after(task, events, now))
    return len(events) if moved else 0
