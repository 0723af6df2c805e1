"""Where a requester is called back, beside being told by e-mail."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval import secrets


class Callback(models.Model):
    """One endpoint of one requester (Standard Webhooks): it is told the id and the state, and nothing else."""

    # Known before the row is saved: the secret is bound to it.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
    )
    # 1, 2, …: so that no race makes more than there may be.
    number = models.PositiveSmallIntegerField()
    url = models.TextField(_("URL"))
    sealed = models.TextField(default="", editable=False)
    enabled = models.BooleanField(_("enabled"), default=True)
    disabled_because = models.TextField(_("disabled because"), blank=True)
    created_at = models.DateTimeField(_("created at"))

    class Meta:
        verbose_name = _("callback")
        verbose_name_plural = _("callbacks")
        ordering = ("number",)
        constraints = [
            # Its index also finds a requester's endpoints.
            models.UniqueConstraint(fields=["user", "number"], name="jit_callback_number"),
        ]

    def __str__(self) -> str:
        """Return the id; the URL may hold a token."""
        return str(self.pk)

    def open_secret(self) -> str:
        """Return the signing secret.

        Raises:
            SecretError: it cannot be decrypted here.
        """
        return secrets.unseal(self.sealed, bound_to=self._bound_to)

    def keep_secret(self, value: str) -> None:
        """Encrypt the signing secret. The caller saves the row.

        Raises:
            SecretError: there is no key to encrypt with.
        """
        self.sealed = secrets.seal(value, bound_to=self._bound_to)

    @property
    def _bound_to(self) -> str:
        # With the URL: a secret must not come to sign what goes elsewhere.
        return f"callback {self.pk} {self.user_id} {self.url}"
