"""Moving money: both balances and the record of it change together, or nothing does."""

from decimal import Decimal

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from .models import Account, Transfer


class InsufficientFunds(Exception):
    """The source account does not hold the amount."""


def transfer(
    *, source: Account, target: Account, amount: Decimal, reference: str = "", by: AbstractBaseUser
) -> Transfer:
    """Move `amount` euros and return the record of it.

    Raises:
        InsufficientFunds: nothing has been moved.
    """
    with transaction.atomic():
        # Always in the same order: two transfers in opposite directions must not deadlock.
        accounts = (
            Account.objects.select_for_update().filter(pk__in=[source.pk, target.pk]).order_by("pk")
        )
        locked = {account.pk: account for account in accounts}
        giver, taker = locked[source.pk], locked[target.pk]
        if giver.balance < amount:
            raise InsufficientFunds
        giver.balance -= amount
        taker.balance += amount
        giver.save(update_fields=["balance"])
        taker.save(update_fields=["balance"])
        return Transfer.objects.create(
            source=giver, target=taker, amount=amount, reference=reference, created_by=by
        )
