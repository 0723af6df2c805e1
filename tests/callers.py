"""Who calls in the tests of the binding, over the real HTTP stack, and what became of it."""

from __future__ import annotations

from typing import Any

from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest
from tests import factories

JSON = "application/json"


def token_of(user: Any) -> str:
    """The value of the Authorization header of this user."""
    return f"Token {Token.objects.get_or_create(user=user)[0].key}"


def client_of(user: Any, **extra: Any) -> APIClient:
    """A client that authenticates by token, and answers 500 as a server would."""
    client = APIClient(raise_request_exception=False, **extra)
    client.credentials(HTTP_AUTHORIZATION=token_of(user))
    return client


class Caller:
    """Somebody who calls, and a decider who says yes."""

    def __init__(self) -> None:
        self.bob = factories.decider()
        self.user = factories.user()
        self.client = client_of(self.user)

    def send(
        self, url: str, raw: bytes = b"", *, method: str = "POST", type: str = JSON, **extra: Any
    ) -> Any:
        """The answer to one call."""
        return self.client.generic(method, url, raw, content_type=type, **extra)

    def form(self, url: str, data: Any, **extra: Any) -> Any:
        """The answer to a multipart POST."""
        return self.client.post(url, data, format="multipart", **extra)

    def approve(self, response: Any) -> ApprovalRequest:
        """The request of a held call, approved."""
        assert response.status_code == 403, response.content
        return services.approve(self.row(response), by=self.bob)

    def row(self, response: Any) -> ApprovalRequest:
        """The row that a held call is answered with."""
        assert response.json()["code"] == "approval_pending", response.content
        return ApprovalRequest.objects.get(pk=response["Approval-Id"])


def multipart(*parts: tuple[str, bytes], boundary: str = "b0undary") -> tuple[bytes, str]:
    """A multipart body of `(headers after "form-data; ", content)`, and its content type."""
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for head, content in parts
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode(), (
        f"multipart/form-data; boundary={boundary}"
    )
