"""Where a requester is called back: own endpoints, a few of them, told and deleted but never changed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from jit_approval import clock, conf, links, policies, problems, refusals, secrets
from jit_approval.api.views import ApprovalView, answered
from jit_approval.models import Callback
from jit_approval.notifications.channels import webhook

_TRIES = 5


class CallbackListView(ApprovalView):
    """Own endpoints. A new one is called for every request of the account from then on."""

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Return all of them: there are few. Secrets are not shown again."""
        with answered():
            return Response({"results": [_shown(row) for row in _own(request)]})

    def post(self, request: Request, **kwargs: Any) -> Response:
        """Register one: `{"url": "https://…", "secret": "whsec_…"}`; without a secret one is made, and shown once."""
        with answered():
            url, secret = _asked(request)
            row = _register(request.user, url, secret)
        return Response({**_shown(row), "secret": secret}, status=201)


class CallbackDetailView(ApprovalView):
    """One of them. Somebody else's does not exist."""

    def get(self, request: Request, pk: str, **kwargs: Any) -> Response:
        """Return it: whether it is in use, and if not, why."""
        with answered():
            return Response(_shown(_the(request, pk)))

    def delete(self, request: Request, pk: str, **kwargs: Any) -> Response:
        """Forget it, and its secret. What was to be told there is not told."""
        with answered():
            _the(request, pk).delete()
        return Response(status=204)


def _own(request: Request) -> QuerySet[Callback]:
    return Callback.objects.using(policies.database()).filter(user=request.user.pk)


def _the(request: Request, text: str) -> Callback:
    try:
        return _own(request).get(pk=UUID(text))
    except (ValueError, Callback.DoesNotExist):
        raise problems.not_found("callback") from None


def _asked(request: Request) -> tuple[str, str]:
    data = request.data if isinstance(request.data, dict) else {}
    url, secret = data.get("url"), data.get("secret", "")
    if not isinstance(url, str) or not isinstance(secret, str) or set(data) - {"url", "secret"}:
        raise problems.invalid('Send {"url": "https://…"}, and "secret" if you have one.')
    secret = secret or webhook.make_secret()
    try:
        webhook.check_url(url)
        webhook.check_secret(secret)
    except ValidationError as error:
        raise problems.invalid(" ".join(map(str, error.messages))) from None
    return url, secret


def _register(user: Any, url: str, secret: str) -> Callback:
    """Write it under the first number that is free; who takes the same at once tries the next."""
    alias, limit = policies.database(), conf.get().MAX_CALLBACKS
    for _ in range(_TRIES):
        rows = Callback.objects.using(alias).filter(user=user.pk)
        taken = set(rows.values_list("number", flat=True))
        number = next((each for each in range(1, limit + 1) if each not in taken), None)
        if number is None:
            raise refusals.Problem(
                "too_many_callbacks", f"You may have {limit}. Delete one of them first."
            )
        row = Callback(user=user, number=number, url=url, created_at=clock.now(alias))
        try:
            row.keep_secret(secret)
            with transaction.atomic(using=alias):
                row.save(using=alias, force_insert=True)
        except secrets.SecretError as error:
            raise problems.unavailable(str(error)) from None
        except IntegrityError:
            continue
        return row
    raise problems.unavailable("Others were faster, over and over. Try again.")


def _shown(row: Callback) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "url": row.url,
        "enabled": row.enabled,
        "disabled_because": row.disabled_because,
        "created_at": links.timestamp(row.created_at),
    }
