"""Whom the content of an event names, beside whoever did it: for erasure. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Members of `data` whose values, or whose items, name people.
_NAMES = ("on_behalf_of", "delegator", "stand_in", "requester", "deciders", "users")


@dataclass(frozen=True)
class Words:
    """By what a person is named: the name of the account, its key, its address. Empty: by none."""

    name: str
    key: str = ""
    address: str = ""


def texts(words: Words) -> Iterator[str]:
    """Return what the body of each event that names the person contains, one of these."""
    yield json.dumps(words.name, ensure_ascii=False)
    if words.key:
        yield f'"recipient":{json.dumps(words.key)}'
    if words.address:
        yield f'"address":{json.dumps(words.address, ensure_ascii=False)}'


def is_about(body: str, words: Words) -> bool:
    """Tell whether the body names the person: a word that only looks like their name is not enough."""
    try:
        found = json.loads(body)
        data, by = found["data"], found["by"]
    except (ValueError, KeyError, TypeError):
        return False
    if isinstance(by, dict) and by.get("label") == words.name:
        return True
    if not isinstance(data, dict):
        return False
    if words.key and data.get("recipient") == words.key:
        return True
    if words.address and data.get("address") == words.address:
        return True
    return any(words.name in _listed(data.get(name)) for name in _NAMES)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
