"""Settings of a django-q2 cluster beside a benchmark: its database, and its queue."""

from os import environ

from tests.benchmarks.settings import *  # noqa: F403
from tests.benchmarks.settings import DATABASES, JIT_APPROVAL, Q_CLUSTER

DATABASES["default"]["NAME"] = environ["JIT_WORKER_DB"]
JIT_APPROVAL = {**JIT_APPROVAL, "SECRET_KEYS": [environ["JIT_WORKER_KEY"]]}
if environ.get("JIT_WORKER_REDIS"):
    del Q_CLUSTER["orm"]
    Q_CLUSTER["redis"] = environ["JIT_WORKER_REDIS"]
    Q_CLUSTER["name"] = environ["JIT_WORKER_QUEUE"]
