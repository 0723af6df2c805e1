"""What the back office keeps. Nothing here knows of approvals: the gate stands at the API."""

from decimal import Decimal

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models


class Customer(models.Model):
    """Someone whose personal data we hold, until we are asked to erase it."""

    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "pk"]

    def __str__(self) -> str:
        return self.name


class Dataset(models.Model):
    """A whole body of data that a customer has given us."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=100)
    rows = models.PositiveBigIntegerField(default=0)
    last_read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name", "pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.rows:,} rows)"


class Account(models.Model):
    """One of our own bank accounts. Balances are euros."""

    number = models.CharField(max_length=34, unique=True)
    name = models.CharField(max_length=100)
    balance = models.DecimalField(max_digits=14, decimal_places=2, default=0)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(balance__gte=0), name="account_balance_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.number})"


class Transfer(models.Model):
    """Money that has been moved. A row exists only if the balances have changed with it."""

    source = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="transfers_out")
    target = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="transfers_in")
    amount = models.DecimalField(
        max_digits=14, decimal_places=2, validators=[MinValueValidator(Decimal("0.01"))]
    )
    reference = models.CharField(max_length=140, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount__gt=0), name="transfer_amount_positive"
            ),
            models.CheckConstraint(
                condition=~models.Q(source=models.F("target")), name="transfer_between_two_accounts"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} from {self.source_id} to {self.target_id}"


class Cluster(models.Model):
    """A group of machines that runs something people depend on."""

    class State(models.TextChoices):
        """Whether it is up."""

        RUNNING = "running"
        STOPPED = "stopped"

    name = models.SlugField(unique=True)
    nodes = models.PositiveIntegerField(default=3)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
