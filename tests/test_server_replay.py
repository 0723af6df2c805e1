"""The replayed call sees what the original saw: host, scheme, language, tenant, session, credential, files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import include, path
from django.utils import timezone, translation
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.parsers import FileUploadParser, FormParser, JSONParser, MultiPartParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from jit_approval import execution, services
from jit_approval.body import lists_of
from jit_approval.models import ApprovalRequest, StoredCall
from jit_approval.permissions import RequiresApproval
from jit_approval.states import Outcome, Status
from tests import factories
from tests.callers import multipart, token_of
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]
SEEN: list[dict[str, Any]] = []


class Tenant:
    """A middleware of the kind that says whose data it is, by a header."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.tenant = request.headers.get("X-Tenant", "none")
        return self.get_response(request)


class KeyAuthentication(BaseAuthentication):
    """A project's own: a key in a header of its own, with scopes."""

    def authenticate(self, request: Any) -> Any:
        key = request.META.get("HTTP_X_API_KEY")
        if key is None:
            return None
        token = Token.objects.filter(key=key).select_related("user").first()
        if token is None:
            raise AuthenticationFailed
        return token.user, {"scopes": ["pay"], "key": key}


class Sees(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)
    parser_classes = (JSONParser, MultiPartParser, FormParser)

    def post(self, request: Any, **kwargs: Any) -> Response:
        SEEN.append(
            {
                "user": request.user.pk,
                "auth": str(request.auth) if not isinstance(request.auth, dict) else request.auth,
                "authenticator": type(request.successful_authenticator).__name__,
                "host": request.get_host(),
                "scheme": request.scheme,
                "secure": request.is_secure(),
                "uri": request.build_absolute_uri(),
                "language": translation.get_language(),
                "zone": timezone.get_current_timezone_name(),
                "tenant": getattr(request._request, "tenant", None),
                "ip": request.META["REMOTE_ADDR"],
                "agent": request.META.get("HTTP_USER_AGENT"),
                "query": dict(request.query_params.lists()),
                "kwargs": kwargs,
                "session": dict(getattr(request._request, "session", {})).get("cart"),
                "data": {
                    name: values
                    for name, values in (
                        request.data.lists()
                        if hasattr(request.data, "lists")
                        else request.data.items()
                    )
                    if name not in request.FILES
                },
                "files": [
                    (name, one.name, one.content_type, one.content_type_extra, one.read())
                    for name, found in lists_of(request.FILES)
                    for one in found
                ],
            }
        )
        return Response({"ran": True}, headers={"X-Secret": "1", "Set-Cookie": "a=b"})


class SeesUpload(Sees):
    parser_classes = (FileUploadParser,)


class SeesKey(Sees):
    authentication_classes = (KeyAuthentication,)


class SeesSession(Sees):
    authentication_classes = (SessionAuthentication,)


class Writes(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request: Any) -> Response:
        Customer.objects.create(name="half")
        if request.data.get("fail"):
            raise ZeroDivisionError
        return Response({})


urlpatterns = [
    path("approvals/", include("jit_approval.urls")),
    path("sees/", Sees.as_view()),
    path("sees/<str:what>/", Sees.as_view()),
    path("upload/", SeesUpload.as_view()),
    path("key/", SeesKey.as_view()),
    path("session/", SeesSession.as_view()),
    path("writes/", Writes.as_view()),
]


@pytest.fixture(autouse=True)
def _configured(settings: Any) -> None:
    settings.JIT_APPROVAL = {"SECRET_KEYS": ["k" * 40]}
    SEEN.clear()


@pytest.fixture
def policy() -> Any:
    return factories.policy(execution="server")


@pytest.fixture
def bob(policy: Any) -> Any:
    return factories.decider("bob")


@pytest.fixture
def erin(bob: Any) -> Any:
    return factories.user("erin")


