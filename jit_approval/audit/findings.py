"""What a verification finds, and what it could not check."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jit_approval.audit.acts import Act

_SHOWN = 20
_MOST_ACTS = 1000

WRONG, NOT_JUDGED = 1, 4
"""Exit statuses: something is wrong; no key given signed it, so that nobody can say."""

_LONGEST = 400

FORGED = "the address that goes with it is not the one that its content commits to"
"""What is said where an origin was changed, or added."""


def plain(text: str) -> str:
    """Return text fit for a terminal and a log: what is no printable ASCII, escaped, and not too long.

    Parts of it come from whoever wrote the trail.
    """
    escaped = "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in text)
    return escaped if len(escaped) <= _LONGEST else f"{escaped[:_LONGEST]}..."


def many(count: int, word: str) -> str:
    """Return a number of things in words. Here, for a verifier does without Django's translations."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


class NothingToCheck(Exception):
    """What was given is no trail, no receipt and no selection: nobody is accused for that, and nothing is right."""


class Kind(StrEnum):
    """What is wrong."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    UNSIGNED = "unsigned"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `index` is the event's place in the trail, None where it is about no one event."""

    kind: Kind
    index: int | None
    text: str
    is_exact: bool = True
    """Whether it is this event, and not perhaps one of those after it."""

    def __str__(self) -> str:
        where = f"event {self.index}: " if self.index is not None else ""
        return f"{self.kind}: {where}{self.text}"


@dataclass
class Report:
    """The outcome of a verification."""

    what: str = "trail"
    """What was looked at: a `trail`, a `receipt`, or a `selection` of events."""
    told: dict[str, Any] = field(default_factory=dict)
    """What a receipt that is verified says."""
    origin: str = ""
    events: int = 0
    """Events read."""
    verified: int = 0
    """Events, from the first on, that are as a trusted key signed them."""
    erased: int = 0
    """Of these, events whose content was erased by an act that is itself in the trail."""
    acts: list[Act] = field(default_factory=list)
    """The acts that say so, each signed; somebody may have agreed, or not."""
    withheld: int = 0
    """Events of a receipt or a selection whose origin was left out: it is known by its commitment alone."""
    checkpoints: int = 0
    root: str = ""
    time: int | None = None
    """When the last verified checkpoint was made, in seconds since 1970."""
    keys: list[str] = field(default_factory=list)
    """The keys that were trusted, with those that a trusted key named as its successor."""
    truncation_checked: bool = False
    unsealed: int = 0
    """Events beyond the last checkpoint, which no signature covers."""
    unsealed_since: int | None = None
    """When the oldest of them happened, in seconds since 1970, where the database could be asked."""
    unfinished: list[str] = field(default_factory=list)
    """What was being written while it was read, or never finished."""
    warnings: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    """What no key given can judge. It may be as it was, or somebody else's altogether: it is never taken as right."""
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: Kind, index: int | None, text: str, *, is_exact: bool = True) -> None:
        """Note something that is wrong. All are counted, the first are kept."""
        self.counts[kind.value] += 1
        if len(self.findings) < _SHOWN:
            self.findings.append(Finding(kind, index, plain(text), is_exact))

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong, and the keys that were given could tell."""
        return not self.counts and not self.unjudged

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left unverified for being unfinished."""
        return not (self.unsealed or self.unfinished)

    @property
    def first(self) -> Finding | None:
        """The first bad event, or what else is wrong where no event can be named."""
        named = [found for found in self.findings if found.index is not None]
        named.sort(key=lambda found: (not found.is_exact, found.index))
        return next(iter(named or self.findings), None)

    @property
    def said(self) -> str:
        """What is wrong first of all, or could not be judged, in words; nothing where all is right."""
        return str(self.first or next(iter(self.unjudged), ""))

    def status(self) -> int:
        """Return the exit status: 0 sound, 1 wrong, 3 sound as far as it is finished, 4 not judged with these keys."""
        if not self.is_sound:
            return WRONG if self.counts else NOT_JUDGED
        return 0 if self.is_complete else 3

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "status": self.status(),
            "what": self.what,
            "origin": self.origin,
            "events": self.events,
            "verified": self.verified,
            "erased_by_authority": self.erased,
            "acts": [act.as_dict() for act in self.acts[:_MOST_ACTS]],
            "withheld": self.withheld,
            **{kind.value: self.counts[kind.value] for kind in Kind},
            "unsealed": self.unsealed,
            "unsealed_since": self.unsealed_since,
            "unfinished": self.unfinished,
            "truncation": "checked" if self.truncation_checked else "not checked",
            "checkpoints": self.checkpoints,
            "root": self.root,
            "time": self.time,
            "keys": self.keys,
            "unjudged": self.unjudged,
            "first": str(self.first) if self.first else None,
            "findings": [str(found) for found in self.findings],
            "warnings": self.warnings,
            **({"told": self.told} if self.told else {}),
        }
