"""Reads the e-mails that the worker has sent, from the files of Django's file backend."""

import re
from email import message_from_string, policy
from email.message import EmailMessage
from pathlib import Path

_SEPARATOR = "\n" + "-" * 79 + "\n"


class Mailbox:
    """All messages in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def messages(self) -> list[EmailMessage]:
        """Every complete message; one that is being written is left for the next look."""
        complete: list[str] = []
        for path in sorted(self.folder.iterdir()):
            complete += path.read_text(errors="replace").split(_SEPARATOR)[:-1]
        return [message_from_string(text.lstrip(), policy=policy.default) for text in complete]

    def about(self, text: str, to: str) -> EmailMessage | None:
        """The latest message to a person whose text contains something, or None so far."""
        for message in reversed(self.messages()):
            if to in str(message["To"]) and text in str(message["Subject"]) + body(message):
                return message
        return None


def body(message: EmailMessage) -> str:
    """The plain text of a message."""
    part = message.get_body(("plain",))
    return part.get_content() if part else ""


def links(message: EmailMessage) -> list[str]:
    """The addresses in a message."""
    return re.findall(r"https?://[^\s<>\"]+", body(message))
