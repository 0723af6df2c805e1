"""Objects that gated calls are about."""

from django.db import models


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
