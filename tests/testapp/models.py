"""Objects that gated calls are about."""

import uuid

from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.db import models
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase


class Customer(models.Model):
    """Somebody who may be erased."""

    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """Money of a customer, to be moved."""

    owner = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="accounts")
    balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)

    def __str__(self) -> str:
        return f"{self.owner}: {self.balance}"


class AccountUserPermission(UserObjectPermissionBase):
    """Who may do what with one account, by a foreign key of its own instead of guardian's generic one."""

    content_object = models.ForeignKey(Account, on_delete=models.CASCADE)
    # This app has no migrations: its tables are made before those they point to.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, db_constraint=False)
    permission = models.ForeignKey(Permission, models.CASCADE, db_constraint=False)


class Vault(models.Model):
    """Something with a key that databases write differently."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class VaultGroupPermission(GroupObjectPermissionBase):
    """Which groups may do what with one vault."""

    content_object = models.ForeignKey(Vault, on_delete=models.CASCADE)
    group = models.ForeignKey(Group, models.CASCADE, db_constraint=False)
    permission = models.ForeignKey(Permission, models.CASCADE, db_constraint=False)