def original(policy: Any, send: Any) -> dict[str, Any]:
    """What the view sees where nothing is held."""
    type(policy).objects.update(effect="allow")
    response = send()
    assert response.status_code == 200, response.content
    type(policy).objects.update(effect="require")
    return SEEN.pop()


def replayed(send: Any, bob: Any) -> ApprovalRequest:
    """The request of a call that was held, approved and run by the server."""
    response = send()
    assert response.status_code == 403, response.content
    row = ApprovalRequest.objects.get(pk=response["Approval-Id"])
    assert row.execution == "server", response.json()
    services.approve(row, by=bob)
    execution.run(row.pk)
    return factories.fresh(row)


def same(policy: Any, bob: Any, send: Any) -> dict[str, Any]:
    """What the view saw both times."""
    first = original(policy, send)
    row = replayed(send, bob)
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED), why(row)
    [again] = SEEN
    assert again == first
    return first


def why(row: ApprovalRequest) -> str:
    return "\n".join(event.body for event in row.audit_events.all())


def by_token(user: Any, **extra: Any) -> APIClient:
    client = APIClient(**extra)
    client.credentials(HTTP_AUTHORIZATION=token_of(user))
    return client


def test_token_host_address_query_and_path(policy, bob, erin, settings):
    settings.ALLOWED_HOSTS = ["api.example.com"]
    client = by_token(erin)

    def send() -> Any:
        return client.post(
            "/sees/Zo%C3%AB%201/?a=1&a=%C3%A9&b=",
            {"amount": 1.50, "name": "Zoë"},
            HTTP_HOST="api.example.com:8443",
            HTTP_USER_AGENT="payer/1",
            REMOTE_ADDR="203.0.113.7",
        )

    seen = same(policy, bob, send)
    assert (seen["host"], seen["ip"]) == ("api.example.com:8443", "203.0.113.7")
    assert seen["authenticator"] == "TokenAuthentication"


@pytest.mark.parametrize("how", ["proxy", "wsgi"])
def test_secure_redirect_and_proxy(policy, bob, erin, settings, how):
    settings.SECURE_SSL_REDIRECT = True
    settings.USE_X_FORWARDED_HOST = True
    settings.ALLOWED_HOSTS = ["api.example.com"]
    extra: dict[str, Any] = {"HTTP_X_FORWARDED_HOST": "api.example.com"}
    if how == "proxy":
        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_OUR_PROTO", "https")
        extra["HTTP_X_OUR_PROTO"] = "https"
    else:
        extra["secure"] = True
    client = by_token(erin)
    seen = same(policy, bob, lambda: client.post("/sees/", {"a": 1}, **extra))
    assert seen["uri"] == "https://api.example.com/sees/"


def test_locale_and_time_zone_are_the_callers_and_not_left_behind(policy, bob, erin, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    client = by_token(erin)
    send = lambda: client.post("/sees/", {"a": 1}, HTTP_ACCEPT_LANGUAGE="de")  # noqa: E731
    first = original(policy, send)
    with translation.override("fr"), timezone.override("Asia/Tokyo"):
        pass
    response = send()
    services.approve(ApprovalRequest.objects.get(pk=response["Approval-Id"]), by=bob)
    # A worker that was left in another language and zone.
    translation.activate("fr")
    timezone.activate("Asia/Tokyo")
    assert execution.run(response["Approval-Id"])
    assert (translation.get_language(), timezone.get_current_timezone_name()) == (
        "fr",
        "Asia/Tokyo",
    )
    assert SEEN == [first]
    assert first["language"] == "de"


def test_tenant_middleware_by_a_header_that_is_kept(policy, bob, erin, settings):
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "REPLAY_HEADERS": ["X-Tenant"]}
    settings.MIDDLEWARE = [f"{__name__}.Tenant", *settings.MIDDLEWARE]
    client = by_token(erin)
    seen = same(policy, bob, lambda: client.post("/sees/", {"a": 1}, HTTP_X_TENANT="acme"))
    assert seen["tenant"] == "acme"


