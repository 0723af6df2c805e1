"""Hand work to django-q2. A task that is never run costs a message or tidiness, never safety."""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

logger = logging.getLogger(__name__)

# Seconds for which a broker that failed is not asked again by this process: a Redis client tries for
# seconds before it gives up, and every held call would wait for it.
_PAUSE = 30.0
_paused_until = 0.0


def enqueue(task: str, *args: Any, using: str, inline: bool = True) -> bool:
    """Queue `task` (a dotted path) so that it runs only if the transaction on `using` commits.

    Inside the transaction where django-q2's ORM broker shares the database, for then the task is as durable
    as the row it is about; else after the commit, where a lost enqueue is made good by the sweeper. Returns
    whether there is anything to queue it with. With `inline=False` a queue that runs its tasks at once, in this
    process (`sync`), is none.
    """
    if not is_configured() or (not inline and _is_sync()):
        return False
    if _shares_database(using):
        _push(task, *args)
    else:
        transaction.on_commit(partial(_push_or_log, task, *args), using=using)
    return True


def is_configured() -> bool:
    """Tell whether this project has a django-q2 queue at all."""
    return bool(getattr(settings, "Q_CLUSTER", None)) and apps.is_installed("django_q")


def table() -> QuerySet[Any] | None:
    """Return the tasks in the queue, one per row, stamped by the hosts' clocks; None where it is no table."""
    if not is_configured() or not (alias := _database()):
        return None
    from django_q.conf import Conf
    from django_q.models import OrmQ

    rows: QuerySet[Any] = OrmQ.objects.using(alias).filter(key=Conf.CLUSTER_NAME)
    return rows


def depth() -> int | None:
    """Return how many tasks wait for a worker; None where there is no queue, or its broker does not answer."""
    if not is_configured():
        return None
    from django_q.brokers import get_broker
    from django_q.conf import Conf

    if Conf.SYNC:
        return None
    try:
        return int(get_broker().queue_size())
    except Exception as error:
        logger.warning("The broker does not say how many tasks wait: %s", error)
        return None


def _is_sync() -> bool:
    from django_q.conf import Conf

    return bool(Conf.SYNC)


def _shares_database(using: str) -> bool:
    return using == _database()


def _database() -> str | None:
    """Return where a task is a row: django-q2 chooses its broker in this order (`get_broker`)."""
    from django_q.conf import Conf

    another = Conf.SYNC or Conf.BROKER_CLASS or Conf.IRON_MQ or isinstance(Conf.SQS, dict)
    return None if another else Conf.ORM


def _push(task: str, *args: Any) -> None:
    from django_q.tasks import async_task

    async_task(task, *args)


def _push_or_log(task: str, *args: Any) -> None:
    global _paused_until
    if monotonic() < _paused_until:
        return
    try:
        _push(task, *args)
    except Exception:
        logger.exception("Could not queue %s; the sweeper will make it good.", task)
        _paused_until = monotonic() + _pause()


def _pause() -> float:
    from django_q.conf import Conf

    # Under `sync` it was the task that failed, not the broker.
    return 0.0 if Conf.SYNC else _PAUSE
