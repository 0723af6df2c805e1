"""Settings of the example project: they run as they are, with nothing else installed.

Environment variables, all optional:

EXAMPLE_DEBUG=1            Django's DEBUG. Off by default: its error pages show too much.
EXAMPLE_SECRET_KEY         The secret key. By default one is made and kept in example_project/var/.
EXAMPLE_KEPT_KEY           Encrypts the calls that the server is to run. By default one is made and
                           kept in example_project/var/.
EXAMPLE_ALLOWED_HOSTS      Comma-separated host names. By default this machine only.
EXAMPLE_BASE_URL           Where links in e-mails point to. By default http://127.0.0.1:8000.
EXAMPLE_SQLITE_PATH        The SQLite file. By default example_project/var/db.sqlite3.
EXAMPLE_POSTGRES_DB        Name of a PostgreSQL database, used instead of SQLite. Host, port, user
                           and password come from PGHOST, PGPORT, PGUSER and PGPASSWORD.
EXAMPLE_REDIS_URL          redis://127.0.0.1:6379/0 or the like: django-q2's broker. By default the
                           database is the broker.
EXAMPLE_ATOMIC_REQUESTS=1  One transaction per web request, with the middleware that this needs.
EXAMPLE_EMAIL_DIR          A folder to write e-mails to, instead of the console.
"""

import os
from contextlib import suppress
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent
VAR_DIR = BASE_DIR / "var"
VAR_DIR.mkdir(exist_ok=True)


def _flag(name: str) -> bool:
    """Whether an environment variable is set to something that means yes."""
    return os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}


def _kept_key(name: str) -> str:
    """This checkout's own key: made at the first start, readable by its owner only."""
    path = VAR_DIR / name
    if not path.exists():
        draft = VAR_DIR / f"{name}.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(get_random_secret_key())
        # Two processes may start at once: the first one's key is the key, and nobody reads half.
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY") or _kept_key("secret_key")
DEBUG = _flag("EXAMPLE_DEBUG")
ALLOWED_HOSTS = os.environ.get("EXAMPLE_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
BASE_URL = os.environ.get("EXAMPLE_BASE_URL", "http://127.0.0.1:8000")
ATOMIC_REQUESTS = _flag("EXAMPLE_ATOMIC_REQUESTS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "guardian",
    "django_q",
    "jit_approval",
    "example_project.backoffice",
    "example_project.demo",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
if not ATOMIC_REQUESTS:
    # First: the call of one who waited is made again through all that follows.
    MIDDLEWARE.insert(0, "jit_approval.middleware.WaitForApproval")
else:
    # An approval is spent before the view's transaction begins, or a rollback would undo it.
    MIDDLEWARE.append("jit_approval.middleware.GateBeforeTransaction")

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES: dict[str, dict[str, object]]
if os.environ.get("EXAMPLE_POSTGRES_DB"):
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["EXAMPLE_POSTGRES_DB"],
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("EXAMPLE_SQLITE_PATH") or VAR_DIR / "db.sqlite3",
            "OPTIONS": {
                # Without IMMEDIATE, a transaction that reads and then writes fails under load.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
DATABASES["default"]["ATOMIC_REQUESTS"] = ATOMIC_REQUESTS
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
ANONYMOUS_USER_NAME = None  # guardian: no row in the user table for nobody

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}

JIT_APPROVAL = {
    "BASE_URL": BASE_URL,
    # Callers that send `Prefer: wait=60` stay on the line. Under ATOMIC_REQUESTS none can.
    "MAX_WAIT": 0 if ATOMIC_REQUESTS else 60,
    # Calls that the server runs, and their answers, are encrypted under this while they are kept.
    "SECRET_KEYS": [os.environ.get("EXAMPLE_KEPT_KEY") or _kept_key("kept_key")],
    # As long as the worker lets a task run (Q_CLUSTER, timeout): no call of this office takes longer.
    "RUN_LIMIT": 60,
}

Q_CLUSTER: dict[str, object] = {
    "name": "backoffice",
    "workers": 1,
    "timeout": 60,
    "retry": 120,
    "max_attempts": 5,
    "ack_failures": False,
}
if os.environ.get("EXAMPLE_REDIS_URL"):
    Q_CLUSTER["redis"] = os.environ["EXAMPLE_REDIS_URL"]
else:
    Q_CLUSTER["orm"] = "default"

DEFAULT_FROM_EMAIL = "Back office <approvals@backoffice.example>"
if os.environ.get("EXAMPLE_EMAIL_DIR"):
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = os.environ["EXAMPLE_EMAIL_DIR"]
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
