"""The tests' settings, with a two-column table to compare with, and limits that a benchmark does not meet."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, Q_CLUSTER

INSTALLED_APPS = [*INSTALLED_APPS, "tests.benchmarks"]
ROOT_URLCONF = "tests.benchmarks.views"
JIT_APPROVAL = {
    "MAX_OPEN_PER_REQUESTER": 10_000,
    "OPENINGS_PER_REQUESTER": "10000/hour",
    "OPENINGS_PER_POLICY": "10000/hour",
}
# Neither a log line per task nor one per 403 is what is measured.
Q_CLUSTER = {**Q_CLUSTER, "log_level": "WARNING"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django.request": {"level": "CRITICAL"}},
}
