"""How the people of the story act and look: Erin by HTTP, the others by e-mail and admin."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx

from . import mailbox
from .browser import AdminBrowser
from .children import Children, DemoFailed


class Stage:
    """A running server and worker, and what can be done and seen there. Every `check` is told."""

    def __init__(
        self,
        base_url: str,
        things: dict[str, Any],
        children: Children,
        mail: mailbox.Mailbox,
        say: Callable[[str], None],
    ) -> None:
        self.base_url, self.things = base_url, things
        self.children, self.mail, self.say = children, mail, say
        self.erin = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Token {things['token']}"},
            timeout=20,
            trust_env=False,
        )

    def check(self, condition: bool, fact: str) -> None:
        """Go on only if it is so."""
        if not condition:
            raise DemoFailed(f"not as told: {fact}")
        self.say(f"   ok: {fact}")

    def call(self, method: str, url: str, reason: str, **options: Any) -> httpx.Response:
        """Erin calls the API and says why."""
        headers = {"Approval-Reason": reason, **options.pop("headers", {})}
        response = self.erin.request(method, url, headers=headers, **options)
        self.say(f"   erin: {method} {url} -> {response.status_code} {response.reason_phrase}")
        return response

    @contextmanager
    def on_the_line(self, call: Callable[[], httpx.Response]) -> Iterator[Future[httpx.Response]]:
        """Erin makes a call that takes its time; meanwhile others act."""
        with ThreadPoolExecutor(1) as line:
            yield line.submit(call)

    def newest(self, status: str) -> dict[str, Any] | None:
        """Erin's newest request in this state; None as long as there is none."""
        found: list[dict[str, Any]] = self.see(f"/approvals/?status={status}")["results"]
        return found[0] if found else None

    def wait_until(self, held: dict[str, Any], following: str) -> None:
        """Read the status by long poll: each look is answered when there is news."""
        deadline, headers = time.monotonic() + 30, {"Prefer": "wait=5"}
        while time.monotonic() < deadline:
            response = self.erin.get(held["status_url"], headers=headers)
            if (
                response.status_code != 304
                and response.raise_for_status().json()["next"] == following
            ):
                return
            headers["If-None-Match"] = response.headers["ETag"]
        raise DemoFailed(f"waited in vain for {following!r}")

    def expect_refusal(self, response: httpx.Response, code: str) -> dict[str, Any]:
        """The problem of a call that was not executed, which must be the one that was told."""
        if response.status_code != 403:
            raise DemoFailed(f"expected 403 {code}, got {response.status_code}: {response.text}")
        problem: dict[str, Any] = response.json()
        if problem.get("code") != code or problem.get("executed") is not False:
            raise DemoFailed(f"expected {code}, got {problem}")
        self.say(f"   ok: {code}: {problem['detail']}")
        return problem

    def see(self, url: str) -> dict[str, Any]:
        """What Erin sees at an address, without the gate."""
        seen: dict[str, Any] = self.erin.get(url).raise_for_status().json()
        return seen

    def balance(self) -> Decimal:
        """What the paying account holds."""
        return Decimal(self.see(f"/api/accounts/{self.things['source']}/")["balance"])

    def mail_about(self, held: dict[str, Any], name: str) -> tuple[str, str]:
        """Wait for the worker's e-mail to somebody about a held call; its text and first link."""
        approval_id = held["approval_id"]
        message = self.children.wait_for(
            f"an e-mail to {name}",
            lambda: self.mail.about(approval_id, f"{name}@backoffice.example"),
        )
        self.say(f"   e-mail To: {message['To']} | Subject: {message['Subject']}")
        links = [url for url in mailbox.links(message) if approval_id in urlsplit(url).path]
        if not links or not links[0].startswith(self.base_url):
            raise DemoFailed(f"the e-mail to {name} has no link to this server: {links}")
        self.say(f"      {links[0]}")
        return mailbox.body(message), links[0]

    def decide(self, name: str, link: str, verdict: str, comment: str = "") -> None:
        """Somebody logs in to the admin, opens the decision page and decides there."""
        self.log_in(name).decide(link, verdict, comment)
        self.say(f"   {name}: {verdict}, on the decision page" + f" ({comment})" * bool(comment))

    def log_in(self, name: str) -> AdminBrowser:
        """Somebody logs in to the admin."""
        return AdminBrowser(self.base_url, name, f"{name}-demo")
