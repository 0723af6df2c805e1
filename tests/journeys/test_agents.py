"""The examples for agents against the example project on a real server; the model is a script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.test_servers import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

pytestmark = pytest.mark.slow


class Office:
    """The example project, running, and its people's tokens."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tokens = {name: self._token(name) for name in ("erin", "bob")}

    def _token(self, name: str) -> str:
        data = {"username": name, "password": f"{name}-demo"}  # those of the demo
        answer = httpx.post(f"{self.url}/api/token/", data=data, trust_env=False, timeout=60)
        return str(answer.json()["token"])

    def client(self, name: str) -> httpx.Client:
        """Somebody's client."""
        headers = {"Authorization": f"Token {self.tokens[name]}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def new_customer(self) -> int:
        """One more."""
        with self.client("erin") as erin:
            data = {"name": "Ada", "email": f"ada{len(self.customers())}@example.test"}
            answer = erin.post("/api/customers/", json=data)
            assert answer.status_code == 201, answer.text
            return int(answer.json()["id"])

    def customers(self) -> list[int]:
        """Who is there."""
        with self.client("erin") as erin:
            return [each["id"] for each in erin.get("/api/customers/").json()]

    def decide(self, approval_id: str, verdict: str) -> None:
        """Bob says yes or no."""
        with self.client("bob") as bob:
            answer = bob.post(f"/approvals/{approval_id}/{verdict}/", json={"comment": "not him"})
            assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("EXAMPLE_")},
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "PYTHONFAULTHANDLER": "1",
        "EXAMPLE_SQLITE_PATH": str(folder / "db.sqlite3"),
        "EXAMPLE_EMAIL_DIR": str(folder / "mail"),
    }
    for command in ("migrate", "demo_data"):
        subprocess.run(
            [sys.executable, "manage.py", command, "-v0"],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "gunicorn",
                    "--no-control-socket",
                    "--threads=4",
                    f"--bind=127.0.0.1:{port}",
                ),
                "example_project.wsgi",
            ],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}", process, folder / "log")
        yield Office(f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


class Script:
    """A model that does what `instructions` says, and nothing that it was not told."""

    def __init__(self, office: Office, customer: int, verdict: str) -> None:
        self.office, self.customer, self.verdict = office, customer, verdict
        self.asked = 0

    def __call__(self, messages: list[dict[str, Any]], tools: list[Any]) -> dict[str, Any]:
        assert {tool["function"]["name"] for tool in tools} == {"erase_customer", "approval_status"}
        last = messages[-1]
        if last["role"] == "user":
            return self._use("erase_customer", customer_id=self.customer, reason="GDPR #811")
        if last["content"].startswith("Done"):
            return {"role": "assistant", "content": "Erased."}
        told = json.loads(last["content"])
        if told.get("code") == "approval_pending":
            assert "do not report it as done" in told["instructions"]
            assert self.customer in self.office.customers()
            return self._use("approval_status", approval_id=told["approval_id"])
        if told["next"] == "wait":
            self.office.decide(told["id"], self.verdict)
            return self._use("approval_status", approval_id=told["id"])
        if told["next"] == "repeat_call":
            return self._use("erase_customer", customer_id=self.customer, reason="GDPR #811")
        comments = [each["comment"] for each in told["decisions"]]
        return {"role": "assistant", "content": f"Not done: {comments}"}

    def _use(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.asked += 1
        function = {"name": name, "arguments": json.dumps(arguments)}
        calls = [{"id": f"call_{self.asked}", "type": "function", "function": function}]
        return {"role": "assistant", "content": None, "tool_calls": calls}


@pytest.mark.parametrize(
    ("verdict", "word"), [("approve", "Erased."), ("reject", "Not done: ['not him']")]
)
def test_an_openai_style_loop_waits_and_never_reports_what_was_not_done(
    office: Office, verdict: str, word: str
) -> None:
    import openai_loop
    import tools

    customer = office.new_customer()
    kit = tools.Tools(office.url, office.tokens["erin"], "support-bot/1")
    script = Script(office, customer, verdict)
    assert openai_loop.converse(script, kit, "Erase our last customer.") == word
    assert (customer in office.customers()) is (verdict == "reject")
    with closing(kit.http) as http:
        assert http.get("/approvals/").json()["results"][0]["agent"] == "support-bot/1"


def test_an_mcp_server_hands_the_refusal_to_the_model_and_runs_once_approved(
    office: Office,
) -> None:
    environment = {
        **os.environ,
        "BACKOFFICE_URL": office.url,
        "BACKOFFICE_TOKEN": office.tokens["erin"],
    }
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "mcp_server.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        stdin, stdout = server.stdin, server.stdout

        def ask(method: str, **params: Any) -> Any:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            print(json.dumps(message), file=stdin, flush=True)
            return json.loads(stdout.readline())["result"]

        def use(name: str, **arguments: Any) -> tuple[str, bool]:
            result = ask("tools/call", name=name, arguments=arguments)
            return result["content"][0]["text"], result["isError"]

        hello = ask("initialize", clientInfo={"name": "desk", "version": "2"})
        assert hello["serverInfo"]["name"] == "backoffice"
        print('{"jsonrpc": "2.0", "method": "notifications/initialized"}', file=stdin, flush=True)
        assert ask("tools/list")["tools"][0]["name"] == "erase_customer"
        customer = office.new_customer()
        told, is_error = use("erase_customer", customer_id=customer, reason="GDPR #812")
        problem = json.loads(told)
        assert is_error and "instructions" in problem
        office.decide(problem["approval_id"], "approve")
        status = json.loads(use("approval_status", approval_id=problem["approval_id"])[0])
        assert (status["next"], status["agent"]) == ("repeat_call", "desk/2")
        done = use("erase_customer", customer_id=customer, reason="GDPR #812")
        assert done == ("Done: HTTP 204.", False)
        assert customer not in office.customers()
        stdin.close()
        assert server.wait(30) == 0
