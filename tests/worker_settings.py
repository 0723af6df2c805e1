"""Settings of a real django-q2 cluster beside a test: the test's own database and queue, mail into files."""

from os import environ

from tests import mailers
from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, Q_CLUSTER

DATABASES["default"]["NAME"] = environ["JIT_WORKER_DB"]
globals().pop("EMAIL_BACKEND", None)
globals().update(
    mailers.using(
        "django.core.mail.backends.filebased.EmailBackend", file_path=environ["JIT_WORKER_MAIL"]
    )
)
# django-q2 looks at its schedules when this many seconds have added up to 30: at once, then, and not half a minute
# later. Nothing else waits for it.
Q_CLUSTER["guard_cycle"] = 30
if environ.get("JIT_WORKER_REDIS"):
    del Q_CLUSTER["orm"]
    Q_CLUSTER["redis"] = environ["JIT_WORKER_REDIS"]
    Q_CLUSTER["name"] = environ["JIT_WORKER_QUEUE"]
JIT_APPROVAL: dict[str, object] = {"BASE_URL": "https://office.test"}
if environ.get("JIT_WORKER_TIMEOUT"):
    # It runs calls, and cuts them off.
    Q_CLUSTER |= {"timeout": int(environ["JIT_WORKER_TIMEOUT"]), "retry": 6, "guard_cycle": 1}
    JIT_APPROVAL |= {"SECRET_KEYS": ["k" * 40], "RUN_LIMIT": int(environ["JIT_WORKER_RUN_LIMIT"])}
    ROOT_URLCONF = "tests.line_views"
    ALLOWED_HOSTS = ["*"]
