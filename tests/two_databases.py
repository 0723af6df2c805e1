"""Settings of a project that keeps accounts and approvals in one database and its business in another.

Every view is gated by default. Run by `tests/test_gate_kinds.py` in a process of its own.
"""

from os import environ
from pathlib import Path

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE, REST_FRAMEWORK

_FOLDER = Path(environ["JIT_TWO_DATABASES"])
_OPTIONS = {"transaction_mode": "IMMEDIATE"}
DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _FOLDER / f"{alias}.sqlite3",
        "OPTIONS": _OPTIONS,
        "ATOMIC_REQUESTS": alias == "default",
    }
    for alias in ("default", "accounts")
}
DATABASE_ROUTERS = ["tests.two_databases.Router"]
ROOT_URLCONF = "tests.two_databases"
MIDDLEWARE = [*MIDDLEWARE, "jit_approval.middleware.GateBeforeTransaction"]
REST_FRAMEWORK = REST_FRAMEWORK | {
    "DEFAULT_PERMISSION_CLASSES": ["jit_approval.permissions.RequiresApproval"]
}


class Router:
    """The business app lives in `default`, everything else in `accounts`."""

    def _alias(self, label: str) -> str:
        return "default" if label == "testapp" else "accounts"

    def db_for_read(self, model, **hints):
        return self._alias(model._meta.app_label)

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return db == self._alias(app_label)


def __getattr__(name: str) -> object:
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.urls import path
    from rest_framework import generics

    from tests.testapp.models import Customer
    from tests.testapp.views import CustomerSerializer

    class Customers(generics.RetrieveDestroyAPIView):
        queryset = Customer.objects.all()
        serializer_class = CustomerSerializer

    return [path("customers/<int:pk>/", Customers.as_view())]


def main() -> None:
    """Hold a call, approve it, run it, and say what was answered."""
    import django

    django.setup()
    from django.core.management import call_command
    from rest_framework.test import APIClient

    from jit_approval import services
    from jit_approval.models import ApprovalRequest
    from tests import factories
    from tests.testapp.models import Customer

    for alias in DATABASES:
        call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
    call_command("check")
    bob, erin = factories.decider("bob"), APIClient()
    erin.force_authenticate(factories.user("erin"))
    url = f"/customers/{Customer.objects.create(name='Ada').pk}/"
    answers = [erin.get(url).status_code, erin.delete(url).json()["code"]]
    services.approve(ApprovalRequest.objects.get(), by=bob)
    answers += [erin.delete(url).status_code, Customer.objects.count()]
    answers += [ApprovalRequest.objects.using("accounts").get().outcome]
    print(answers)


if __name__ == "__main__":
    main()
