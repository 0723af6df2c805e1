"""Settings the tests run under; which database is chosen by environment variables.

`JIT_TEST_DB` is `sqlite` (default), `postgres` or `mariadb`. `JIT_TEST_DB_HOST`, `_PORT`, `_USER`
and `_PASSWORD` reach the server; `JIT_TEST_DB_SUFFIX` keeps runs at the same time apart.
"""

import sys
from os import environ
from pathlib import Path
from typing import Any

import django

BASE_DIR = Path(__file__).resolve().parent.parent
TEST_DB = environ.get("JIT_TEST_DB", "sqlite")
_NAME = "_".join(filter(None, ["jit_approval", environ.get("JIT_TEST_DB_SUFFIX", "")]))


def _server(engine: str, *, port: str, user: str, **settings: Any) -> dict[str, Any]:
    """A database server's settings: the environment's word, else its usual local defaults."""
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": _NAME,
        "HOST": environ.get("JIT_TEST_DB_HOST", "127.0.0.1"),
        "PORT": environ.get("JIT_TEST_DB_PORT", port),
        "USER": environ.get("JIT_TEST_DB_USER", user),
        "PASSWORD": environ.get("JIT_TEST_DB_PASSWORD", ""),
        **settings,
    }


def _sqlite() -> dict[str, Any]:
    """A file, not memory: threads and other processes must see the same database."""
    folder = BASE_DIR / ".test-db"
    folder.mkdir(exist_ok=True)
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": folder / f"{_NAME}.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        "TEST": {"NAME": str(folder / f"test_{_NAME}.sqlite3")},
    }


def _mariadb() -> dict[str, Any]:
    """A session that is not in UTC: every comparison of a deadline must survive it."""
    return _server(
        "mysql",
        port="3306",
        user="root",
        OPTIONS={"charset": "utf8mb4", "init_command": "SET time_zone = '+05:30'"},
        TEST={"NAME": f"test_{_NAME}", "CHARSET": "utf8mb4"},
    )


def _postgres() -> dict[str, Any]:
    """In UTF-8 even where the cluster was made without a locale, as on a bare machine."""
    return _server(
        "postgresql",
        port="5432",
        user="postgres",
        TEST={"NAME": f"test_{_NAME}", "CHARSET": "UTF8", "TEMPLATE": "template0"},
    )


DATABASES = {
    "default": {"sqlite": _sqlite, "postgres": _postgres, "mariadb": _mariadb}[TEST_DB](),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

SECRET_KEY = "tests only: nothing outside this folder is signed with it"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
else:
    EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
DEFAULT_FROM_EMAIL = "approvals@example.test"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "guardian",
    "django_q",
    "rest_framework",
    "rest_framework.authtoken",
    "jit_approval",
    "tests.testapp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
# The suite logs in thousands of times; the strength of a hash is not what it tests.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ANONYMOUS_USER_NAME = None  # guardian: no stand-in row for people who are not logged in

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
Q_CLUSTER = {
    "name": "jit_approval_tests",
    "orm": "default",
    "workers": 1,
    "timeout": 60,
    "retry": 120,
    "poll": 0.2,
}

# Tests flush their tables; those of the triggers make them (tests/test_appendonly.py). `check` would call it an error.
JIT_APPROVAL: dict[str, Any] = {"AUDIT_APPEND_ONLY": False} if "pytest" in sys.modules else {}
