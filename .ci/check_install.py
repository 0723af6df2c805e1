"""Check an installed wheel in a bare project: `check` passes and `migrate` runs, nothing else set.

Run with a Python that has only the package and its dependencies, outside the checkout.
"""

import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command


def main() -> None:
    """Set up the smallest project the README promises, and ask Django about it."""
    with tempfile.TemporaryDirectory() as folder:
        settings.configure(
            SECRET_KEY="a check of the packaging, serving nobody",
            USE_TZ=True,
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            INSTALLED_APPS=[
                "django.contrib.contenttypes",
                "django.contrib.auth",
                "guardian",
                "django_q",
                "rest_framework",
                "jit_approval",
            ],
            AUTHENTICATION_BACKENDS=[
                "django.contrib.auth.backends.ModelBackend",
                "guardian.backends.ObjectPermissionBackend",
            ],
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": Path(folder) / "db.sqlite3",
                    "OPTIONS": {"transaction_mode": "IMMEDIATE"},
                }
            },
            Q_CLUSTER={"name": "packaging", "orm": "default", "timeout": 60, "retry": 120},
        )
        django.setup()
        call_command("check", fail_level="WARNING")
        call_command("migrate", verbosity=0)
        call_command("makemigrations", "jit_approval", check_changes=True, dry_run=True)
    print(f"installed and set up under Django {django.get_version()}")


if __name__ == "__main__":
    main()
