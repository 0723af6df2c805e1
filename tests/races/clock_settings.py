"""Settings of a clock in a process of its own: the test's database, and a mail server of the test's choice."""

from os import environ

from tests import mailers
from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, Q_CLUSTER

DATABASES["default"]["NAME"] = environ["JIT_CLOCK_DB"]
globals().pop("EMAIL_BACKEND", None)
globals().update(mailers.using(environ["JIT_CLOCK_MAIL"]))
Q_CLUSTER["log_level"] = "WARNING"
