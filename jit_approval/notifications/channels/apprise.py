"""Slack, Teams, PagerDuty, ntfy and more, by the library Apprise (https://github.com/caronc/apprise).

A service is a URL with its token within: the URL is the secret. The library makes connections of its own, where
`public` has no say. So only services are offered whose host is the vendor's and not the URL's to choose, and of a
URL's options only those that name no file, no address, and no weaker TLS. `APPRISE_SERVICES` adds to them.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from jit_approval import conf
from jit_approval.notifications.transport import Field, Message, Target, TransportError

LABEL = _("Slack, Teams, PagerDuty, ntfy, … (Apprise)")

# As read in the source of Apprise 2.2. Not zulip, for example: its organisation may be any host.
SERVICES = frozenset(
    {
        *("discord", "gchat", "slack", "tgram", "webex", "workflow", "workflows", "wxteams"),
        *("firehydrant", "ilert", "incidentio", "opsgenie", "pagerduty", "pagertree", "signl4"),
        *("spike", "splunk", "squadcast", "victorops"),
        *("ntfy", "ntfys", "pbul", "pover", "twilio"),
    }
)
"""Schemes whose host is the vendor's."""

# Where the vendor gives each customer a host, and the URL names it.
_HOSTS = {
    "workflow": (".logic.azure.com", ".api.powerplatform.com"),
    "workflows": (".logic.azure.com", ".api.powerplatform.com"),
}
# What a chat takes for a call to everybody, or for a link with another text: a requester's words are neither.
_LOUD = re.compile(r"@(?=everyone|here|channel|all\b)|<(?=[!@#a-z])", re.IGNORECASE)
_OPTIONS = frozenset({"priority", "severity", "region", "thread", "topic", "to", "from", "mode"})
_SEVERITIES = {"critical": "failure", "high": "warning"}
_CONNECT, _READ = 4.0, 10.0  # seconds


def check_url(value: str) -> None:
    """Refuse a URL that would not be used."""
    try:
        _service(value)
    except TransportError as error:
        raise ValidationError(str(error), code="url") from None


FIELDS = (
    Field(
        "url",
        _("service URL"),
        _(
            "As Apprise writes it, for example slack://TokenA/TokenB/TokenC or pagerduty://key@apikey."
        ),
        required=True,
        secret=True,
        check=check_url,
    ),
)


def notify(message: Message, target: Target) -> None:
    """Hand the message to the service.

    Raises:
        TransportError: the URL is not to be used, or the service did not take the message.
    """
    service = _service(target.secrets.get("url", ""))
    taken = service.notify(
        title=_quiet(message.subject),
        body=_quiet(message.body),
        notify_type=_SEVERITIES.get(message.severity, "info"),
        body_format="text",
    )
    if not taken:
        # The library tells its log why; an answer may repeat the token.
        raise TransportError(
            f"{service.service_name} did not take the message; the worker's log (apprise) says why."
        )


def _quiet(text: str) -> str:
    return _LOUD.sub(lambda match: f"{match[0]} ", text)


def _service(url: str) -> Any:
    """Return the library's service for a URL.

    Raises:
        TransportError: the library is missing, or the URL is not one to be used. It is not repeated.
    """
    try:
        import apprise
    except ImportError:
        raise TransportError(
            "This channel needs a library that is not installed: pip install django-jit-approval[apprise]"
        ) from None
    scheme, trusted = _scheme(url)
    # No files: neither templates that a URL names, nor what the library would keep between messages.
    asset = apprise.AppriseAsset(
        allow_templates=False, http_redirects=False, storage_mode="memory", async_mode=False
    )
    service = apprise.Apprise.instantiate(url.strip(), asset=asset, suppress_exceptions=True)
    if service is None:
        raise TransportError(f"Apprise cannot read this {scheme}:// URL.", permanent=True)
    if not trusted:
        _ensure_vendors_host(scheme, service)
    service.redirects, service.verify_certificate = False, True
    service.socket_connect_timeout, service.socket_read_timeout = _CONNECT, _READ
    return service


def _scheme(url: str) -> tuple[str, bool]:
    """Return the scheme, and whether the settings name it: then it may do what it does."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise TransportError("This is no URL.", permanent=True) from None
    if parts.scheme in conf.get().APPRISE_SERVICES:
        return parts.scheme, True
    if parts.scheme not in SERVICES:
        raise TransportError(
            f"The service {parts.scheme[:30]!r} is not among those offered. JIT_APPROVAL['APPRISE_SERVICES'] "
            "can add it; who configures channels can then reach whatever it can reach.",
            permanent=True,
        )
    options = {name.lower() for name, _value in parse_qsl(parts.query, keep_blank_values=True)}
    # Some readers take ; for &.
    if options - _OPTIONS or ";" in parts.query or "#" in url:
        known = ", ".join(sorted(_OPTIONS))
        raise TransportError(f"Only these options are taken in the URL: {known}.", permanent=True)
    return parts.scheme, False


def _ensure_vendors_host(scheme: str, service: Any) -> None:
    host = str(getattr(service, "host", "") or "").lower()
    if scheme in _HOSTS:
        if not host.endswith(_HOSTS[scheme]):
            raise TransportError(f"{host[:100]!r} is no host of this service.", permanent=True)
        return
    tokens = getattr(service, "template_tokens", {})
    if {"host", "hostname"} & set(tokens) and getattr(service, "mode", "") != "cloud":
        text = (
            f"A {scheme}:// URL names no host here: JIT_APPROVAL['APPRISE_SERVICES'] can allow it."
        )
        raise TransportError(text, permanent=True)
