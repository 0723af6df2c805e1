"""An approved call with any one part of it changed does not run: neither sent again, nor run by the server.

Each case goes through the whole stack. `JIT_TEST_MUTATIONS` says how many; the whole proof takes 100,000.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from os import environ
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from jit_approval import execution, replays, secrets, services
from jit_approval.execution import handler, keeping, kept
from jit_approval.models import StoredCall
from jit_approval.states import Status
from tests import factories
from tests.callers import Caller, token_of
from tests.testapp.models import Customer
from tests.testapp.views import RUNS

pytestmark = pytest.mark.django_db(transaction=True)
CASES = int(environ.get("JIT_TEST_MUTATIONS", 300))
BODY = b'{"name": "Ada", "email": "ada@example.test", "balance": "12.50"}'
KEY = "a-key-of-the-caller"

Environ = dict[str, str]
Mutation = Callable[[random.Random, Environ, bytes], tuple[Environ, bytes]]


@pytest.fixture
def caller(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Caller:
    settings.JIT_APPROVAL = {"SECRET_KEYS": ["k" * 40]}
    settings.ALLOWED_HOSTS = ["*"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    # A connection for each of so many calls is most of what they would take.
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)
    connection.close()
    RUNS.clear()
    long = {"usable_within": timedelta(days=1)}
    factories.policy(actions="customers.update", execution="server", priority=1, **long)
    factories.policy(actions="*", execution="caller", priority=2, **long)
    return Caller()


# --- one part changed -------------------------------------------------------------------------------------


def of_environ(name: str, values: Callable[[random.Random, str], str]) -> Mutation:
    def mutate(chance: random.Random, env: Environ, body: bytes) -> tuple[Environ, bytes]:
        return {**env, name: values(chance, env.get(name, ""))}, body

    return mutate


def one_of(*choices: str) -> Callable[[random.Random, str], str]:
    return lambda chance, was: chance.choice(choices)


def letters(chance: random.Random) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=chance.randint(1, 12)))


def a_byte(chance: random.Random, env: Environ, body: bytes) -> tuple[Environ, bytes]:
    at = chance.randrange(len(body))
    return env, body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def a_piece(chance: random.Random, env: Environ, body: bytes) -> tuple[Environ, bytes]:
    """Something out, something in, or something twice."""
    start, end = sorted(chance.sample(range(len(body) + 1), 2))
    what = chance.choice(["out", "in", "twice"])
    if what == "out":
        return env, body[:start] + body[end:]
    extra = body[start:end] if what == "twice" else letters(chance).encode()
    return env, body[:end] + extra + body[end:]


def the_path(chance: random.Random, was: str) -> str:
    other = chance.choice([str(chance.randint(0, 9)), "", letters(chance), "%31", "/"])
    at = chance.randrange(1, len(was))
    return was[:at] + other + was[at:] if other else was.rstrip("/")


MUTATIONS: dict[str, Mutation] = {
    "method": of_environ("REQUEST_METHOD", one_of("POST", "PATCH", "DELETE", "PURGE", "GET")),
    "path": of_environ("PATH_INFO", the_path),
    "raw path": of_environ("RAW_URI", lambda c, was: f"/api/%{ord('c'):x}ustomers/{letters(c)}"),
    "query": of_environ("QUERY_STRING", lambda c, was: f"{letters(c)}={letters(c)}"),
    "host": of_environ("HTTP_HOST", lambda c, was: f"{letters(c)}.example.com"),
    "port": of_environ("HTTP_HOST", lambda c, was: f"testserver:{c.randint(81, 65535)}"),
    "media type": of_environ(
        "CONTENT_TYPE",
        lambda c, was: c.choice(
            [
                "text/plain",
                f"{was}; x={letters(c)}",
                f"{was};",
                "application/x-www-form-urlencoded",
                "",
            ]
        ),
    ),
    "idempotency key": of_environ("HTTP_IDEMPOTENCY_KEY", lambda c, was: letters(c)),
    "if-match": of_environ("HTTP_IF_MATCH", lambda c, was: f'"{letters(c)}"'),
    "language": of_environ("HTTP_ACCEPT_LANGUAGE", one_of("de", "fr", "el", "pt-br")),
    "scheme": of_environ("wsgi.url_scheme", one_of("https")),
    "body: a byte": a_byte,
    "body: a piece": a_piece,
}


def mutated(
    chance: random.Random, env: Environ, body: bytes, other: str
) -> tuple[str, Environ, bytes]:
    """The call with one part changed, and which."""
    while True:
        name = chance.choice([*MUTATIONS, "credential"])
        if name == "credential":
            return name, {**env, "HTTP_AUTHORIZATION": chance.choice([other, "", other[:-1]])}, body
        new, content = MUTATIONS[name](chance, env, body)
        if (new, content) != (env, body):
            return name, new, content


# --- through the stack ------------------------------------------------------------------------------------


def sent(client: APIClient, env: Environ, body: bytes) -> Any:
    """The answer to a caller's own call."""
    wsgi = {"wsgi.url_scheme": "http", **env, "CONTENT_LENGTH": str(len(body))}
    return client.generic(
        wsgi.pop("REQUEST_METHOD"),
        "/",
        body,
        content_type=wsgi.pop("CONTENT_TYPE"),
        secure=wsgi["wsgi.url_scheme"] == "https",
        **wsgi,
    )


