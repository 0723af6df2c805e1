"""Where people are told, beside their own mailboxes: a chat room, a pager, an endpoint."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval import secrets

RESERVED = frozenset({"email"})
"""Slugs that name a way to tell people which needs no configuration."""


def validate_slug(value: str) -> None:
    """Refuse a slug that already means something."""
    if value in RESERVED:
        raise ValidationError(_("%(value)s is taken."), code="reserved", params={"value": value})


class Channel(models.Model):
    """One configured way to tell people. What it needs to keep secret is stored encrypted."""

    # Known before the row is saved: secrets are bound to it.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(_("slug"), max_length=50, unique=True, validators=[validate_slug])
    name = models.CharField(_("name"), max_length=100)
    # A module of `notifications.channels`, or one that the setting CHANNELS names.
    kind = models.CharField(_("kind"), max_length=50)
    enabled = models.BooleanField(
        _("enabled"),
        default=False,
        help_text=_("A policy none of whose channels is enabled tells its deciders by e-mail."),
    )
    disabled_because = models.TextField(_("disabled because"), blank=True, editable=False)
    configuration = models.JSONField(_("configuration"), default=dict, editable=False)
    sealed = models.TextField(default="", blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    class Meta:
        verbose_name = _("channel")
        verbose_name_plural = _("channels")
        ordering = ("name", "slug")

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def open_secrets(self) -> dict[str, str]:
        """Return the secrets by name.

        Raises:
            SecretError: they cannot be decrypted here.
        """
        if not self.sealed:
            return {}
        opened: dict[str, str] = json.loads(secrets.unseal(self.sealed, bound_to=self._bound_to))
        return opened

    def keep_secrets(self, values: Mapping[str, str]) -> None:
        """Encrypt these in place of those there were. The caller saves the row.

        Raises:
            SecretError: there is no key to encrypt with.
        """
        kept = {name: value for name, value in values.items() if value}
        text = json.dumps(kept, sort_keys=True)
        self.sealed = secrets.seal(text, bound_to=self._bound_to) if kept else ""

    @property
    def _bound_to(self) -> str:
        # A secret of one kind must not be handed to another, which may send it somewhere.
        return f"channel {self.pk} {self.kind}"


class PreferredChannel(models.Model):
    """The channel one person is told on, in place of their own mailbox."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="+",
    )
    channel = models.ForeignKey(
        Channel, verbose_name=_("channel"), on_delete=models.PROTECT, related_name="preferred_by"
    )

    class Meta:
        verbose_name = _("preferred channel")
        verbose_name_plural = _("preferred channels")

    def __str__(self) -> str:
        """Return the person and the channel."""
        return f"{self.user} → {self.channel}"
