"""The settings dict `JIT_APPROVAL`, read lazily into one typed object. Nothing else reads it.

Durations are `datetime.timedelta`; numbers of seconds are accepted and converted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from ipaddress import ip_network
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

MIN_WINDOW = timedelta(seconds=1)
MAX_WINDOW = timedelta(days=30)
MAX_WAIT = timedelta(days=365)
MAX_APPROVALS = 1000
MAX_ON_THE_LINE = timedelta(hours=1)
MIN_KEY = 32
MAX_SECRETS = 2


@dataclass(frozen=True)
class Rate:
    """At most `count` in `period`. Written as `"100/hour"`: second, minute, hour or day."""

    count: int
    period: timedelta


class Ports(tuple[int, ...]):
    """TCP ports."""


_HTTPS = Ports((443, 8443))


@dataclass(frozen=True)
class Settings:
    """What a project may set, with what holds when it does not."""

    # Terms of a call that no policy matches.
    DECIDE_WITHIN: timedelta = timedelta(minutes=15)
    USABLE_WITHIN: timedelta = timedelta(minutes=5)
    REQUIRED_APPROVALS: int = 1
    REQUIRE_REASON: bool = False
    REJECTION_COOLDOWN: timedelta = timedelta(minutes=5)

    # Limits on what a caller can make approvers and the database bear.
    MAX_OPEN_PER_REQUESTER: int = 20
    OPENINGS_PER_REQUESTER: Rate = Rate(100, timedelta(hours=1))
    OPENINGS_PER_POLICY: Rate = Rate(1000, timedelta(hours=1))
    MAX_BODY_BYTES: int = 1024 * 1024
    MAX_REASON_LENGTH: int = 500
    MAX_JSON_DEPTH: int = 32

    # What a decider is shown.
    REDACT_KEYS: tuple[str, ...] = ()
    MAX_PREVIEW_CHARS: int = 16 * 1024

    # What an approval is bound to.
    BIND_HOST: bool = True
    BOUND_HEADERS: tuple[str, ...] = ()
    FINGERPRINT_KEY: str = field(default="", repr=False)

    # Who stands behind an account: a lookup path on the user model, and a dotted path to a
    # callable(request) -> iterable of further persons behind this call.
    PERSON_KEY: str = "pk"
    REQUEST_PERSONS: str = ""
    # A dotted path to a callable(request) -> the agent that the credential of this call proves, or "".
    REQUEST_AGENT: str = ""

    # Who is in front of the server (addresses or networks), so that their X-Forwarded-For is believed.
    TRUSTED_PROXIES: tuple[str, ...] = ()
    # Request headers that conditions of policies may read. A caller writes them.
    CONDITION_HEADERS: tuple[str, ...] = ()

    # Whether a policy changed in the admin, or by the command, waits for another person's approval.
    GATE_POLICY_CHANGES: bool = False
    # Whether erasing contents of the audit trail does; it does where changes of policies do.
    GATE_ERASURE: bool = False
    # Told, beside a policy's own fallback, when a call finds nobody who could decide it, or has nobody left.
    FALLBACK_ADDRESSES: tuple[str, ...] = ()

    # How long a connection is held for a caller that sends `Prefer: wait`; 0: never. How many at once, in one
    # process: in all under ASGI, in all where each of them holds a thread, and of one requester.
    MAX_WAIT: timedelta = timedelta(0)
    MAX_WAITERS: int = 1000
    MAX_THREAD_WAITERS: int = 4
    MAX_WAITERS_PER_REQUESTER: int = 20

    # Where a policy has no ladder of its own: after so many percent of the time to decide, deciders are
    # reminded. 0: they are not.
    REMIND_AT: int = 50
    # The end of a window is announced this long before it, or when a fifth of the window is left, whichever is
    # the shorter. 0: it is not.
    EXPIRING_BEFORE: timedelta = timedelta(hours=1)
    # Saving a policy that would tell more people than this at once is warned of.
    MANY_TOLD: int = 50

    # Answers and messages.
    POLL_INTERVAL: int = 5
    BASE_URL: str = ""
    FROM_EMAIL: str = ""
    # Dotted modules of the project's own kinds of channel, and the ports a webhook may use.
    CHANNELS: tuple[str, ...] = ()
    WEBHOOK_PORTS: Ports = _HTTPS
    # Schemes of Apprise to be offered beside those whose host is the vendor's: `ntfys`, `mmosts`, …
    APPRISE_SERVICES: tuple[str, ...] = ()
    # What secrets of channels are encrypted under: the first seals, any of them opens.
    SECRET_KEYS: tuple[str, ...] = field(default=(), repr=False)
    # What Prometheus sends as a bearer token to read `metrics.view`; without one, a permission is needed.
    METRICS_TOKEN: str = field(default="", repr=False)
    # The file with the key that signs the audit trail, and the directory it is exported to as it is sealed.
    AUDIT_KEY_FILE: str = ""
    AUDIT_EXPORT_DIR: str = ""
    # The public key, where calls are run by processes that do not have the private one.
    AUDIT_PUBLIC_KEY: str = ""
    # Whether a call of critical severity runs only once all that led to it is sealed and signed.
    SEAL_BEFORE_EXECUTE: bool = False
    # Off: the database lets the trail be changed and removed, for tests that flush. Heeded while tests run, or where
    # DEBUG is on; nowhere else.
    AUDIT_APPEND_ONLY: bool = True
    # Where else it is sent as it is sealed: a URL, signed under the first secret and, while that is changed, under the
    # second too; a logger of Python's, by its name. As JSON Lines (`jsonl`) or `ocsf`.
    AUDIT_WEBHOOK_URL: str = ""
    AUDIT_WEBHOOK_SECRETS: tuple[str, ...] = field(default=(), repr=False)
    AUDIT_LOGGER: str = ""
    AUDIT_FORMAT: str = "jsonl"
    # Whether events are sent there as soon as they are committed, and once more when they are sealed.
    AUDIT_STREAM_UNSEALED: bool = False
    # How often `approval_clock` verifies the trail in the database; 0: never.
    AUDIT_VERIFY_EVERY: timedelta = timedelta(days=1)
    # Calls that the server runs itself: further headers it keeps to make them, how long their answer can be
    # fetched (and an identical call is answered `approval_consumed`), and how much of it is kept.
    REPLAY_HEADERS: tuple[str, ...] = ()
    RESULT_KEPT_FOR: timedelta = timedelta(hours=1)
    MAX_RESULT_BYTES: int = 256 * 1024
    # Endpoints that one requester may have called back.
    MAX_CALLBACKS: int = 5
    # A run that has recorded no end for this long is `unknown`.
    RUN_LIMIT: timedelta = timedelta(minutes=15)

    @property
    def fingerprint_key(self) -> bytes:
        """The key under which fingerprints are stored; changing it only makes open calls be held anew."""
        secret = self.FINGERPRINT_KEY or settings.SECRET_KEY
        material = secret if isinstance(secret, bytes) else secret.encode()
        return hashlib.sha256(b"jit_approval.fingerprint\0" + material).digest()


_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_WINDOWS = ("DECIDE_WITHIN", "USABLE_WITHIN")
_AT_LEAST_ONE = (
    "REQUIRED_APPROVALS",
    "MAX_OPEN_PER_REQUESTER",
    "MAX_BODY_BYTES",
    "MAX_REASON_LENGTH",
    "MAX_JSON_DEPTH",
    "MAX_PREVIEW_CHARS",
    "POLL_INTERVAL",
    "MAX_WAITERS",
    "MAX_THREAD_WAITERS",
    "MAX_WAITERS_PER_REQUESTER",
    "MAX_RESULT_BYTES",
    "MANY_TOLD",
)


@cache
def _load() -> Settings:
    raw = getattr(settings, "JIT_APPROVAL", {})
    if not isinstance(raw, dict):
        raise ImproperlyConfigured("JIT_APPROVAL must be a dict.")
    known = {entry.name: entry for entry in fields(Settings)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            raise ImproperlyConfigured(f"JIT_APPROVAL has no setting {name!r}.")
        values[name] = _typed(name, value, known[name].default)
    loaded = Settings(**values)
    _validate(loaded)
    return loaded


def _typed(name: str, value: Any, default: Any) -> Any:
    """Return `value` as the type of `default`; anything else is a mistake worth stopping for."""
    convert = {timedelta: _duration, Rate: _rate, Ports: _ports, tuple: _strings}.get(
        type(default), _same
    )
    try:
        return convert(value, type(default))
    except (TypeError, ValueError, OverflowError) as error:
        raise ImproperlyConfigured(f"JIT_APPROVAL[{name!r}]: {error}") from None


def _same(value: Any, kind: type) -> Any:
    # A bool is an int to Python, and True approvals is not a number of approvals.
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, not {value!r}")
    return value


def _duration(value: Any, _kind: type) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a timedelta or a number of seconds, not {value!r}")
    return timedelta(seconds=value)


def _rate(value: Any, _kind: type) -> Rate:
    if isinstance(value, Rate):
        if value.count < 1 or value.period < MIN_WINDOW:
            raise ValueError(f"expected a rate of one or more in a second or more, not {value!r}")
        return value
    count, _, period = str(value).partition("/")
    if not count.isdecimal() or period not in _PERIODS or int(count) < 1:
        raise ValueError(f"expected a rate such as '100/hour', not {value!r}")
    return Rate(int(count), timedelta(seconds=_PERIODS[period]))


def _ports(value: Any, _kind: type) -> Ports:
    ports = Ports(value)
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise ValueError(f"expected a list of ports such as [443], not {value!r}")
    return ports


def _strings(value: Any, _kind: type) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) and item for item in value):
        raise TypeError(f"expected a list of strings, none empty, not {value!r}")
    return tuple(value)


def _validate(loaded: Settings) -> None:
    for name in _AT_LEAST_ONE:
        if getattr(loaded, name) < 1:
            raise ImproperlyConfigured(f"JIT_APPROVAL[{name!r}] must be at least 1.")
    for name in _WINDOWS:
        if not MIN_WINDOW <= getattr(loaded, name) <= MAX_WINDOW:
            raise ImproperlyConfigured(
                f"JIT_APPROVAL[{name!r}] must lie between 1 second and 30 days."
            )
    if not 0 <= loaded.REMIND_AT < 100:
        raise ImproperlyConfigured("JIT_APPROVAL['REMIND_AT'] is a percentage: 0 to 99.")
    for name in (
        "REJECTION_COOLDOWN",
        "RUN_LIMIT",
        "RESULT_KEPT_FOR",
        "EXPIRING_BEFORE",
        "AUDIT_VERIFY_EVERY",
    ):
        if not timedelta(0) <= getattr(loaded, name) <= MAX_WAIT:
            raise ImproperlyConfigured(f"JIT_APPROVAL[{name!r}] must lie between 0 and 365 days.")
    if not timedelta(0) <= loaded.MAX_WAIT <= MAX_ON_THE_LINE:
        raise ImproperlyConfigured("JIT_APPROVAL['MAX_WAIT'] must lie between 0 and 1 hour.")
    if loaded.AUDIT_FORMAT not in ("jsonl", "ocsf"):
        raise ImproperlyConfigured("JIT_APPROVAL['AUDIT_FORMAT'] must be 'jsonl' or 'ocsf'.")
    if len(loaded.AUDIT_WEBHOOK_SECRETS) > MAX_SECRETS:
        raise ImproperlyConfigured("JIT_APPROVAL['AUDIT_WEBHOOK_SECRETS'] has one secret, or two.")
    for network in loaded.TRUSTED_PROXIES:
        try:
            ip_network(network)
        except ValueError as error:
            raise ImproperlyConfigured(f"JIT_APPROVAL['TRUSTED_PROXIES']: {error}") from None
    # The value is not repeated: an error is shown, and logged.
    if any(len(key) < MIN_KEY for key in loaded.SECRET_KEYS):
        raise ImproperlyConfigured(
            f"JIT_APPROVAL['SECRET_KEYS']: a key has at least {MIN_KEY} random characters, as "
            "secrets.token_urlsafe(32) makes them."
        )
    if loaded.REQUIRED_APPROVALS > MAX_APPROVALS:
        raise ImproperlyConfigured(
            f"JIT_APPROVAL['REQUIRED_APPROVALS'] must be at most {MAX_APPROVALS}."
        )


def get() -> Settings:
    """Return the settings in force.

    Raises:
        ImproperlyConfigured: a value is unknown, of the wrong type or out of range.
    """
    return _load()


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "JIT_APPROVAL":
        _load.cache_clear()


setting_changed.connect(_forget, dispatch_uid="jit_approval.conf")
