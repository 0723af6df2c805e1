"""Every route that can write: its gate, the policies that name it, whether their deciders suffice."""

from jit_approval.inventory.allowed import Entry, MalformedAllowList, read
from jit_approval.inventory.listing import Inventory, take

__all__ = ["Entry", "Inventory", "MalformedAllowList", "read", "take"]
