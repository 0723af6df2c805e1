"""`manage.py demo`: a server, a worker and a story, on a database that is thrown away."""

import json
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

try:
    from example_project.demo.browser import is_up
    from example_project.demo.story import Story
except ModuleNotFoundError as error:
    raise CommandError(f"{error}. The demo needs the package's [test] extra.") from error
from example_project.demo.children import Children, stopped_at_the_end
from example_project.demo.mailbox import Mailbox, body

LOGINS = """
Everything keeps running: try it by hand.

   API        {url}/api/        token of erin: {token}
   Log in     {url}/api-auth/login/?next=/api/    erin / erin-demo
   Approve    {url}/admin/      bob / bob-demo, carol / carol-demo

   curl -i -X DELETE -H "Authorization: Token {token}" {url}/api/customers/{customer}/

The same with `-H "Prefer: wait=60"` stays on the line until somebody approves. A call that the server runs, by the
package's own client, which waits, and fetches the answer:

   {python} -m jit_approval.client POST {url}/api/clusters/test-eu/shutdown/ \\
      -H "Authorization: Token {token}" --reason "End of the test"

A cluster shutdown needs both approvers; a dataset erasure still expires after 5 seconds.
E-mails are printed here. Ctrl-C stops everything and throws the database away.
"""


class Command(BaseCommand):
    """Keeps its hands off the database: what happens, happens in the processes it starts."""

    help = "Shows what the package does: held, approved, run once, waited for, run by the server, rejected, expired."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Two options."""
        parser.add_argument("--once", action="store_true", help="stop when the story is told")
        parser.add_argument(
            "--port", type=int, help="by default 8000 or, if that is taken or with --once, any"
        )

    def handle(self, *args: Any, once: bool, port: int | None, **options: Any) -> None:
        """Tell the story; exit status 0 means that every step was as told."""
        with tempfile.TemporaryDirectory(prefix="jit-approval-demo-") as folder:
            try:
                self._run(Path(folder), once, _pick_port(0 if once and port is None else port))
            except KeyboardInterrupt:
                raise CommandError("Stopped before the story was told.", returncode=130) from None

    def _run(self, folder: Path, once: bool, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        mail = Mailbox(folder / "mail")
        env = {
            "EXAMPLE_SQLITE_PATH": str(folder / "demo.sqlite3"),
            "EXAMPLE_EMAIL_DIR": str(mail.folder),
            "EXAMPLE_BASE_URL": url,
        }
        with stopped_at_the_end(Children(env, folder)) as children:
            try:
                things = self._start(children, url, port)
                Story(url, things, children, mail, self._say).tell()
                self._say("\nEvery step was as told.")
            except Exception as error:
                self._say(f"\n{children.log_tails()}")
                raise CommandError(f"The demo failed: {error}") from error
            if not once:
                self._say(LOGINS.format(url=url, python=sys.executable, **things))
                with suppress(KeyboardInterrupt):
                    self._stay(children, mail)

    def _start(self, children: Children, url: str, port: int) -> dict[str, Any]:
        """Database, server and worker, in this order; return what the story has to know."""
        self._say("Preparing a database, people and policies ...")
        things: dict[str, Any] = json.loads(children.run("demo_data").splitlines()[-1])
        self._say(f"Starting the web server at {url} and a django-q2 cluster ...")
        children.start("server", "runserver", "--noreload", f"127.0.0.1:{port}")
        children.start("worker", "qcluster")
        children.wait_for("the web server", lambda: is_up(url))
        return things

    def _stay(self, children: Children, mail: Mailbox) -> None:
        """Print e-mails as they are sent, until Ctrl-C."""
        seen = len(mail.messages())
        while True:
            messages = mail.messages()
            for message in messages[seen:]:
                self._say(f"e-mail To: {message['To']} | Subject: {message['Subject']}")
                self._say("   " + body(message).strip().replace("\n", "\n   "))
            seen = len(messages)
            dead = [name for name, child in children.running.items() if child.poll() is not None]
            if dead:
                raise CommandError(f"the {dead[0]} ended by itself\n{children.log_tails()}")
            time.sleep(0.5)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _pick_port(wanted: int | None) -> int:
    """The wanted port, which must be free; without a wish 8000, or any if that is taken."""
    for port in [8000, 0] if wanted is None else [wanted]:
        with socket.socket() as listener, suppress(OSError):
            # As the server does it: a port that was in use until just now is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            free: int = listener.getsockname()[1]
            return free
    raise CommandError(f"Port {wanted} cannot be used.")
