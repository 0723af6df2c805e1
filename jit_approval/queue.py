"""Hand work to django-q2. A task that is never run costs a message or tidiness, never safety."""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import transaction

logger = logging.getLogger(__name__)

# Seconds for which a broker that failed is not asked again by this process: a Redis client tries for
# seconds before it gives up, and every held call would wait for it.
_PAUSE = 30.0
_paused_until = 0.0


def enqueue(task: str, *args: Any, using: str) -> bool:
    """Queue `task` (a dotted path) so that it runs only if the transaction on `using` commits.

    Inside the transaction where django-q2's ORM broker shares the database, for then the task is as durable
    as the row it is about; else after the commit, where a lost enqueue is made good by the sweeper. Returns
    whether there is anything to queue it with.
    """
    if not getattr(settings, "Q_CLUSTER", None) or not apps.is_installed("django_q"):
        return False
    if _shares_database(using):
        _push(task, *args)
    else:
        transaction.on_commit(partial(_push_or_log, task, *args), using=using)
    return True


def _shares_database(using: str) -> bool:
    """Tell whether a task is a row on `using`: django-q2 chooses its broker in this order (`get_broker`)."""
    from django_q.conf import Conf

    another = Conf.SYNC or Conf.BROKER_CLASS or Conf.IRON_MQ or isinstance(Conf.SQS, dict)
    return not another and using == Conf.ORM


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