def test_a_bound_header_is_kept_and_no_header_is_invented(policy, bob, erin, settings):
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "BOUND_HEADERS": ["X-Tenant"]}
    settings.MIDDLEWARE = [f"{__name__}.Tenant", *settings.MIDDLEWARE]
    client = by_token(erin)
    send = lambda: client.post("/sees/", {"a": 1}, HTTP_X_TENANT="acme", HTTP_IF_MATCH='"1"')  # noqa: E731
    assert same(policy, bob, send)["tenant"] == "acme"


def session_of(user: Any) -> Client:
    client = Client(enforce_csrf_checks=True, headers={"accept": "application/json"})
    client.force_login(user)
    session = client.session
    session["cart"] = "7 books"
    session.save()
    client.cookies["csrftoken"] = "t" * 32
    return client


@pytest.mark.parametrize("kind", ["json", "multipart"])
def test_session_with_csrf(policy, bob, erin, kind):
    client = session_of(erin)

    def send() -> Any:
        token = {"HTTP_X_CSRFTOKEN": "t" * 32}
        if kind == "json":
            return client.post("/session/", b'{"a": 1}', content_type="application/json", **token)
        upload = SimpleUploadedFile("a.txt", b"text", content_type="text/plain")
        return client.post("/session/", {"a": ["1", "2"], "f": upload}, **token)

    seen = same(policy, bob, send)
    assert (seen["session"], seen["authenticator"]) == ("7 books", "SessionAuthentication")


def test_a_session_that_has_ended_runs_nothing(policy, bob, erin):
    client = session_of(erin)
    response = client.post(
        "/session/", b'{"a": 1}', content_type="application/json", HTTP_X_CSRFTOKEN="t" * 32
    )
    row = ApprovalRequest.objects.get(pk=response["Approval-Id"])
    services.approve(row, by=bob)
    client.logout()
    assert not execution.run(row.pk)
    assert (SEEN, factories.fresh(row).status) == ([], Status.REVOKED)


def test_custom_authentication_gives_its_scopes_anew(policy, bob, erin, settings):
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "REPLAY_HEADERS": ["X-Api-Key"]}
    key = Token.objects.create(user=erin).key
    seen = same(policy, bob, lambda: APIClient().post("/key/", {"a": 1}, HTTP_X_API_KEY=key))
    assert seen["auth"] == {"scopes": ["pay"], "key": key}
    assert key not in "".join(StoredCall.objects.values_list("sealed", flat=True))


def test_what_the_server_does_not_keep_the_requester_repeats(policy, bob, erin):
    """A header that a view may look for must not be missing the second time."""
    client = by_token(erin)
    response = client.post("/sees/", {"a": 1}, HTTP_X_DRY_RUN="true", HTTP_PREFER="respond-async")
    assert response.status_code == 403
    assert "X-Dry-Run" in response.json()["detail"]
    row = services.approve(ApprovalRequest.objects.get(), by=bob)
    assert row.execution == "caller"
    assert not execution.run(row.pk)
    assert client.post("/sees/", {"a": 1}, HTTP_X_DRY_RUN="true").status_code == 200


def test_headers_that_mean_nothing_to_a_view_are_no_hindrance(policy, bob, erin):
    client = by_token(erin)
    extra = {
        "HTTP_ACCEPT_ENCODING": "gzip",
        "HTTP_SEC_FETCH_MODE": "cors",
        "HTTP_X_REQUEST_ID": "7",
    }
    assert replayed(lambda: client.post("/sees/", {"a": 1}, **extra), bob).outcome == "succeeded"


def test_a_remote_user_is_not_believed_again(policy, bob, erin, settings, monkeypatch):
    from rest_framework.authentication import RemoteUserAuthentication

    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    monkeypatch.setattr(Sees, "authentication_classes", (RemoteUserAuthentication,))
    response = APIClient().post("/sees/", {"a": 1}, REMOTE_USER="erin")
    assert "vouches" in response.json()["detail"]
    assert not StoredCall.objects.exists()


