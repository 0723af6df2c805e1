"""Ways to tell people. A module of this folder is a channel, found by its name: see docs/channels.md.

A channel module has `LABEL`, `FIELDS` (what an administrator configures), and
`notify(message, target) -> None`, which returns or raises `TransportError`. It may have `check(target)`, which
raises ValidationError where values do not go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, cast

from jit_approval import conf
from jit_approval.notifications.transport import Field, Message, Target, TransportError

__all__ = ["Channel", "find", "kinds"]


class Channel(Protocol):
    """What a channel module offers."""

    LABEL: Any
    FIELDS: Sequence[Field]

    def notify(self, message: Message, target: Target) -> None:
        """Hand the message over, or raise TransportError."""


@cache
def _own() -> dict[str, str]:
    return {
        found.name: f"{__name__}.{found.name}"
        for found in iter_modules(__path__)
        if not found.name.startswith("_")
    }


def kinds() -> dict[str, str]:
    """Return the channels there are: name → dotted module, those of the setting `CHANNELS` included."""
    ours = {path.rpartition(".")[2]: path for path in conf.get().CHANNELS}
    return {**ours, **_own()}


def find(kind: str) -> Channel:
    """Return the module of this name.

    Raises:
        TransportError: there is none, or it does not load here.
    """
    path = kinds().get(kind)
    if path is None:
        raise TransportError(f"There is no kind of channel named {kind!r}.")
    try:
        return cast(Channel, import_module(path))
    except ImportError as error:
        raise TransportError(f"The channel {kind!r} does not load: {error}") from None