def run_by_server(call: kept.Kept, pk: Any) -> bool:
    """Whether the server spends the approval on this call, made as it makes every call."""
    ticket = replays.Ticket(pk)
    request = kept.rebuilt(call)
    replays.mark(request, ticket)
    with handler.answered(request):
        return ticket.grant is not None


def test_no_call_with_one_part_changed_runs(caller: Caller, caplog: Any) -> None:
    caplog.set_level("CRITICAL")
    customer = Customer.objects.create(name="Ada")
    Customer.objects.create(name="Eve")
    other = token_of(factories.user())
    url = f"/api/customers/{customer.pk}/"
    extra = {"HTTP_IDEMPOTENCY_KEY": KEY}
    held = caller.send(url, BODY, method="PUT", **extra)
    by_server = services.approve(caller.row(held), by=caller.bob)
    stored = StoredCall.objects.get()
    call = kept.of_text(secrets.unseal(stored.sealed, bound_to=keeping.bound_to(by_server)))
    env = {**call.environ, "HTTP_HOST": "testserver"}
    # The same by the caller, under another policy: a POST to the list.
    client = APIClient(raise_request_exception=False)
    own = {**env, "REQUEST_METHOD": "POST", "PATH_INFO": "/api/customers/"}
    grant = caller.approve(sent(client, own, BODY))
    seed = random.randrange(2**32)
    chance, tried = random.Random(seed), Counter[str]()
    for number in range(CASES):
        if number % 2:
            name, new, body = mutated(chance, own, BODY, other)
            answer = sent(client, new, body)
            assert answer.status_code >= 300 or new["REQUEST_METHOD"] == "GET", (seed, name, new)
        else:
            name, new, body = mutated(chance, call.environ, BODY, other)
            scheme = new.pop("wsgi.url_scheme", "http")
            assert not run_by_server(kept.Kept(new, scheme, body), by_server.pk), (seed, name, new)
        tried[name] += 1
        assert RUNS == [], (seed, name, new, body)
        assert Customer.objects.count() == 2, (seed, name, new, body)
    assert {factories.fresh(row).status for row in (by_server, grant)} == {Status.APPROVED}
    # Unchanged, both run: what has been tried was one change away.
    assert sent(client, own, BODY).status_code == 201
    assert execution.run(by_server.pk)
    print(f"\n{CASES} changes, 0 run: {dict(tried)}")