FORMS = [
    (('name="a"', b"1"), ('name="a"', b"2"), ('name="b"', "Zoë ☃".encode())),
    (('name="f"; filename="a.txt"\r\nContent-Type: text/plain; charset=utf-8', b"text\r\n--b0"),),
    (
        (
            'name="f"; filename="sn\\"ow ☃.bin"'.replace("☃", "x")
            + "\r\nContent-Type: application/x-y",
            bytes(range(256)),
        ),
    ),
    (
        ('name="z"', b""),
        ('name="f"; filename="1"\r\nContent-Type: text/plain', b"1"),
        ('name="a"', b"\r\n"),
        ('name="f"; filename="2"\r\nContent-Type: text/plain', b""),
    ),
    (
        (
            'name="f"; filename="c"\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64',
            b"aGk=",
        ),
    ),
]


@pytest.mark.parametrize("parts", FORMS)
@pytest.mark.parametrize("read_before", [False, True])
def test_file_uploads(policy, bob, erin, settings, parts, read_before):
    if read_before:
        settings.MIDDLEWARE = [f"{__name__}.ReadsPost", *settings.MIDDLEWARE]
    body, content_type = multipart(*parts)
    client = by_token(erin)
    same(policy, bob, lambda: client.generic("POST", "/sees/", body, content_type=content_type))


class ReadsPost:
    """A middleware that takes the form before anybody else."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        list(request.POST)
        return self.get_response(request)


def test_a_raw_upload(policy, bob, erin):
    client = by_token(erin)

    def send() -> Any:
        return client.generic(
            "POST",
            "/upload/",
            bytes(range(256)),
            content_type="application/octet-stream",
            HTTP_CONTENT_DISPOSITION='attachment; filename="all.bin"',
        )

    assert same(policy, bob, send)["files"][0][1] == "all.bin"


def test_a_urlencoded_form(policy, bob, erin):
    client = by_token(erin)
    form = "application/x-www-form-urlencoded"
    same(
        policy,
        bob,
        lambda: client.generic("POST", "/sees/", b"a=1&a=2&b=%C3%A9", content_type=form),
    )


@pytest.mark.parametrize("fail", [False, True])
def test_atomic_requests(policy, bob, erin, settings, fail):
    from django.db import connection

    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "jit_approval.middleware.GateBeforeTransaction"]
    client = by_token(erin)
    before = connection.settings_dict["ATOMIC_REQUESTS"]
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        row = replayed(lambda: client.post("/writes/", {"fail": fail}), bob)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = before
    assert (row.status, row.outcome) == (
        Status.CONSUMED,
        Outcome.FAILED if fail else Outcome.SUCCEEDED,
    )
    assert Customer.objects.count() == (0 if fail else 1)
    assert row.exception == ("builtins.ZeroDivisionError" if fail else "")


def test_an_answer_keeps_no_header_that_is_not_on_the_list(policy, bob, erin):
    client = by_token(erin)
    row = replayed(lambda: client.post("/sees/", {"a": 1}), bob)
    data = client.get(f"/approvals/{row.pk}/result/").json()
    assert set(data["headers"]) == {"Content-Type"}
    assert json.loads(__import__("base64").b64decode(data["body"])) == {"ran": True}


def test_asgi_and_wsgi_bind_the_same_path(policy, bob, erin):
    """A call that came by ASGI is run in a worker that knows WSGI alone."""
    from asgiref.sync import async_to_sync
    from django.test import AsyncClient

    token = token_of(erin)

    def send() -> Any:
        return async_to_sync(AsyncClient().post)(
            "/sees/Zo%C3%AB/?q=%C3%A9",
            {"a": 1},
            content_type="application/json",
            headers={"authorization": token},
        )

    same(policy, bob, send)
