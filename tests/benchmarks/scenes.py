"""What is measured: how each thing is made ready, and what is done while the clock runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django_q.brokers import get_broker
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate

from jit_approval import services
from jit_approval.models import ApprovalRequest, Notification
from tests import factories
from tests.benchmarks.models import Pair
from tests.benchmarks.views import GatedView, PlainView
from tests.testapp.models import Customer

Action = Callable[[], Any]


class Scenes:
    """A requester, a decider, an object, and every scene as `prepare() -> what is timed`."""

    def __init__(self) -> None:
        self.bob = factories.decider("bob")
        self.erin = factories.user("erin")
        self.caller = APIClient()
        token = Token.objects.create(user=self.erin).key
        self.caller.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        self.customer = Customer.objects.create(name="Ada")
        self.pair = Pair.objects.create(value=0)
        self._amounts = itertools.count(1)

    # --- through the whole stack -------------------------------------------------------------------------

    def plain(self) -> Action:
        """A call of the view without the gate."""
        amount = next(self._amounts)
        return lambda: self._post("/plain/", amount, 201)

    def opening(self) -> Action:
        """A call that nobody has made before: held."""
        amount = next(self._amounts)
        return lambda: self._post("/gated/", amount, 403)

    def repeating(self) -> Action:
        """The same call again, while it waits."""
        amount = self._held()
        return lambda: self._post("/gated/", amount, 403)

    def approved(self) -> Action:
        """The same call again, approved: it runs."""
        amount = self._held()
        services.approve(ApprovalRequest.objects.latest("created_at"), by=self.bob)
        return lambda: self._post("/gated/", amount, 201)

    def plain_object(self) -> Action:
        """A call about an object, without the gate."""
        return lambda: self._delete("/plain/", 200)

    def repeating_object(self) -> Action:
        """A call about an object again, while it waits."""
        self._delete("/gated/", 403)
        return lambda: self._delete("/gated/", 403)

    def reconnecting(self, prepare: Callable[[], Action]) -> Action:
        """The same with CONN_MAX_AGE=0: the call finds no connection."""
        action = prepare()
        connection.close()
        return action

    def plain_read(self) -> Action:
        """A safe method of the view without the gate."""
        return lambda: self._get("/plain/")

    def ungated(self) -> Action:
        """The same method of the gated view: not gated."""
        return lambda: self._get("/gated/")

    # --- the service alone -------------------------------------------------------------------------------

    def deciding(self) -> Action:
        """A vote that completes the quorum of one."""
        row = services.open_request(factories.call(self.erin), factories.terms())
        return lambda: services.approve(row, by=self.bob)

    # --- the view alone ----------------------------------------------------------------------------------

    def ungated_alone(self) -> Action:
        """The gated view as a function, its user given: no middleware, no routing, no authentication."""
        return self._alone(GatedView)

    def plain_alone(self) -> Action:
        """The plain view as a function."""
        return self._alone(PlainView)

    # --- the pieces --------------------------------------------------------------------------------------

    def _post(self, path: str, amount: int, expected: int) -> None:
        response = self.caller.post(path, {"amount": amount}, format="json")
        assert response.status_code == expected, response.data

    def _get(self, path: str) -> None:
        assert self.caller.get(path).status_code == 200

    def _delete(self, path: str, expected: int) -> None:
        response = self.caller.delete(f"{path}{self.customer.pk}/")
        assert response.status_code == expected, response.data

    def _held(self) -> int:
        amount = next(self._amounts)
        self._post("/gated/", amount, 403)
        return amount

    def _alone(self, view: Any) -> Action:
        request = APIRequestFactory().get("/")
        force_authenticate(request, self.erin)
        return lambda: _VIEWS[view](request)


_VIEWS: dict[Any, Any] = {view: view.as_view() for view in (PlainView, GatedView)}


def forget() -> None:
    """Empty the tables that grow, so that the last round meets what the first one met."""
    grown = [
        name
        for name in connection.introspection.table_names()
        if name.startswith(("jit_approval_", "django_q_ormq"))
    ]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(grown)}")
            return
        with connection.constraint_checks_disabled():
            for name in grown:
                cursor.execute(f"DELETE FROM {name}")


def forget_messages() -> None:
    """Let everybody have been told of everything, and nothing be left to do for a worker."""
    Notification.objects.update(state=Notification.State.SENT)
    get_broker().purge_queue()


def add_deciders(count: int) -> None:
    """Give the permission to decide to so many people more."""
    users = get_user_model()
    made = users.objects.bulk_create([users(username=f"decider{n}") for n in range(count)])
    permission = factories.decide_permission()
    through = users.user_permissions.through
    through.objects.bulk_create(
        [through(user_id=user.pk, permission_id=permission.pk) for user in made]
    )
