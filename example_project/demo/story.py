"""The story, step by step, over real HTTP. Each step says what happens and checks that it does."""

import base64
import json
import time
from decimal import Decimal
from typing import Any

import httpx

from .stage import Stage

REASON = "Invoice 2026-118, in two instalments"
REFUSAL = "Both instalments have been paid already."
AMOUNT = Decimal("250000.00")


class Story(Stage):
    """Erin asks, Bob and Carol decide."""

    def tell(self) -> None:
        """All of it, in order."""
        before = self.balance()
        self.say("\n1. Erin pays a supplier. The call is held.")
        held = self.held(before)
        self.say("\n2. Who was told")
        link = self.told(held)
        self.say("\n3. Bob approves, on the admin's own page")
        self.approved(held, link, before)
        self.say("\n4. Erin repeats the identical call. It runs.")
        self.runs(held, before)
        self.say("\n5. She pays the second instalment, and stays on the line")
        self.waits_on_the_line(before - AMOUNT)
        self.say("\n6. She tries the first one once more. It is held anew.")
        again = self.held_anew(held, before - 2 * AMOUNT)
        self.say("\n7. Carol rejects that one")
        self.rejected(again, before - 2 * AMOUNT)
        self.say("\n8. Shutting down a cluster takes two approvals, and the server runs it")
        self.server_runs()
        self.say("\n9. A dataset erasure that nobody decides expires")
        self.expires()

    def held(self, balance: Decimal) -> dict[str, Any]:
        """The first call gets 403 and an id; the same call again gets the same id."""
        problem = self.expect_refusal(self.pay(), "approval_pending")
        self.say(f"   id {problem['approval_id']}, match code {problem['match_code']}")
        self.say(f"   policy {problem['policy']!r}, {problem['expires_in']} s left to decide")
        again = self.expect_refusal(self.pay(), "approval_pending")
        self.check(again["approval_id"] == problem["approval_id"], "the repeat has the same id")
        self.check(self.balance() == balance, "no money has moved")
        return problem

    def told(self, held: dict[str, Any]) -> str:
        """Bob and Carol have an e-mail with a link, sent by the worker, without the payload."""
        for name in ("carol", "bob"):
            text, link = self.mail_about(held, name)
            self.check("250000" not in text, "the e-mail does not carry the payload")
        return link

    def approved(self, held: dict[str, Any], link: str, balance: Decimal) -> None:
        """Bob finds the call in his inbox, compares the match code, and approves."""
        bob = self.log_in("bob")
        inbox = bob.open("/admin/jit_approval/approvalrequest/")
        self.check("transfers.create" in inbox.text, "the call is in Bob's inbox")
        page = bob.open(link)
        self.check(held["match_code"] in page.text, "the decision page shows the match code")
        self.check(REASON in page.text, "the decision page shows Erin's reason")
        self.decide("bob", link, "approve", "Checked against the invoice.")
        self.check(self.see(held["status_url"])["status"] == "approved", "the call is approved")
        self.check(self.balance() == balance, "approving has moved no money")
        self.mail_about(held, "erin")

    def runs(self, held: dict[str, Any], balance: Decimal) -> None:
        """The repeat moves the money, once."""
        response = self.pay()
        self.check(response.status_code == 201, "201 Created")
        spent = response.headers.get("Approval-Status"), response.headers.get("Approval-Id")
        self.check(spent == ("consumed", held["approval_id"]), "the answer names the approval")
        self.check(self.balance() == balance - AMOUNT, "the money has moved, once")
        state = self.see(held["status_url"])
        self.check(state["status"] == "consumed", "the approval is used up")
        self.check(state["outcome"] == "succeeded", "the outcome is recorded: succeeded")

    def waits_on_the_line(self, balance: Decimal) -> None:
        """The moment Bob approves, the call that Erin still has open goes through."""
        bob = self.log_in("bob")
        with self.on_the_line(lambda: self.pay("second", {"Prefer": "wait=60"})) as answer:
            held = self.children.wait_for("Erin's call", lambda: self.newest("pending"))
            page = bob.open(f"/admin/jit_approval/approvalrequest/{held['id']}/decide/")
            self.check(held["match_code"] in page.text, "Bob has the call before him")
            self.check(not answer.done(), "Erin is on the line")
            heard: list[float] = []
            answer.add_done_callback(lambda _: heard.append(time.monotonic()))
            clicked = time.monotonic()
            bob.submit(page, "approve")
            response = answer.result(30)
        self.check(response.status_code == 201, "the answer to the very call: 201 Created")
        applied = response.headers.get("Preference-Applied")
        self.check(applied == "wait=60", f"Preference-Applied: {applied}")
        self.say(f"   {heard[0] - clicked:.2f} s from Bob's click to Erin's answer")
        self.check(self.balance() == balance - AMOUNT, "the money has moved, once")

    def held_anew(self, held: dict[str, Any], balance: Decimal) -> dict[str, Any]:
        """An approval is good for one run."""
        problem = self.expect_refusal(self.pay(), "approval_pending")
        self.check(problem["approval_id"] != held["approval_id"], "a new id: a new request")
        self.check(self.balance() == balance, "no more money has moved")
        return problem

    def rejected(self, held: dict[str, Any], balance: Decimal) -> None:
        """Carol's comment reaches Erin; no money moves."""
        _, link = self.mail_about(held, "carol")
        self.decide("carol", link, "reject", REFUSAL)
        problem = self.expect_refusal(self.pay(), "approval_rejected")
        self.check(REFUSAL in str(problem), f"Erin is told why: {REFUSAL!r}")
        self.check(self.balance() == balance, "no more money has moved")
        self.mail_about(held, "erin")

    def server_runs(self) -> None:
        """One approval of two is none; with both a worker runs the call, and Erin fetches the answer."""
        url, why = "/api/clusters/prod-eu/shutdown/", "Moving out of the old data centre"
        held = self.expect_refusal(self.call("POST", url, why), "approval_pending")
        self.check(held["next"] == "server_runs", "Erin need not repeat it")
        _, link = self.mail_about(held, "bob")
        self.decide("bob", link, "approve")
        self.expect_refusal(self.call("POST", url, why), "approval_pending")
        self.check(self.see("/api/clusters/prod-eu/")["state"] == "running", "the cluster is up")
        self.decide("carol", link, "approve")
        result = self.fetched(held)
        self.check(result["status"] == 200, "the server has run it: its answer is 200")
        answer = json.loads(base64.b64decode(result["body"]))
        self.check(answer["state"] == "stopped", f"the answer's body: {answer}")
        self.check(self.see("/api/clusters/prod-eu/")["state"] == "stopped", "the cluster is down")
        self.expect_refusal(self.call("POST", url, why), "approval_consumed")

    def fetched(self, held: dict[str, Any]) -> dict[str, Any]:
        """What there is at the result URL once the server has run the call."""
        approved = time.monotonic()
        self.wait_until(held, "fetch_result")
        self.say(f"   erin: GET {held['result_url']}")
        result = self.see(held["result_url"])
        self.say(f"   {time.monotonic() - approved:.2f} s after the second approval")
        return result

    def expires(self) -> None:
        """When the time is up, it is up: nothing has to have run for that."""
        url = f"/api/datasets/{self.things['dataset']}/"
        why = "The contract with Northwind has ended"
        held = self.expect_refusal(self.call("DELETE", url, why), "approval_pending")
        self.say(f"   nobody decides for {held['expires_in']} s ...")
        time.sleep(held["expires_in"] + 0.5)
        named = {"Approval-Id": held["approval_id"]}
        self.expect_refusal(self.call("DELETE", url, why, headers=named), "approval_expired")
        self.check(self.see(held["status_url"])["status"] == "expired", "the request has expired")
        self.check("rows" in self.see(url), "the dataset is still there")

    def pay(
        self, instalment: str = "first", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """The call that all this is about, byte for byte the same each time."""
        payment = {
            "source": self.things["source"],
            "target": self.things["target"],
            "amount": str(AMOUNT),
            "reference": f"INV-2026-118 {instalment}",
        }
        return self.call(
            "POST", "/api/transfers/", REASON, json=payment, headers=headers or {}, timeout=70
        )
