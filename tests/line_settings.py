"""Settings of a real server whose callers wait on the line, on the database of a test or a benchmark."""

from os import environ

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, MIDDLEWARE, Q_CLUSTER, TEST_DB

DATABASES["default"]["NAME"] = environ["JIT_LINE_DB"]
if TEST_DB == "postgres":
    DATABASES["default"].setdefault("OPTIONS", {})["application_name"] = environ["JIT_LINE_NAME"]
if environ.get("JIT_LINE_POOL"):
    pool = {"min_size": 1, "max_size": int(environ["JIT_LINE_POOL"]), "timeout": 60}
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = pool
MIDDLEWARE = ["jit_approval.middleware.WaitForApproval", *MIDDLEWARE]
ROOT_URLCONF = "tests.line_views"
JIT_APPROVAL = {
    "MAX_WAIT": 600,
    "SECRET_KEYS": ["k" * 40],
    "BIND_HOST": False,  # two servers at two ports serve the same calls
    "MAX_WAITERS": 2000,
    "MAX_WAITERS_PER_REQUESTER": 2000,
    "MAX_THREAD_WAITERS": int(environ.get("JIT_LINE_THREADS", "4")),
    "MAX_OPEN_PER_REQUESTER": 100_000,
    "OPENINGS_PER_REQUESTER": "1000000/hour",
    "OPENINGS_PER_POLICY": "1000000/hour",
}
Q_CLUSTER = {**Q_CLUSTER, "log_level": "WARNING"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django.request": {"level": "CRITICAL"}},
}
